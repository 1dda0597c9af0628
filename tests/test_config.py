"""A recipe means what it says, says all of it again, and refuses what it does not understand in one sentence."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pellucid as pl
from pellucid import config
from pellucid.cli.listing import _shipped
from pellucid.config import Recipe
from pellucid.errors import PellucidError

every_recipe = pytest.mark.parametrize("name", config.shipped())


@every_recipe
def test_shipped_recipes_are_complete(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert tomllib.loads(recipe.toml()).keys() >= {"data", "net", "objective", "optim", "train", "sample"}


@every_recipe
def test_a_recipe_written_and_read_is_itself(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name, ["net.width=24", "path={name='shifted', base='flow', shift=2.5}", "optim.lr=1e-05"])
    (tmp_path / "mine.toml").write_text(recipe.toml())
    assert Recipe.load(tmp_path / "mine.toml") == recipe


@pytest.mark.parametrize("name", ["digits", "toy-2d"])
def test_a_recipe_builds_what_it_describes(name: str) -> None:
    recipe = Recipe.load(name, ["train.steps=7", "path=flow", "prediction=velocity"])
    data = recipe.read()
    model = recipe.build(data)
    described = model.config()
    assert described["path"] == {"name": "flow"} and described["prediction"] == {"name": "velocity"}
    assert recipe.net.items() <= described["net"].items()
    assert described["data_std"] == data.std
    assert described["conditioner"].get("classes", 0) == len(data.classes)
    assert recipe.plan(model, data).steps == 7
    assert recipe.aim().drop == recipe.objective.drop


def test_a_conditioner_need_not_count_the_classes() -> None:
    recipe = Recipe.load("digits", ["conditioner={name='label', width=24}"])
    assert recipe.build(recipe.read()).config()["conditioner"] == {"name": "label", "classes": 10, "width": 24}
    recipe = Recipe.load("digits", ["conditioner=none"])
    assert recipe.build(recipe.read()).config()["conditioner"] == {"name": "none"}


OWN = {"cifar10", "cifar10-fast", "dit-cifar10", "pictures", "pictures-64"}
SMALL = {
    "unet": ["net.width=16", "net.multipliers=[1,1]", "net.blocks=1", "net.attention=[]", "net.groups=8", "net.head=8"],
    "dit": ["net.width=32", "net.depth=1", "net.head=16"],
    "mlp": ["net.width=16"],
}
SMALL["ddpm-cifar10"] = SMALL["unet"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        colour = Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 40))
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        colour.save(folder / "ab"[i % 2] / f"{i}.jpg")
    return folder


@every_recipe
def test_a_shipped_recipe_trains_and_draws(name: str, pictures: Path) -> None:
    trains_and_draws(name, None, pictures)


@pytest.mark.parametrize("name", ["toy-2d", "digits", "cifar10"])
@pytest.mark.parametrize("system", config.shipped("systems"))
def test_every_system_trains_and_draws_by_every_kind_of_recipe(system: str, name: str, pictures: Path) -> None:
    """Points, small pictures, and pictures on an accelerator: the system's row is laid over any of them."""
    recipe = Recipe.load(name, [], system)
    assert recipe.name == f"{name}-{system}" and Recipe.load(name).net["name"] == recipe.net["name"]
    trains_and_draws(name, system, pictures)


def trains_and_draws(name: str, system: str | None, pictures: Path) -> None:
    net = Recipe.load(name).net
    assert isinstance(net, dict)
    short = ["train.steps=2", "train.batch=4", "train.compile=false", "train.workers=0", *SMALL[net["name"]]]
    recipe = Recipe.load(name, short + ([f"data.source={pictures}"] if name in OWN else []), system)
    data = recipe.read()
    model = recipe.build(data)
    before = [p.detach().clone() for p in model.parameters()]
    losses: list[float] = []
    hear = lambda step: losses.append(step.loss)  # noqa: E731
    trained = pl.train(model, data, recipe.plan(model, data), recipe.aim(), progress=hear)
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses)
    assert any(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    cond = {"label": torch.tensor([0, 1])} if data.classes else None
    settings = {"sampler": recipe.sample.sampler, "grid": recipe.sample.grid, "steps": 2}
    guidance = pl.CFG(recipe.sample.guidance) if cond else None
    assert pl.sample(trained, 2, cond=cond, guidance=guidance, **settings).isfinite().all()


@every_recipe
def test_a_recipe_says_what_it_needs_and_how_long_it_takes(name: str) -> None:
    (row,) = [row for row in _shipped("recipes") if row["name"] == name]
    assert row["what"].endswith(".")
    said = f"{row['what']} {row['needs']}"
    assert "Needs" in said and re.search(r"minute|hour|day", said)


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_recipe_without_pictures_asks_for_them(name: str) -> None:
    with pytest.raises(PellucidError, match=f"{name} does not bring pictures; say where yours are: --data"):
        Recipe.load(name).read()


def test_minutes_are_turned_into_steps() -> None:
    recipe = Recipe.load("toy-2d", ["net.width=16", "train.minutes=0.001", "train.batch=8"])
    data = recipe.read()
    assert 1 <= recipe.plan(recipe.build(data), data).steps < 3000
    assert Recipe.load("pictures", ["train.steps=4"]).train.minutes is None


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("train.steps=5", ("train", "steps"), 5),
        ("optim.lr=1e-3", ("optim", "lr"), 0.001),
        ("optim.lr=.5e-3", ("optim", "lr"), 0.0005),
        ("optim.clip=2.", ("optim", "clip"), 2.0),
        ("train.steps=1e2", ("train", "steps"), 100),
        ("train.seed=007", ("train", "seed"), 7),
        ("train.compile=true", ("train", "compile"), True),
        ("optim.betas=[0.9, 0.95]", ("optim", "betas"), (0.9, 0.95)),
        ("path=flow", ("path",), "flow"),
        ("path.s=0.01", ("path",), {"name": "cosine", "s": 0.01}),
        ("sample.grid.high=2", ("sample", "grid"), {"name": "scales", "high": 2}),
        ("sample.noise=brownian", ("sample", "noise"), "brownian"),
        ("name=my run", ("name",), "my run"),
    ],
)
def test_overrides(setting: str, key: tuple[str, ...], value: object) -> None:
    found: object = Recipe.load("digits", [setting])
    for word in key:
        found = getattr(found, word)
    assert found == value


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optim.lrr=1", "'optim.lrr'; did you mean 'optim.lr'?"),
        ("lr=1", "'lr'; did you mean 'optim.lr'?"),
        ("optmi.lr=1", "did you mean 'optim'?"),
        ("train.steps=0", "train.steps is 0; expected a number greater than 0"),
        ("train.steps=many", "train.steps is 'many'; expected a valid integer"),
        ("optim.lr=nan", "optim.lr is nan; expected a finite number"),
        ("optim.decay=cosinus", "optim.decay is 'cosinus'; expected 'constant', 'cosine', 'linear' or 'rsqrt'"),
        ("path=cosinus", "unknown path 'cosinus'; did you mean 'cosine'?"),
        ("path=3", "path is 3; expected"),
        ("path.q=3", "unknown option of path"),
        ("sample.sampler=dpmpp2m", "did you mean"),
        ("objective.weight=minsnr", "did you mean 'min"),
        ("train.batch=true", "train.batch is True; expected a valid integer."),
        ('train.batch="64"', "train.batch is '64'; expected a valid integer."),
        ("optim.lr=true", "optim.lr is True; expected a valid number."),
        ("optim.betas=[0.9, true]", "optim.betas is [0.9, True]; expected a valid number."),
        ("objective.span=[0.1, '0.9']", "objective.span is [0.1, '0.9']; expected a valid number."),
        ("data.size=true", "data.size is True; expected a valid integer."),
        ("data.channels=true", "data.channels is True; expected a valid integer."),
        ("train.compile=yes", "train.compile is 'yes'; expected true or false."),
        ("train.compile=1", "train.compile is 1; expected true or false."),
        ("data.channels=2", "data.channels is 2; expected 1 or 3"),
        ("train.batch.size=4", "'batch' has no settings of its own"),
        ("steps", "expected key=value"),
        ("train={steps=3, minutes=1}", "both steps and minutes"),
        ("train={batch=3}", "neither steps nor minutes"),
        ("data={}", "data.source is missing"),
    ],
)
def test_mistakes_are_one_sentence(setting: str, said: str) -> None:
    with pytest.raises(PellucidError) as caught:
        Recipe.load("digits", [setting])
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [("digts", "did you mean 'digits'?"), ("no/such/folder", "there is no"), ("none.toml", "cannot read the recipe")],
)
def test_a_recipe_that_is_not_there(spec: str, said: str) -> None:
    with pytest.raises(PellucidError, match=said):
        Recipe.load(spec)


def test_data_alone_is_a_recipe(tmp_path: Path) -> None:
    assert Recipe.load("moons").data.source == "moons"
    assert Recipe.load("moons").net == Recipe.load("toy-2d").net
    for i, (x, recipe) in enumerate(((np.zeros((50, 5)), "toy-2d"), (np.zeros((50, 1, 8)), "pictures"))):
        np.savez(tmp_path / f"{i}.npz", y=np.arange(50), x=x)
        found = Recipe.load(str(tmp_path / f"{i}.npz"))
        assert found.net == Recipe.load(recipe).net and found.read().shape == x.shape[1:]
    for damage in (b"", b"PK", (tmp_path / "0.npz").read_bytes()[:700]):
        (tmp_path / "0.npz").write_bytes(damage)
        with pytest.raises(PellucidError, match="cannot be read"):
            Recipe.load(str(tmp_path / "0.npz")).read()
    folder = Recipe.load(tmp_path, ["data.size=16"])
    assert (folder.name, folder.data.source, folder.data.size) == (tmp_path.name, str(tmp_path), 16)
    assert folder.net == Recipe.load("pictures").net


def test_a_run_goes_on_only_as_what_it_was() -> None:
    earlier = Recipe.load("digits", ["train.steps=50"])
    assert Recipe.load("digits", ["train.steps=80", "sample.steps=3"]).goes_on(earlier).train.steps == 80
    assert Recipe.load("digits", ["train.minutes=1"]).goes_on(earlier).train.steps == 50
    with pytest.raises(PellucidError, match="optim.lr = 0.002, not 0.001"):
        Recipe.load("digits", ["optim.lr=1e-3"]).goes_on(earlier)


def test_text_that_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("name = \n")
    with pytest.raises(PellucidError, match="is not TOML"):
        Recipe.load(tmp_path / "x.toml")


@pytest.mark.parametrize("system", config.shipped("systems"))
@pytest.mark.parametrize("recipe", ["toy-2d", "digits"])
def test_every_system_is_a_recipe_over_any_data(recipe: str, system: str) -> None:
    made = Recipe.load(recipe, [], system)
    data = made.read()
    model, objective = made.build(data), made.aim()
    index = torch.arange(4)
    x0, cond = data.batch(index)
    assert objective(model, objective.lesson(x0, cond, 0, index), 0).isfinite().all()
    assert Recipe.parse(tomllib.loads(made.toml())) == made and made.name == f"{recipe}-{system}"
    spread = model(x0, torch.full((4,), 0.5, dtype=torch.float64), cond).spread
    assert (spread is not None) == (made.variance == "learned")


def test_an_unknown_system_is_refused() -> None:
    with pytest.raises(PellucidError, match="unknown system 'ddpn'; did you mean 'ddpm'"):
        Recipe.load("digits", [], "ddpn")
