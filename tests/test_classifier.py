"""A classifier of noisy samples: it learns what noise leaves of a class, by the loop of all models, and leads to it."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid import checkpoint, cli, files, paths
from pellucid.config import Recipe
from pellucid.data import Dataset, Split, load
from pellucid.denoiser import carry
from pellucid.errors import PellucidError
from pellucid.guidance import Classifier
from pellucid.noise import normal
from pellucid.oracle import GaussianMixture
from pellucid.sampling import sample
from pellucid.systems import classifier
from pellucid.training import Plan

PART = [GaussianMixture.random(2, 2, seed, spread=2.0) for seed in (3, 5)]  # a class each, as likely as each other
WHOLE = GaussianMixture(
    torch.cat([part.weights for part in PART]),
    torch.cat([part.means for part in PART]),
    torch.cat([part.covariances for part in PART]),
)
PATH = paths.Cosine()
TINY = ["net.width=8", "net.blocks=1", "net.head=8", "train.batch=16", "optim.warmup=2"]


def truth(x: Tensor, t: Tensor) -> Tensor:
    """log p(y | x_t), exactly."""
    return torch.stack([part.log_prob(x, PATH, t) for part in PART], 1).log_softmax(1)


def drawn(n: int, seed: int) -> tuple[Tensor, Tensor]:
    label = torch.arange(2 * n) // n
    return torch.cat([part.sample(n, seed) for part in PART]), label


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as exit:
        cli.main([*words])
    return int(exit.value.code or 0)


@pytest.fixture(scope="module")
def reads() -> Any:
    """What a few hundred steps make of the mixture."""
    x, label = drawn(4000, 1)
    net = {"name": "mlp", "width": 64, "blocks": 2, "scale": 50.0, "lift": 1.0}
    config = {"shape": [2], "net": net, "path": {"name": "cosine"}, "data_std": 2.0, "clock": "lam"}
    plan = Plan(steps=400, batch=256, lr=4e-3, ema=0.98)
    learner = classifier.learner(config, Dataset("points", Split(x.float(), label), None, ("a", "b")), plan)
    for _ in learner.fit():
        pass
    with learner.ema.applied(learner.model):
        return copy.deepcopy(learner.model).eval().requires_grad_(False)


@pytest.mark.parametrize("t", [0.1, 0.4, 0.7, 1.0])
def test_it_knows_what_noise_leaves_of_the_classes(reads: Any, t: float) -> None:
    """What it loses to the exact posterior is a divergence: little, and never less than nothing by more than chance."""
    x0, label = drawn(2000, 2)
    times = torch.full((len(x0),), t, dtype=torch.float64)
    x = PATH.mix(x0, normal(4, torch.arange(len(x0)), 0, (2,), dtype=torch.float64), times)
    exact, said = truth(x, times), reads(x.float(), times).double()
    lost = (exact.exp() * (exact - said)).sum(1)
    assert lost.min() > -1e-5 and float(lost.mean()) < 0.02
    named, most = ((log_p.argmax(1) == label).double().mean() for log_p in (said, exact))
    assert named > most - 0.02


def test_what_noise_hides_it_hides_on_every_path(reads: Any) -> None:
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    x, cond = normal(0, torch.arange(6), 0, (2,)), {"label": torch.arange(6) % 2}
    for path in (paths.Flow(), paths.VE(sigma_max=100.0), paths.EDM()):
        moved, times = carry(x, t, PATH, path)
        torch.testing.assert_close(reads.on(path)(moved, times, cond), reads.on(PATH)(x, t, cond), rtol=1e-4, atol=1e-4)


def test_a_model_without_classes_is_led_to_them(reads: Any) -> None:
    """The exact model of the whole, on its own path and on another. Classes overlap; led with scale 2, samples are
    surer of theirs than real ones are."""
    label, zero = torch.arange(400) % 2, torch.zeros(400, dtype=torch.float64)

    def sure(x: Tensor) -> float:
        return float((truth(x, zero).argmax(1) == label).double().mean())

    own = torch.stack([part.sample(400, 7) for part in PART])[label, torch.arange(400)]
    for path in (PATH, paths.Flow()):
        rule = Classifier(lambda x, t, c, path=path: reads.on(path)(x.float(), t, c).to(x.dtype), 2.0)
        free, led = (
            sample(WHOLE.at(path), 400, steps=20, cond=heard, guidance=guide, batch=400)
            for heard, guide in ((None, None), ({"label": label}, rule))
        )
        assert sure(free) < 0.6 < sure(own) < sure(led)


def test_data_without_classes_are_refused() -> None:
    with pytest.raises(PellucidError, match="no classes to read"):
        classifier.learner({}, load("moons"), Plan(steps=1))


def test_the_command_trains_it_goes_on_and_leads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = ["--runs", str(tmp_path)], tmp_path / "led.png"
    assert run("classify", "digits", *TINY, "--steps", "2", *runs) == 0
    capsys.readouterr()
    assert run("classify", "digits", *TINY, "--steps", "3", "--json", *runs) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == 3 and all(0 <= f["low"] <= f["high"] <= 1 for f in said["read"].values())
    assert run("train", "digits", *TINY, "--steps", "2", *runs) == 0
    reader, model = str(tmp_path / "digits-classifier"), str(tmp_path / "digits")
    led = ["sample", model, "-n", "4", "--steps", "3", "--classifier", reader, "--guidance", "300"]
    assert run(*led, "-o", str(out)) == 0
    assert run("sample", "--like", str(out), "-o", str(tmp_path / "again.png")) == 0
    assert out.read_bytes() == (tmp_path / "again.png").read_bytes()
    assert run(*led[:-1], "0", "-o", str(tmp_path / "free.png")) == 0
    assert (tmp_path / "free.png").read_bytes() != out.read_bytes()


def test_what_leads_and_what_draws_are_not_mistaken_for_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("classify", "digits", *TINY, "--steps", "1", "--runs", str(tmp_path)) == 0
    assert run("train", "digits", *TINY, "--steps", "1", "--runs", str(tmp_path)) == 0
    reader, model = str(tmp_path / "digits-classifier"), str(tmp_path / "digits")
    capsys.readouterr()
    out = ["-n", "2", "--steps", "1", "-o", str(tmp_path / "x.png")]
    for words, sentence in (
        (["sample", reader], "draws nothing"),
        (["sample", model, "--classifier", model], "no classifier"),
        (["sample", model, "--classifier", str(tmp_path / "none")], "there is no run"),
        (["sample", model, "--classifier", reader, "--rescale", "0.5"], "leave out rule, rescale and interval"),
        (["classify", "moons", "--steps", "1", "--runs", str(tmp_path)], "no classes"),
    ):
        assert run(*words, *(out if words[0] == "sample" else [])) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists() and not (tmp_path / "moons-classifier").exists()
    assert checkpoint.classifier(checkpoint.latest(Path(reader))).classes == 10


def test_a_model_that_hears_no_classes_draws_those_of_its_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = ["--runs", str(tmp_path)], tmp_path / "led.png"
    assert run("classify", "digits", *TINY, "--steps", "2", *runs) == 0
    assert run("train", "digits", "conditioner=none", *TINY, "--steps", "2", *runs) == 0
    reader, model = str(tmp_path / "digits-classifier"), str(tmp_path / "digits")
    led = ["sample", model, "--steps", "2", "--classifier", reader, "--guidance", "300", "-o", str(out)]
    assert run(*led) == 0
    capsys.readouterr()
    assert run(*led, "--label", "3,7", "-n", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["labels"] == [3, 7]
    assert run("sample", "--like", str(out), "-o", str(tmp_path / "again.png")) == 0
    assert run(*led[:4], "-n", "2", "-o", str(tmp_path / "free.png")) == 0
    assert out.read_bytes() == (tmp_path / "again.png").read_bytes() != (tmp_path / "free.png").read_bytes()
    for words, sentence in (
        ([*led, "--label", "none"], "no label is given"),
        (["sample", "--like", str(tmp_path / "free.png"), "--classifier", reader], "no label is given"),
        ([*led, "--label", "11"], "expected 0 to 9"),
        (["sample", model, "--label", "3"], "this model has no classes"),
    ):
        assert run(*words) == 2 and sentence in capsys.readouterr().err


def test_a_classifier_that_knows_fewer_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits, runs = load("digits").train, ["--runs", str(tmp_path)]
    few = digits.take((digits.label < 5).nonzero().flatten())  # type: ignore[operator]
    np.savez(tmp_path / "few.npz", arr_0=few.x.permute(0, 2, 3, 1).numpy(), arr_1=few.label)
    of_few = [f"data.source={tmp_path / 'few.npz'}", "--name", "few-classifier"]
    assert run("classify", "digits", *TINY, *of_few, "--steps", "1", *runs) == 0
    assert run("train", "digits", *TINY, "--steps", "1", *runs) == 0
    capsys.readouterr()
    led = ["sample", str(tmp_path / "digits"), "--classifier", str(tmp_path / "few-classifier"), "--steps", "1"]
    assert run(*led, "-n", "2", "-o", str(tmp_path / "x.png"), "--label", "4,7") == 2
    assert "label 7 is no class of the classifier" in capsys.readouterr().err
    assert run(*led, "-n", "2", "-o", str(tmp_path / "x.png"), "--label", "4") == 0


def test_who_comes_while_another_is_at_work_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a classifier's folder nor that of a reflow."""
    runs, small = ["--runs", str(tmp_path)], ["net.width=8", "net.blocks=1", "train.batch=16"]
    assert run("classify", "digits", *TINY, "--steps", "2", *runs) == 0
    assert run("train", "moons", *small, "--name", "flow", "--system", "flow", "--steps", "2", *runs) == 0
    straighten = ["reflow", str(tmp_path / "flow"), "--pairs", "20", *runs]
    assert run(*straighten, "--steps", "2") == 0
    for name, command in {"digits-classifier": ["classify", "digits", *TINY, *runs], "flow-reflow": straighten}.items():
        before = {file: file.read_bytes() for file in sorted((tmp_path / name).rglob("*")) if file.is_file()}
        capsys.readouterr()
        with files.alone(tmp_path / name):
            assert run(*command, "--steps", "3") == 2
        assert "another process is at work" in capsys.readouterr().err
        assert {file: file.read_bytes() for file in sorted((tmp_path / name).rglob("*")) if file.is_file()} == before


def test_pairs_are_those_that_were_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run beside another makes its own; one that goes on has what it began with, or says so."""
    runs, small = ["--runs", str(tmp_path)], ["net.width=8", "net.blocks=1", "train.batch=16"]
    assert run("train", "moons", *small, "--name", "flow", "--system", "flow", "--steps", "2", *runs) == 0
    straighten = ["reflow", str(tmp_path / "flow"), "--steps", "2", *runs]
    assert run(*straighten, "--pairs", "20") == 0 and run(*straighten) == 0
    assert run(*straighten, "--fresh", "--pairs", "21", "--seed", "5") == 0
    found = [len(load(tmp_path / name / "pairs.npz").train.x) for name in ("flow-reflow", "flow-reflow-2")]
    assert found == [18, 19]  # two of each are held out
    capsys.readouterr()
    for wrong, said in {("--pairs", "30"): "pairs = 20, not 30", ("--seed", "7"): "seed = 1, not 7"}.items():
        assert run(*straighten, *wrong) == 2 and said in capsys.readouterr().err
    assert run("train", str(tmp_path / "flow"), "--steps", "3") == 0 and run(*straighten) == 2
    assert "step of the run = 2, not 3" in capsys.readouterr().err


def test_a_classifier_learns_where_it_is_told_to() -> None:
    """Its average as well: "meta" stands for another device, on which tensors have no values."""
    data = load("digits")
    config = Recipe.load("digits", ["net.width=8"]).build(data).config()
    learner = classifier.learner(config, data, Plan(steps=2), device=torch.device("meta"))
    assert {value.device.type for group in learner.tensors().values() for value in group.values()} == {"meta"}
