"""Watching: a loss has a zero, errors are as large as they are said to be, and every row reaches who asked for it."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import pellucid as pl
from pellucid import cli
from pellucid.config import Recipe
from pellucid.data import Dataset, Split
from pellucid.objective import Objective
from pellucid.training import Learner, Plan, Run, trackers, watch
from pellucid.types import Context

TRAIN = torch.tensor([[0.0, 1.0], [1.5, -0.5], [-1.0, -1.0], [0.2, 0.4], [-0.7, 0.9]])
LABEL = torch.tensor([0, 1, 0, 1, 0])
FEW = Dataset("few", Split(TRAIN, LABEL), Split(TRAIN[:2] + 0.3, LABEL[:2]), ("a", "b"))


NET = {"name": "mlp", "width": 16, "blocks": 1}


def model(
    path: str = "cosine", prediction: str = "v", labelled: bool = True, seed: int = 0, net: dict[str, Any] = NET
) -> pl.Denoiser:
    conditioner: dict[str, Any] = {"name": "label", "classes": 2, "width": 8} if labelled else {"name": "none"}
    config = {"shape": [2], "net": net, "conditioner": conditioner}
    config |= {"path": path, "prediction": prediction, "data_std": 1.0, "clock": "time"}
    return pl.Denoiser.from_config(config, seed)


def objective(**settings: Any) -> Objective:
    return Objective(pl.objective.times.make("stratified"), **settings)


# the zero of a loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("path", "prediction"), [("cosine", "v"), ("vp", "eps"), ("flow", "velocity"), ("edm", "edm")])
@pytest.mark.parametrize("weight", ["unit", "min-snr"])
def test_no_denoiser_is_below_the_exact_one(path: str, prediction: str, weight: str, labelled: bool) -> None:
    own, aim = model(path, prediction, labelled), objective(weight=pl.objective.weights.make(weight))
    least = watch.exact(own, FEW, aim)
    assert least is not None
    above = watch.excess(own, FEW, aim)
    assert above is not None and above.value > 3 * above.error > 0
    best = watch.losses(least, FEW, aim, 0, 4096, "train")

    class Pushed:
        """The exact denoiser, moved a little: the loss is least where the gradient is none."""

        path, prediction = own.path, own.prediction

        def __init__(self, by: float) -> None:
            self.by = by

        def answer(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> tuple[torch.Tensor, None]:
            return least.answer(x, t, cond)[0] + self.by, None

    for by in (0.1, -0.1):
        moved = watch.mean(watch.losses(Pushed(by), FEW, aim, 0, 4096, "train") - best)  # type: ignore[arg-type]
        assert moved.value > -3 * moved.error
    slope = [watch.losses(Pushed(by), FEW, aim, 0, 4096, "train") - best for by in (0.1, -0.1)]  # type: ignore[arg-type]
    flat = watch.mean((slope[0] - slope[1]) / 0.2)
    assert abs(flat.value) < 4 * flat.error


def test_what_is_known_by_heart_has_no_excess() -> None:
    own, aim = model(labelled=False), objective()
    least = watch.exact(own, FEW, aim)
    assert least is not None

    class Learnt(torch.nn.Module):
        """A network that answers as the exact denoiser does, but for `off`."""

        def __init__(self, off: float) -> None:
            super().__init__()
            self.off, self.shape = torch.nn.Parameter(torch.tensor(off)), own.shape

        def forward(self, scaled: torch.Tensor, clock: torch.Tensor, ctx: Context) -> torch.Tensor:
            t = clock.double() / 1000
            spread = torch.hypot(own.path.alpha(t), own.path.sigma(t))[:, None]
            return least.answer(scaled.double() * spread, t)[0].float() + self.off

    gap, far = (watch.excess(pl.Denoiser(Learnt(off), own.path, own.prediction), FEW, aim) for off in (0.0, 0.3))
    assert gap is not None and abs(gap.value) < 3 * gap.error < 1e-5  # what float32 rounds away
    assert far is not None and abs(far.value - 0.3**2) < 3 * far.error and far.value > 5 * far.error
    alone = Dataset("one", Split(TRAIN[:1]))  # a single sample is known from any noise
    only = watch.exact(model(labelled=False), alone, aim)
    assert only is not None and watch.losses(only, alone, aim, 0, 64, "train").max() < 1e-9


def test_where_a_variance_lowers_the_loss_no_least_one_is_claimed() -> None:
    """A spread is worth something even to exact means: the bound with the fixed variance is not the least."""
    aim, chain = objective(), objective(weight=pl.objective.Chain(10))
    telling = model(net=NET | {"out": 4})
    assert watch.exact(telling, FEW, chain) is None and watch.excess(telling, FEW, chain) is None
    for own, kind in ((telling, aim), (model(), chain), (model(), aim)):
        assert watch.exact(own, FEW, kind) is not None


def test_the_excess_of_the_held_out_half_is_what_it_costs_to_know_by_heart() -> None:
    """The exact denoiser of the training data is the worse on data it has not seen."""
    own, aim = model(labelled=False), objective()
    least = watch.exact(own, FEW, aim)
    assert least is not None
    seen, unseen = (watch.mean(watch.losses(least, FEW, aim, 0, 2048, split)) for split in ("train", "test"))
    assert unseen.value - seen.value > 3 * (seen.error + unseen.error)


def test_an_error_is_the_spread_of_what_it_is_the_error_of() -> None:
    own, aim = model(), objective(drop=0.0)
    found = [watch.held_out(own, FEW, aim, seed, 256) for seed in range(40)]
    values = torch.tensor([f.value for f in found if f])
    said = torch.tensor([f.error for f in found if f]).mean()
    assert 0.3 < values.std() / said < 1.3  # even times make it the smaller


def test_an_excess_that_cannot_be_known_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    own = model()
    noisy = Dataset("reflow", Split(TRAIN, LABEL, noise=TRAIN), None, ("a", "b"))
    assert watch.excess(own, noisy, objective()) is None
    assert watch.excess(own, FEW, objective(coupling=pl.coupling.registry.make("ot"))) is None
    assert watch.held_out(own, noisy, objective()) is None
    monkeypatch.setattr(watch, "MOST", 9)
    assert watch.excess(own, FEW, objective()) is None
    assert set(watch.look(FEW, objective(), 0)(own)) == {"held_out", "held_out_error"}


# the record -------------------------------------------------------------------------------------------------------


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_losses_by_level_add_up_and_outlive_a_kill(tmp_path: Path) -> None:
    plan = Plan(steps=16, batch=20, warmup=2)

    def walk(folder: Path, stop: int) -> list[float]:
        learner = Learner(model(), FEW, plan, objective())
        told = watch.Watch(look=watch.look(FEW, objective(), 0, 32), every=8)
        run = Run(folder, save_every=5, log_every=8, watch=told)
        losses = []
        for progress in (walking := run.fit(learner)):
            losses.append(progress.loss)
            if progress.step == stop:
                break
        walking.close()
        return losses

    losses = walk(tmp_path / "straight", 16)
    walk(tmp_path / "cut", 13), walk(tmp_path / "cut", 16)
    straight, cut = rows(tmp_path / "straight"), rows(tmp_path / "cut")
    for one, other in zip(straight, cut, strict=True):
        assert {k: one[k] for k in ("step", "by_level", "loss", "excess", "held_out") if k in one} == {
            k: other[k] for k in ("step", "by_level", "loss", "excess", "held_out") if k in other
        }
    told = [row for row in straight if "by_level" in row]
    assert [row["step"] for row in told] == [8, 16]
    index = torch.arange(8 * 20)
    share = (objective().times.numbers(0, index) * watch.LEVELS).long().bincount(minlength=watch.LEVELS) / len(index)
    mean = sum(float(part) * loss for part, (_, loss) in zip(share, told[0]["by_level"], strict=True))
    assert mean == pytest.approx(told[0]["loss"], rel=1e-5) and mean == pytest.approx(sum(losses[:8]) / 8, rel=1e-5)
    lams = [lam for lam, _ in told[0]["by_level"]]
    assert lams == sorted(lams, reverse=True)
    assert [row["step"] for row in straight if "excess" in row] == [8, 16]


# the pace ---------------------------------------------------------------------------------------------------------


def test_operations_are_counted_and_the_peak_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    done = watch.work(own := model(), FEW, objective(), "float32")
    with FlopCounterMode(display=False) as counter:
        own.net(torch.zeros(1, 2), torch.zeros(1), Context(vec=torch.zeros(1, 8)))
    assert 2 * counter.get_total_flops() <= done.sample <= 3 * counter.get_total_flops()
    said = done.row(100.0)
    assert said["flops"] == 100 * done.sample and said["of_peak"] == said["flops"] / done.peak
    assert 1e8 < done.peak < 1e16
    monkeypatch.setattr(watch, "peak", lambda *_: 1e9)
    assert watch.work(own, FEW, objective(), "float32", 4) == (done.sample, 4e9)  # of four devices together


# trackers ---------------------------------------------------------------------------------------------------------


class Heard:
    """A stranger's library that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **options: Any) -> "Heard":
            self.calls.append((name, (given, options)))
            return self

        return call


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Heard]:
    found: dict[str, Heard] = {}
    for name in ("wandb", "trackio"):
        found[name] = Heard()
        monkeypatch.setitem(sys.modules, name, found[name])  # type: ignore[arg-type]
    found["tensorboard"] = Heard()
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    board = SimpleNamespace(SummaryWriter=found["tensorboard"].SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)  # type: ignore[arg-type]
    return found


def test_every_tracker_hears_the_run(
    strangers: dict[str, Heard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["net.width=8", "net.groups=4", "net.head=8", "train.steps=4", "train.batch=8", "train.sample_every=2"]
    told = [word for name in trackers.registry.names() for word in ("--track", name)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "digits", *small, "sample.steps=2", *told])
    assert not stopped.value.code
    record = rows(tmp_path / "runs" / "digits")
    for name, heard in strangers.items():
        calls = [call for call, _ in heard.calls]
        assert calls[-1] == ("close" if name == "tensorboard" else "finish")
        if name == "tensorboard":
            scalars = [given for call, (given, _) in heard.calls if call == "add_scalar"]
            assert ("loss", pytest.approx(record[-2]["loss"]), 4) in scalars
            assert any(key.startswith("by_level/") for key, _, _ in scalars)
            assert calls.count("add_image") == 3  # before the first step too
        else:
            logs = [{**given[0], **options} for call, (given, options) in heard.calls if call == "log"]
            assert any(log["step"] == 4 and log.get("excess") == record[-1]["excess"] for log in logs)
            assert any(log["step"] == 2 and "samples" in log for log in logs)
            assert heard.calls[0][1][1]["config"]["name"] == "digits"


class Broken(Heard):
    """A stranger's library that fails in the midst of the run, or at its door."""

    def init(self, *given: Any, **options: Any) -> "Broken":
        if options["name"] == "closed":
            raise ConnectionError("no key.")
        return self

    def log(self, *given: Any, **options: Any) -> None:
        self.calls.append(("log", (given, options)))
        raise ConnectionError("the network is gone\nand more")


def test_a_run_outlives_a_tracker_that_fails(
    strangers: dict[str, Heard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", broken := Broken())  # type: ignore[arg-type]
    told = ["--track", "wandb", "--track", "trackio"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "moons", "net.width=8", "net.blocks=1", "train.steps=4", "train.batch=8", *told])
    said = capsys.readouterr().err
    assert not stopped.value.code and len(rows(tmp_path / "runs" / "moons")) == 2
    assert said.count("pellucid: wandb fails (ConnectionError: the network is gone); the run goes on without it.") == 1
    assert [call for call, _ in broken.calls].count("log") == 1
    assert [call for call, _ in strangers["trackio"].calls][-1] == "finish"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "moons", "--name", "closed", "train.steps=4", *told])
    assert (
        stopped.value.code == 2
        and "wandb cannot keep this run (ConnectionError: no key); mend" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", trackers.registry.names())
def test_a_missing_package_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    said = rf"{name} cannot be imported \(.+\); run pip install 'pellucid\[tracking\]'"
    with pytest.raises(pl.PellucidError, match=said):
        trackers.registry.make(name).open(tmp_path, {})


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(pl.PellucidError, match="did you mean 'wandb'"):
        Recipe.load("digits", ["train.track=wndb"])
