"""One rank of a world of processes that train together: `RANK=0 WORLD_SIZE=2 ... python tests/ranks.py FOLDER KIND`.

What must hold is asserted on every rank; rank 0 prints the figures.
"""

import errno
import json
import math
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from killer import points
from pellucid import PellucidError, checkpoint, conditioning, nets
from pellucid.data import Dataset, Split
from pellucid.denoiser import Denoiser, seeded
from pellucid.objective import Lesson, Objective
from pellucid.training import Learner, Plan, Run, Stopped
from pellucid.world import ALONE, World, entered, whole

PLAN = Plan(steps=8, batch=13, lr=1e-2, warmup=3, ema=0.9, accumulate=2)


def model(**net: Any) -> Denoiser:
    """Awake: no weight is zero."""
    shape = (2,) if net["name"] == "mlp" else (1, 8, 8)
    with seeded(0):
        label = conditioning.registry.make({"name": "label", "classes": 2, "width": 8})
        made = Denoiser(nets.registry.make(net, shape, 8), conditioner=label)
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(0.1 * torch.randn(weight.shape))
    return made


MLP = {"name": "mlp", "width": 30, "blocks": 2}
UNET = {"name": "unet", "width": 32, "multipliers": [1, 2], "blocks": 1, "head": 4, "groups": 4, "dropout": 0.3}
NETS: list[dict[str, Any]] = [
    {**UNET, "recompute": True},
    {"name": "mp-unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "head": 4, "dropout": 0.3},
    {"name": "dit", "width": 16, "depth": 2, "head": 8, "positions": "learned"},
]
METHODS = ["adamw", "adam", "muon"]


def pictures() -> Dataset:
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Dataset("noise", Split(x, (x[:, 0, 0, 0] > 0).long()), None, ("dark", "light"))


def state(learner: Learner) -> dict[str, Tensor]:
    """Whole, by name, in an order that all ranks know."""
    named = {f"{group}/{name}": value for group, part in learner.tensors().items() for name, value in part.items()}
    return {name: whole(named[name]).detach().clone() for name in sorted(named)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def steps(learner: Learner, n: int) -> list[tuple[float, float]]:
    return [learner.advance()[:2] for _ in range(n)]


def apart(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> float:
    """The largest relative difference of losses and of gradients."""
    pairs = [(x, y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True)]
    return max(abs(x - y) / abs(y) for x, y in pairs)


def flat(made: Denoiser) -> Tensor:
    """All weights."""
    return torch.cat([weight.detach().flatten() for weight in made.parameters()])


def as_one(world: World, plan: Plan) -> dict[str, list[float]]:
    """A world does what one process does: how far losses and gradients of two steps are apart, and how far the weights
    are in units of their way, for every network."""
    found: dict[str, list[float]] = {}
    for net, method in zip(NETS, METHODS, strict=True):
        own = replace(plan, method=method)
        many, one = (Learner(model(**net), pictures(), own, world=w) for w in (world, ALONE))
        far = apart(steps(many, 2), steps(one, 2))
        start, a, b = (flat(made) for made in (model(**net), many.averaged(), one.averaged()))
        found[method] = [far, ((a - b).norm() / (a - start).norm()).item()]
    return found


def resumed(world: World, plan: Plan, folder: Path) -> None:
    """Told to stop by a signal to one rank, all keep what they have and end; they go on as if nothing had been."""
    straight = Learner(model(**MLP), points(), plan, world=world)
    losses = [p.loss for p in straight.fit()]
    run, first, heard = Run(folder, save_every=3, log_every=2), Learner(model(**MLP), points(), plan, world=world), []
    try:
        for progress in run.fit(first):
            heard.append(progress.loss)
            if progress.step == 4 and world.rank == 1:
                signal.raise_signal(signal.SIGTERM)
    except Stopped as stopped:
        assert stopped.code == 75 and "SIGTERM" in stopped.sentence
    assert first.step == 4 and checkpoint.latest(folder).meta["step"] == 4
    again = Learner(model(**MLP), points(), plan, world=world)
    heard += [p.loss for p in run.fit(again)]
    assert heard == losses and same(state(again), state(straight))
    rows = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == [2, 4, 6, 8]  # written once


def resized(world: World, plan: Plan, folder: Path) -> float:
    """2 to 1 to 2: the same state, and the next loss but for rounding."""
    mine = folder / f"one-{world.rank}"
    two, one, back = (Learner(model(**MLP), points(), plan, world=w) for w in (world, ALONE, world))
    steps(two, 3)
    checkpoint.save(folder / "two", two.tensors(), two.meta(), world)
    kept = checkpoint.manifest(folder / "two")["files"]
    assert (f"model.rank{world.rank}.safetensors" in kept) == (plan.parallel == "fsdp")
    one.restore(checkpoint.open_(folder / "two"))
    assert same(state(one), state(two))
    checkpoint.save(mine, one.tensors(), one.meta())
    back.restore(checkpoint.open_(mine))
    assert same(state(back), state(two)) and back.meta() == two.meta()
    ways = [steps(learner, 1)[0][0] for learner in (two, one, back)]
    assert ways[0] == ways[2]
    return abs(ways[1] - ways[0]) / ways[0]


class Spoilt(Learner):
    """Some steps of one rank have a number that is none, until so many roll-backs."""

    def lesson(self, step: int) -> Lesson:
        lesson = super().lesson(step)
        if self.world.rank == self.world.size - 1 and (step == 2 or (step >= 5 and not self.guard.rollbacks)):
            lesson.x0[-1] = math.nan
        return lesson


def guarded(world: World, plan: Plan, folder: Path) -> None:
    """A bad number of one rank is skipped by all; twenty in a row send all of them back."""
    learner = Spoilt(model(**MLP), points(), replace(plan, steps=28), world=world)
    for progress in Run(folder, save_every=4, log_every=2).fit(learner):
        if progress.step == 3 and not learner.guard.rollbacks:
            assert progress.fault == "the loss is nan" and learner.guard.bad[-1].samples == (2 * 13 + 12,)
    assert learner.guard.rollbacks == 1 and learner.guard.skipped == 21 and learner.step == 28
    assert all(value.isfinite().all() for value in state(learner).values())
    guards = world.heard(learner.guard.describe())
    assert guards.count(guards[0]) == world.size


def refused(world: World, plan: Plan, folder: Path) -> None:
    """What fails for one rank fails for all, and what was there before is whole."""
    learner = Learner(model(**MLP), points(), plan, world=world)
    checkpoint.save(folder / "kept", learner.tensors(), learner.meta(), world)
    before = (folder / "kept" / "manifest.json").read_bytes()
    write = Path.write_bytes
    if world.rank == (world.size - 1 if plan.parallel == "fsdp" else 0):
        Path.write_bytes = lambda self, data: full(self)  # type: ignore[method-assign,assignment]
    steps(learner, 1)
    with suppress(OSError):
        checkpoint.save(folder / "kept", learner.tensors(), learner.meta(), world)
        raise AssertionError("a full disk was not noticed")
    Path.write_bytes = write  # type: ignore[method-assign]
    assert (folder / "kept" / "manifest.json").read_bytes() == before and checkpoint.verifies(folder / "kept")
    assert world.heard(None) and {p.name for p in folder.iterdir()} == {"kept"}
    with suppress(PellucidError):
        Learner(model(**MLP), points(), replace(plan, batch=1, accumulate=1), Objective(), world)
        raise AssertionError("a rank without samples was not noticed")


def crowded(world: World, plan: Plan) -> None:
    """A batch in more parts than some rank has samples: all do as many, so that none waits for another."""
    many, one = (Learner(model(**MLP), points(), replace(plan, accumulate=7), world=w) for w in (world, ALONE))
    assert apart(steps(many, 2), steps(one, 2)) < 1e-5


def full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def main(folder: Path, kind: Any) -> None:
    torch.set_num_threads(1)
    plan = replace(PLAN, parallel=kind)
    with entered() as world:
        figures: dict[str, Any] = {"as one": as_one(world, plan)}
        resumed(world, plan, folder / "resumed")
        figures["next loss"] = resized(world, plan, folder)
        guarded(world, plan, folder / "guarded")
        refused(world, plan, folder / "refused")
        crowded(world, plan)
    if world.leads:
        print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
