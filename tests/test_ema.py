"""Moving averages against their closed forms, against torch's own, in and out of a module, and made afterwards."""

import json
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from killer import model, points
from pellucid import checkpoint
from pellucid.cli import main
from pellucid.ema import EMA, Average, Fixed, Power, Warm, posthoc, registry, shares, snapshots, store
from pellucid.ema.averages import gamma
from pellucid.errors import PellucidError
from pellucid.objective import Lesson
from pellucid.training import Learner, Plan, Run

EACH = {"warm": Warm(0.6), "fixed": Fixed(0.6), "power": Power(0.1)}
every_average = pytest.mark.parametrize("name", registry.names())


def module(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def walk(model: nn.Module, steps: int) -> "list[dict[str, Tensor]]":
    """The weights of a model on a random walk, its start first; the model ends at the last."""
    generator, path = torch.Generator().manual_seed(1), [state(model)]
    for _ in range(steps):
        path.append({k: v + torch.randn(v.shape, generator=generator) for k, v in path[-1].items()})
    return path


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().double().clone() for name, p in model.named_parameters()}


def follow(ema: EMA, model: nn.Module, path: "list[dict[str, Tensor]]") -> None:
    for weights in path:
        model.load_state_dict(weights, strict=False)
        ema.update(model)


def held(average: Average, updates: int) -> Tensor:
    """[updates + 1], the share of the start and of every update's weights: prod_n d_n, (1 - d_n) prod_(m > n) d_m."""
    d = torch.tensor([average.kept(n) for n in range(updates)], dtype=torch.float64)
    left = torch.cat([d.flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])  # prod_(m >= n) d_m
    return torch.cat([left[:1], (1 - d) * left[1:]])


def test_every_average_is_tested_here() -> None:
    assert set(EACH) == set(registry.names())


@every_average
def test_it_is_its_closed_form(name: str) -> None:
    model = module()
    ema, path = EMA(model, EACH[name]), walk(model, 20)
    follow(ema, model, path[1:])
    share = held(EACH[name], 20)
    torch.testing.assert_close(share.sum(), torch.tensor(1.0, dtype=torch.float64))
    for key in path[0]:
        expected = sum(part * weights[key] for part, weights in zip(share, path, strict=True))
        torch.testing.assert_close(ema.groups()["ema"][key].double(), expected, rtol=1e-5, atol=1e-6)


@every_average
def test_several_averages_are_what_each_is_alone(name: str) -> None:
    model = module()
    path, both = walk(model, 8), EMA(model, Warm(0.5), registry.make(registry.describe(EACH[name])))
    alone = EMA(model, EACH[name])
    follow(both, model, path)
    follow(alone, model, path)
    second = both.groups()[f"ema-{EACH[name].label}"]
    assert all(torch.equal(value, second[key]) for key, value in alone.groups()["ema"].items())


def test_it_is_torchs_average() -> None:
    model = module()
    judge = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    judge.update_parameters(model)  # the first update of theirs is a copy
    ema = EMA(model, Fixed(0.9))
    for weights in walk(model, 10):
        model.load_state_dict(weights, strict=False)
        model(torch.randn(8, 3, generator=torch.Generator().manual_seed(2)))  # moves the statistics of BatchNorm
        ema.update(model)
        judge.update_parameters(model)
    for name, expected in judge.module.state_dict().items():
        torch.testing.assert_close(ema.groups()["ema"][name], expected, rtol=1e-6, atol=1e-6)


def test_no_decay_is_a_copy() -> None:
    model = module()
    ema = EMA(model, 0.0)
    follow(ema, model, walk(model, 3))
    for name, value in model.state_dict().items():
        assert torch.equal(ema.groups()["ema"][name], value)


def test_applied_swaps_and_swaps_back_even_on_failure() -> None:
    model = module()
    ema = EMA(model, 0.5, Power(0.2))
    follow(ema, model, walk(model, 3))
    for name, tensors in ema.groups().items():
        own, averaged = state(model), {key: value.clone() for key, value in tensors.items()}
        with pytest.raises(ZeroDivisionError), ema.applied(model, name):
            assert all(torch.equal(value, averaged[key]) for key, value in model.state_dict().items())
            raise ZeroDivisionError
        assert all(torch.equal(value, own[key].float()) for key, value in model.named_parameters())
        assert all(torch.equal(value, averaged[key]) for key, value in tensors.items())


def test_weights_that_are_shared_stay_shared() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    ema = EMA(model, 0.5)
    with torch.no_grad():
        model["a"].weight.add_(1)
    ema.update(model)
    assert torch.equal(ema.groups()["ema"]["a.weight"], ema.groups()["ema"]["b.weight"])


@every_average
def test_restored_it_goes_on_as_if_never_stopped(name: str) -> None:
    model = module()
    path, ema = walk(model, 12), EMA(model, 0.9, EACH[name])
    follow(ema, model, path[:6])
    other = EMA(module(seed=5), 0.9, EACH[name])
    kept = {group: {key: v.clone() for key, v in tensors.items()} for group, tensors in ema.groups().items()}
    other.load(kept, ema.updates)
    follow(ema, model, path[6:])
    follow(other, model, path[6:])
    for group, tensors in ema.groups().items():
        assert all(torch.equal(value, other.groups()[group][key]) for key, value in tensors.items())


@pytest.mark.parametrize("length", [0.01, 0.05, 0.2, 0.288])
def test_a_length_is_the_spread_of_what_is_looked_back_at(length: float) -> None:
    """The standard deviation of the place k/t, weighted by the shares, in the limit of many updates."""
    t = 4000
    share = held(Power(length), t)
    place = (torch.arange(t + 1) - 0.5) / t
    mean = (share * place).sum()
    assert (share * (place - mean) ** 2).sum().sqrt().item() == pytest.approx(length, rel=1e-4)
    k = torch.arange(t + 1, dtype=torch.float64) / t
    torch.testing.assert_close(share[1:], (k ** (gamma(length) + 1)).diff(), rtol=1e-6, atol=1e-12)
    assert share[0] == 0


LENGTHS, UPDATES, EVERY = (0.05, 0.1), 240, 20


def trained(folder: Path, *more: Average) -> tuple[EMA, nn.Linear]:
    """A run of weights that are drawn anew at every update, its snapshots stored, and further averages kept."""
    model, generator = nn.Linear(100, 100), torch.Generator().manual_seed(0)
    ema = EMA(model, 0.9, *map(Power, LENGTHS), *more)
    for n in range(1, UPDATES + 1):
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(generator=generator)
        ema.update(model)
        if n % EVERY == 0:
            store(folder, ema)
    return ema, model


def test_a_stored_average_is_found_again(tmp_path: Path) -> None:
    ema, _ = trained(tmp_path)
    found = snapshots(tmp_path)
    assert [(one.length, one.updates) for one in found[-2:]] == [(0.1, 220), (0.1, 240)]
    for length in LENGTHS:
        again = posthoc(found, length)
        for name, value in ema.groups()[f"ema-power-{length}"].items():
            torch.testing.assert_close(again[name], value, rtol=0, atol=1e-6)


def test_another_length_is_missed_by_what_is_foretold(tmp_path: Path) -> None:
    """Weights drawn alike at each update: the variance of what is missed is the minimum of the least squares."""
    asked = Power(0.03), Power(0.07), Power(0.15), Power(0.2)
    ema, _ = trained(tmp_path, *asked)
    found = [one for one in snapshots(tmp_path) if one.length in LENGTHS]
    for average in asked:
        made, kept = posthoc(found, average.length), ema.groups()[f"ema-{average.label}"]
        _, missed = shares([(one.length, one.updates) for one in found], average.length, UPDATES)
        error = (made["weight"] - kept["weight"]).square().mean().sqrt() / kept["weight"].square().mean().sqrt()
        assert 0.003 < missed < 0.1
        assert error.item() == pytest.approx(missed, rel=0.05)


def test_shares_are_the_least_squares_of_the_profiles() -> None:
    """Against the profiles themselves, update by update; and weights that stand still are kept as they are."""
    last, taken = 1000, [(length, t) for t in range(50, 1001, 50) for length in LENGTHS]
    profiles = np.array([np.pad(held(Power(length), t), (0, last - t)) for length, t in taken])
    for length in (0.03, 0.08, 0.2):
        x, missed = shares(taken, length, last)
        p = held(Power(length), last).numpy()
        left = np.linalg.norm(p - x @ profiles)
        assert x.sum() == pytest.approx(1, abs=1e-9)
        assert left / np.linalg.norm(p) == pytest.approx(missed, rel=1e-2)
        for other in np.random.default_rng(0).normal(size=(20, len(x))):  # no shares near these come closer
            assert np.linalg.norm(p - (x + 0.1 * (other - other.mean())) @ profiles) > left


def test_buffers_are_those_of_the_last_snapshot(tmp_path: Path) -> None:
    model = module()
    ema = EMA(model, Power(0.1))
    for n in (1, 2, 3):
        model[1].num_batches_tracked.fill_(n)
        model[1].running_mean.fill_(n)
        ema.update(model)
        store(tmp_path, ema)
    made = posthoc(snapshots(tmp_path), 0.1, updates=2)
    assert made["1.num_batches_tracked"] == 2 and (made["1.running_mean"] == 2).all()
    module(seed=3).load_state_dict(made)


def test_a_damaged_snapshot_is_a_sentence(tmp_path: Path) -> None:
    model = module()
    ema = EMA(model, Power(0.1))
    ema.update(model)
    (one,) = store(tmp_path, ema)
    whole = one.path.read_bytes()
    for at in range(0, len(whole), 97):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]):
            one.path.write_bytes(damaged)
            with pytest.raises(PellucidError, match=r"snapshot .* remove it"):
                snapshots(tmp_path)[0].read()
    assert not list(tmp_path.glob(".*"))


def test_what_snapshots_cannot_make_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="no snapshot"):
        posthoc([], 0.1)
    model = module()
    ema = EMA(model, Power(0.1))
    follow(ema, model, walk(model, 10))
    store(tmp_path, ema)
    with pytest.raises(PellucidError, match="no snapshot of 5 updates"):
        posthoc(snapshots(tmp_path), 0.1, updates=5)
    with pytest.raises(PellucidError, match="miss .*% of an average of length 0.2"):
        posthoc(snapshots(tmp_path), 0.2)
    for length in (0.0, 0.3, math.nan):
        with pytest.raises(PellucidError, match="a share of the run"):
            posthoc(snapshots(tmp_path), length)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_forgets_nothing_is_refused(decay: float) -> None:
    with pytest.raises(PellucidError, match="expected a decay"):
        EMA(module(), decay)


def test_averages_that_are_alike_or_absent_are_refused() -> None:
    with pytest.raises(PellucidError, match="two alike"):
        EMA(module(), 0.9, Warm(0.9))
    with pytest.raises(PellucidError, match="no average ema-power-0.1"):
        EMA(module(), 0.9, Power(0.1)).load(EMA(module(), 0.9).groups(), 0)


# ---- In a run


def test_the_snapshots_of_a_run_are_those_of_the_way_it_went(tmp_path: Path) -> None:
    """Stored as it trains, the same when it is killed and goes on, and gone where it went back."""

    class Fallen(Learner):
        def gradient(self, lesson: Lesson) -> Tensor:
            found = super().gradient(lesson)
            return found * float("nan") if self.step >= 26 and not self.guard.rollbacks else found

    plan = Plan(steps=60, batch=12, lr=1e-2, warmup=3, ema=0.9, averages=(Power(0.05), Power(0.1)))
    for name, stop in {"whole": 0, "killed": 31}.items():
        run = Run(tmp_path / name, save_every=20, snapshot_every=8)
        steps = run.fit(Fallen(model(), points(), plan))
        for progress in steps:
            if progress.step == stop:
                break
        steps.close()
        if stop:
            list(run.fit(Fallen(model(), points(), plan)))
    found = [snapshots(tmp_path / name / "ema") for name in ("whole", "killed")]
    assert [(one.length, one.updates) for one in found[0]] == [(one.length, one.updates) for one in found[1]]
    assert {one.updates for one in found[0]} == {8, 16, 24, 32, 40, 48, 56, 60}  # after 46 it went back to 20
    for one, other in zip(*found, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


def test_what_a_stop_came_before_is_made_up_for(tmp_path: Path) -> None:
    """Snapshots, pictures and evaluations follow the checkpoint of their step; a stop between loses none of them."""
    plan, made = Plan(steps=6, batch=12, averages=(Power(0.05),)), [0]

    def scribble(_: object, path: Path) -> None:
        made[0] += 1
        if made[0] == stop:
            raise ZeroDivisionError("as if killed")
        path.write_text("")

    for stop in range(9):
        made[0] = 0
        run = Run(tmp_path / str(stop), save_every=2, snapshot_every=2, draw_every=2, measure_every=2)
        run = replace(run, draw=scribble, measure=scribble)
        with suppress(ZeroDivisionError):
            list(run.fit(Learner(model(), points(), plan)))
        list(run.fit(Learner(model(), points(), plan)))
        names = {str(file.relative_to(run.folder)) for end in ("json", "png") for file in run.folder.rglob(f"*.{end}")}
        pictures = {f"samples/step_000000{step}.png" for step in (0, 2, 4, 6)}
        assert pictures | {f"evaluations/step_000000{step}.json" for step in (2, 4, 6)} <= names
        assert {one.updates for one in snapshots(run.folder / "ema")} == {2, 4, 6}


def test_a_length_is_chosen_on_data_that_the_run_has_not_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["net.width=16", "net.blocks=1", "train.batch=64", "train.snapshot_every=10", "--steps", "120"]

    def command(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([*words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out or said.err

    two = 'optim.averages=["power", {name = "power", length = 0.15}]'
    assert command("train", "moons", two, *settings)[0] == 0
    code, said = command("ema", "runs/moons", "--length", "0.05,0.08,0.25", "--json", "-n", "200")
    found = json.loads(said)
    rows = {row["average"]: row for row in found["rows"]}
    assert code == 0 and {"ema", "ema-power-0.05", "length 0.05", "length 0.08"} <= rows.keys()
    assert abs(rows["length 0.05"]["loss"]["value"] / rows["ema-power-0.05"]["loss"]["value"] - 1) < 1e-4
    best = min((row["loss"]["value"], name) for name, row in rows.items() if name.startswith("length"))[1]
    assert best == f"length {found['length']:g}" and rows[best]["above"] == {"value": 0.0, "error": 0.0}
    kept = checkpoint.load(found["kept"]).state_dict()
    made = posthoc(snapshots(Path("runs/moons/ema")), found["length"])
    assert all(torch.equal(kept[name], value) for name, value in made.items())
    for length in ("0.28", "long", "0.1,5"):
        assert command("ema", "runs/moons", "--length", length)[0] == 2
    for name in ("runs/moons", "runs/moons/ema", "mine", "mine/thesis.txt", "mine2"):  # nothing of it is lost
        for folder in (Path("mine"), Path("mine2.old")):
            folder.mkdir(exist_ok=True)
            (folder / "thesis.txt").write_text("years")
        with monkeypatch.context() as patch:
            patch.setattr("pellucid.training.watch.losses", None)  # refused before anything is measured
            code, said = command("ema", "runs/moons", "--length", "0.05", "--out", name)
            assert command("ema", "runs/moons", "--out", "/dev/null/x") == (
                2,
                "pellucid: cannot write /dev/null/x: /dev/null cannot be written to; choose another place.\n",
            )
        assert code == 2 and "is no checkpoint" in said and said.count("\n") == 1
        assert (folder / "thesis.txt").read_text() == "years" and Path("runs/moons/checkpoints").is_dir()
    place = checkpoint.latest(Path("runs/moons")).meta, Path("runs/moons/mine")
    checkpoint.save(place[1], {"ema": kept}, {k: v for k, v in place[0].items() if k != "sha256"})
    assert command("ema", "runs/moons", "--length", "0.05", "-n", "20", "--out", str(place[1]))[0] == 0
    damaged = snapshots(Path("runs/moons/ema"))[0].path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"~")
    code, said = command("ema", "runs/moons", "--length", "0.05,0.08")
    assert code == 2 and f"the snapshot {damaged} does not match its hash" in said
    assert command("train", "moons", "optim.averages=pwoer", *settings) == (
        2,
        "pellucid: unknown average 'pwoer'; did you mean 'power'?\n",
    )
