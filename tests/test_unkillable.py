"""Whatever ends a training, it goes on as if nothing had been; and what goes wrong in a step changes nothing."""

import json
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from killer import awake, gradient, model, points
from pellucid import PellucidError, checkpoint, conditioning, nets
from pellucid.data import Dataset, Split
from pellucid.denoiser import Denoiser, seeded
from pellucid.objective import Lesson
from pellucid.training import Learner, Plan, Progress, Run, Stopped, guards
from pellucid.training.guards import Guard
from pellucid.training.watch import Watch

PLAN = Plan(steps=12, batch=12, lr=1e-2, warmup=3, ema=0.9)


def state(learner: Learner) -> dict[str, Any]:
    """All that a run is, but for the folder that it lives in."""
    tensors = {
        f"{group}/{name}": tensor.clone()
        for group, named in learner.tensors().items()
        for name, tensor in named.items()
    }
    return {**tensors, **learner.meta(), "guard": learner.guard}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    equal = (torch.equal(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a)
    return a.keys() == b.keys() and all(equal)


def live(learner: Learner, run: Run, heard: list[Progress], stop: int = 0) -> None:
    """Train, and send the process a signal after the step `stop`."""
    for progress in run.fit(learner):
        heard.append(progress)
        if progress.step == stop:
            signal.raise_signal(signal.SIGUSR1)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The record, without the times of day."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row.keys() - {"time", "seconds", "rate", "left"}} for row in lines]


# ---- Exact resume


def pictures() -> Dataset:
    x = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Dataset("pictures", Split(x, torch.arange(50) % 2, None), None, ("left", "right"), ())


def painter() -> Denoiser:
    """A network whose convolutions lie channels last, and are wide enough for the kernels."""
    with seeded(0):
        label = conditioning.registry.make({"name": "label", "classes": 2, "width": 8})
        net = nets.UNet((1, 8, 8), 8, width=32, multipliers=(1,), blocks=1, groups=4, head=8, dropout=0.2)
        return Denoiser(net, conditioner=label)


KINDS = {"points": (model, points), "pictures": (painter, pictures)}
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def exact(kind: str, folder: Path, steps: int, stops: range, workers: int, accumulate: int) -> None:
    model, data = KINDS[kind]
    plan = Plan(steps=steps, batch=12, lr=1e-2, warmup=3, ema=0.9, workers=workers, accumulate=accumulate)
    whole, straight = Learner(model(), data(), plan), list[Progress]()
    live(whole, Run(folder / "whole", save_every=7, log_every=5), straight)
    for stop in stops:
        run, heard, seen = Run(folder / str(stop), save_every=7, log_every=5), list[Progress](), list[Lesson]()
        with pytest.raises(Stopped) as stopped:
            live(Learner(model(), data(), plan), run, heard, stop)
        assert stopped.value.code == 75 and checkpoint.latest(run.folder).meta["step"] == stop
        again = Learner(model(), data(), plan)
        with watched(again, seen.append):
            live(again, run, heard)
        assert same(state(whole), state(again)), stop
        assert [(p.step, p.loss, p.grad) for p in heard] == [(p.step, p.loss, p.grad) for p in straight]
        assert rows(run.folder) == rows(folder / "whole")
        assert torch.equal(
            torch.stack([lesson.x0 for lesson in seen]), torch.stack([whole.lesson(n).x0 for n in range(stop, steps)])
        )


@contextmanager
def watched(learner: Learner, look: Callable[[Lesson], None]) -> Iterator[None]:
    """Look at each lesson as it is learnt."""
    gradient = learner.gradient

    def looked(lesson: Lesson) -> Tensor:
        look(lesson)
        return gradient(lesson)

    learner.gradient = looked  # type: ignore[method-assign]
    yield


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
@every_kind
def test_interrupted_it_is_the_same_run(tmp_path: Path, kind: str, workers: int, accumulate: int) -> None:
    """Losses, weights, average, optimiser, order and record are bit-equal to those of a run that was never stopped."""
    exact(kind, tmp_path, 12, range(2, 11, 4), workers, accumulate)


@pytest.mark.soak
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
@every_kind
def test_interrupted_after_every_step_too(tmp_path: Path, kind: str, workers: int, accumulate: int) -> None:
    exact(kind, tmp_path, 60, range(1, 60), workers, accumulate)


# ---- Killed


def killer(folder: Path, *wanted: str) -> dict[str, Any]:
    script = Path(__file__).with_name("killer.py")
    done = subprocess.run([sys.executable, script, folder, *wanted], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def unkillable(folder: Path, kills: int, signals: int) -> None:
    figures = killer(folder, f"kills={kills}", f"signals={signals}")
    killed, told = figures["kills"], figures["signals"]
    assert killed["kills"] >= kills and killed["inside"] >= kills // 2 - 1  # a run that is begun is ended
    assert not any(killed[fault] for fault in ("lost", "unreadable", "torn", "different", "litter")), killed
    assert told["signals"] >= signals and told["slowest"] < 5 and told["at once"]
    assert not any(told[fault] for fault in ("not 75", "steps lost", "different")), told


def test_killed_or_told_to_stop_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    """kill -9, every other one inside a save; signals, of which a second one ends it at once."""
    unkillable(tmp_path, 10, 3)


@pytest.mark.soak
def test_killed_200_times_and_told_to_stop_50_times_nothing_is_lost(tmp_path: Path) -> None:
    unkillable(tmp_path, 200, 50)


def test_handlers_are_set_for_the_loop_alone(tmp_path: Path) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = [signal.getsignal(number) for number in numbers]
    steps = Run(tmp_path).fit(Learner(model(), points(), PLAN))
    next(steps)
    assert [signal.getsignal(number) for number in numbers] != before
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    steps.close()
    assert [signal.getsignal(number) for number in numbers] == before
    signal.signal(signal.SIGHUP, ignored)
    thread = threading.Thread(target=lambda: list(Run(tmp_path).fit(Learner(model(), points(), PLAN))))
    thread.start()
    thread.join()
    assert checkpoint.latest(tmp_path).meta["step"] == PLAN.steps


def test_a_picture_is_dropped_for_a_signal_and_drawn_when_it_goes_on(tmp_path: Path) -> None:
    drawn = []

    def draw(model: object, path: Path) -> None:
        if path.stem == "step_0000008" and "dropped" not in drawn:
            drawn.append("dropped")
            signal.raise_signal(signal.SIGTERM)
        path.touch()
        drawn.append(path.stem)

    run = Run(tmp_path, save_every=5, draw_every=4, draw=draw)
    with pytest.raises(Stopped):
        list(run.fit(Learner(model(), points(), PLAN)))
    assert checkpoint.latest(tmp_path).meta["step"] == 8
    list(run.fit(Learner(model(), points(), PLAN)))
    assert drawn == ["step_0000000", "step_0000004", "dropped", "step_0000008", "step_0000012"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_what_a_loss_is_worth_is_dropped_for_a_signal_and_told_once_when_it_goes_on(tmp_path: Path, where: str) -> None:
    """The record is that of a run that was never told to stop, wherever in the looking the signal comes."""
    stops = {3, 9, 12} if where == "before" else {3, 6, 9, 12}
    straight, learner = Run(tmp_path / "whole", save_every=6, log_every=3), Learner(model(), points(), PLAN)
    plain = Watch(look=lambda model: {"held_out": float(next(model.parameters()).sum())}, every=3)
    list(replace(straight, watch=plain).fit(learner))

    def look(model: Any) -> dict[str, float]:
        if where == "before" and again.step in stops:
            stops.remove(again.step)
            signal.raise_signal(signal.SIGTERM)
        return plain.look(model) if plain.look else {}

    for _ in range(5):
        again = Learner(model(), points(), PLAN)
        with suppress(Stopped):
            for progress in replace(straight, folder=tmp_path / "cut", watch=replace(plain, look=look)).fit(again):
                if where == "after" and progress.step in stops:
                    stops.remove(progress.step)
                    signal.raise_signal(signal.SIGTERM)
    assert not stops and rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert [row["step"] for row in rows(tmp_path / "cut") if "held_out" in row] == [3, 6, 9, 12]


def test_a_run_has_one_process(tmp_path: Path) -> None:
    first = Run(tmp_path, beside={"recipe.toml": "first"}).fit(Learner(model(), points(), PLAN))
    next(first)
    with pytest.raises(PellucidError, match="another process is at work"):
        next(Run(tmp_path, beside={"recipe.toml": "second"}).fit(Learner(model(), points(), PLAN)))
    assert (tmp_path / "recipe.toml").read_text() == "first"  # the second has touched nothing
    first.close()
    next(Run(tmp_path).fit(Learner(model(), points(), PLAN)))


def test_a_run_never_begins_anew_in_silence(tmp_path: Path) -> None:
    run = Run(tmp_path, save_every=5, log_every=5)
    list(run.fit(Learner(model(), points(), PLAN)))
    for folder in checkpoint.folders(tmp_path):
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(PellucidError, match="is damaged"):
        next(run.fit(Learner(model(), points(), PLAN)))
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(PellucidError, match="has a record but no checkpoint"):
        next(run.fit(Learner(model(), points(), PLAN)))


# ---- Bad steps


class Spoilt(Learner):
    """At some steps a number of the data, of the noise or of a weight's gradient is not what it should be."""

    at: Container[int] = ()

    def gradient(self, lesson: Lesson) -> Tensor:
        if self.step not in self.at:
            return super().gradient(lesson)
        value = (float("nan"), float("inf"), -float("inf"), 1e30)[self.step % 4]
        weights, sample = list(self.model.parameters()), self.step % 12
        if kind := self.step // 4 % 3:
            (lesson.x0 if kind == 1 else lesson.eps)[sample, 0] = value
            return super().gradient(lesson)
        found = super().gradient(lesson)
        weights[self.step % len(weights)].grad.view(-1)[0] = value
        return found


def test_bad_numbers_reach_nothing(tmp_path: Path) -> None:
    """100 NaNs, infinities and spikes in data, noise and gradients: a bad step is no step at all."""
    plan = Plan(steps=180, batch=12, lr=1e-2, warmup=3, ema=0.9)
    spoilt, clean = Spoilt(awake(model()), points(), plan), Learner(awake(model()), points(), plan)
    spoilt.at = set((torch.randperm(160, generator=torch.Generator().manual_seed(0))[:100] + 20).tolist())
    for progress in Run(tmp_path, save_every=10, log_every=180).fit(spoilt):
        n = progress.step - 1
        if n not in spoilt.at:
            assert clean.advance() == (progress.loss, progress.grad, None)
            continue
        clean.step += 1
        assert progress.fault and not (math.isfinite(progress.loss) and progress.grad < 1e20)
        if n // 4 % 3 and n % 4 < 3:
            assert spoilt.guard.bad[-1].samples == (n * 12 + n % 12,)
        for group, named in clean.tensors().items():
            assert all(torch.equal(value, spoilt.tensors()[group][name]) for name, value in named.items())
    for folder in checkpoint.folders(tmp_path):
        kept = checkpoint.open_(folder).tensors.values()
        assert all(value.isfinite().all() for named in kept for value in named.values())
    assert spoilt.guard.skipped == 100 and spoilt.guard.rollbacks == 0
    assert [row["step"] - 1 for row in rows(tmp_path)[:-1]] == sorted(spoilt.at)


class Fragile(Learner):
    """Its loss is not a number from step 20 on, until the rate has been lowered twice."""

    def gradient(self, lesson: Lesson) -> Tensor:
        found = super().gradient(lesson)
        return found * float("nan") if self.step >= 20 and self.guard.rollbacks < 2 else found


LONG = Plan(steps=60, batch=12, lr=1e-2, warmup=3, ema=0.9)


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Learner]:
    folder, learner = tmp_path_factory.mktemp("runs") / "fallen", Fragile(model(), points(), LONG)
    list(Run(folder, save_every=8, log_every=5).fit(learner))
    return folder, learner


def test_what_runs_away_goes_back_and_on_more_slowly(fallen: tuple[Path, Learner]) -> None:
    folder, learner = fallen
    assert learner.guard.rollbacks == 2 and learner.guard.skipped == 2 * guards.STREAK and learner.step == 60
    back = [row for row in rows(folder) if "rolled_back_from" in row]
    assert [(row["step"], row["rolled_back_from"]) for row in back] == [(16, 40), (16, 40)]
    assert learner.rate == LONG.rate(60) / 4
    slow = Learner(model(), points(), LONG)  # the same, by hand
    for n in range(60):
        slow.guard = Guard(rollbacks=2 * (n >= 16), norms=slow.guard.norms)
        slow.advance()
    assert all(torch.equal(a, b) for a, b in zip(slow.model.parameters(), learner.model.parameters(), strict=True))


@pytest.mark.parametrize("stops", [[5], [17], [20, 39], [38, 22, 45], [25, 26, 27]])
def test_a_roll_back_is_the_same_when_it_is_interrupted(
    fallen: tuple[Path, Learner], tmp_path: Path, stops: list[int]
) -> None:
    whole, learner = fallen
    run = Run(tmp_path, save_every=8, log_every=5)
    for stop in stops:
        with pytest.raises(Stopped):
            live(Fragile(model(), points(), LONG), run, [], stop)
    again = Fragile(model(), points(), LONG)
    list(run.fit(again))
    assert same(state(learner), state(again))
    assert rows(tmp_path) == rows(whole)


def test_what_was_made_on_a_way_that_led_nowhere_is_gone(tmp_path: Path) -> None:
    """Though the signal comes in the midst of the picture that takes its place."""
    told: list[int] = []

    def draw(_: object, path: Path) -> None:
        if again.guard.rollbacks == 2 and again.step == 24 and not told:
            told.append(again.step)
            signal.raise_signal(signal.SIGTERM)
        path.write_text(str(again.guard.rollbacks))

    run = Run(tmp_path, save_every=8, draw_every=8, measure_every=12, draw=draw, measure=draw)
    for _ in range(2):
        again = Fragile(model(), points(), LONG)
        with suppress(Stopped):
            list(run.fit(again))
    for kind, steps in {"samples/*.png": range(0, 61, 8), "evaluations/*.json": range(12, 61, 12)}.items():
        made = {int(path.stem[5:]): path.read_text() for path in tmp_path.glob(kind)}
        assert made == {step: "0" if step <= 16 else "2" for step in (*steps, 60)}
    assert told


def test_a_run_that_cannot_be_saved_stops_and_names_the_samples(tmp_path: Path) -> None:
    data = points()
    data.train.x[::2] = float("nan")  # in every batch
    learner = Learner(model(), data, LONG)
    with pytest.raises(PellucidError, match="3 roll-backs; suspected are rows") as caught:
        list(Run(tmp_path, save_every=8).fit(learner))
    named = str(caught.value).partition("sigma/alpha: ")[2].split(" and ")[0].split(", ")
    assert named and all(int(name.split(" at ")[0]) % 2 == 0 and float(name.split(" at ")[1]) > 0 for name in named)
    assert learner.guard.skipped == 60 and learner.step == 0
    faults = [row for row in rows(tmp_path) if "fault" in row and "rows" in row]
    assert len(faults) == 60 and all(row % 2 == 0 for fault in faults for row in fault["rows"])
    with pytest.raises(PellucidError, match="ran away"):
        list(Learner(model(), data, LONG).fit())  # without a folder there is nothing to go back to


def test_a_rate_that_is_far_too_high_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="ran away"):
        list(Run(tmp_path, save_every=8).fit(Learner(model(), points(), Plan(steps=60, batch=12, lr=1e25, warmup=1))))
    assert all(t.isfinite().all() for named in checkpoint.latest(tmp_path).tensors.values() for t in named.values())


def test_a_weight_that_is_not_finite_is_never_kept(tmp_path: Path) -> None:
    learner = Learner(model(), points(), PLAN)
    steps = Run(tmp_path, save_every=5).fit(learner)
    for progress in steps:
        if progress.step == 9 and not learner.guard.rollbacks:
            with torch.no_grad():
                next(learner.model.parameters())[0] = float("inf")
            signal.raise_signal(signal.SIGTERM)
            with suppress(Stopped):
                next(steps)
    found = checkpoint.latest(tmp_path)
    assert found.meta["step"] == 5
    assert all(t.isfinite().all() for named in found.tensors.values() for t in named.values())


def test_an_average_that_is_never_finite_when_it_is_kept_stops_the_run_with_a_sentence(tmp_path: Path) -> None:
    """No step is bad, and no sample to blame: the report says that too."""
    learner = Learner(model(), points(), PLAN)
    with pytest.raises(PellucidError, match="3 roll-backs; suspected .*: none in particular; mend them or lower"):
        for progress in Run(tmp_path, save_every=5).fit(learner):
            if progress.step == 4:
                learner.ema.tensors[0][learner.ema.learnt[0]].view(-1)[0] = float("inf")
    assert learner.step == 0 and learner.guard.rollbacks == 3


# ---- Memory


def test_a_batch_that_does_not_fit_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward or backward, wherever memory runs out: the same gradient, from the same samples."""
    roomy, tight = (Learner(awake(model()), points(), PLAN) for _ in range(2))
    loss = tight.objective.loss
    sizes = list[int]()

    def hungry(model: Any, x0: Tensor, *part: Any) -> Tensor:
        sizes.append(len(x0))
        if len(x0) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        found = loss(model, x0, *part)
        if len(x0) > 3:
            found.register_hook(lambda grad: no_room())
        return found

    def no_room() -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    object.__setattr__(tight.objective, "loss", hungry)
    for n in range(5):
        whole, split = roomy.gradient(roomy.lesson(n)), tight.gradient(tight.lesson(n))
        torch.testing.assert_close(whole, split, rtol=1e-6, atol=1e-7)
        assert (gradient(roomy.model) - gradient(tight.model)).norm() <= 1e-6 * gradient(roomy.model).norm()
    assert tight.parts == 4 and sizes == [12, 6, 3, 3, 3, 3] + 4 * [3, 3, 3, 3]


def test_a_run_goes_on_in_the_parts_that_memory_asks_for_or_else_in_those_of_its_plan() -> None:
    for parts, asked, then in ((4, 2, 4), (3, 1, 1), (3, 6, 6)):
        first, second = (Learner(model(), points(), replace(PLAN, accumulate=n)) for n in (3, asked))
        first.parts = parts
        second.restore(checkpoint.Checkpoint(first.tensors(), first.meta()))
        assert second.parts == then


def test_memory_that_runs_out_for_one_sample_is_said() -> None:
    learner = Learner(model(), points(), PLAN)

    def loss(*lesson: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    object.__setattr__(learner.objective, "loss", loss)
    with pytest.raises(torch.OutOfMemoryError):
        learner.advance()
    assert learner.parts == 12 and learner.step == 0


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_a_process_short_of_memory_goes_on(tmp_path: Path) -> None:
    figures = killer(tmp_path, "memory=4000")["memory"]
    assert figures["parts"] > 1 and figures["apart"] <= 1e-6
