"""Guards: what a bad step may not do to a run.

    bad:  a loss or a gradient g that is not finite, or |g| > 1e6 median(|g| of the last 64 sound steps)

A bad step changes no weight: it is skipped and counted, and its samples are spent. After 20 in a row the run goes back
to its last good checkpoint and on at half the rate; the third time it stops, and names the samples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, NamedTuple

STREAK = 20
ROLLBACKS = 3
SLOWER = 0.5
SPIKE = 1e6
WINDOW = 64  # sound steps that a spike is measured by
ENOUGH = 8  # of them, to measure at all
NAMED = 12  # samples in a report


class Bad(NamedTuple):
    """A step that was skipped, why, and the counters of the samples that are suspected."""

    step: int
    fault: str
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Guard:
    """What has gone wrong so far. It is part of the state of a run, and kept in its checkpoints."""

    skipped: int = 0
    streak: int = 0
    rollbacks: int = 0
    norms: tuple[float, ...] = ()  # of the last sound gradients
    bad: tuple[Bad, ...] = ()  # the last ones

    @property
    def rate(self) -> float:
        """The factor of the learning rate: halved by each roll-back."""
        return SLOWER**self.rollbacks

    @property
    def lost(self) -> bool:
        """Whether so many bad steps came in a row that going on makes no sense."""
        return self.streak >= STREAK

    def fault(self, loss: float, norm: float) -> str | None:
        """What is wrong with a step of this loss and this norm of the gradient; None if it is sound."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        usual = median(self.norms) if len(self.norms) >= ENOUGH else 0.0
        if usual and norm > SPIKE * usual:
            return f"the gradient's norm is {norm:.2g}, and was {usual:.2g}"
        return None

    def sound(self, norm: float) -> "Guard":
        """After a sound step."""
        return replace(self, streak=0, norms=(*self.norms, norm)[-WINDOW:])

    def skip(self, bad: Bad) -> "Guard":
        """After a bad step."""
        most = STREAK * ROLLBACKS
        return replace(self, skipped=self.skipped + 1, streak=self.streak + 1, bad=(*self.bad, bad)[-most:])

    def rolled_back(self, to: "Guard") -> "Guard":
        """At the checkpoint that had the guard `to`, with what happened since."""
        return replace(to, skipped=self.skipped, streak=0, rollbacks=self.rollbacks + 1, bad=self.bad)

    def describe(self) -> dict[str, Any]:
        """As plain data, for a manifest."""
        return asdict(self)

    @staticmethod
    def read(data: dict[str, Any]) -> "Guard":
        """From what `describe` gave."""
        bad = tuple(Bad(int(step), str(fault), tuple(map(int, samples))) for step, fault, samples in data["bad"])
        skipped, streak, rollbacks = (int(data[name]) for name in ("skipped", "streak", "rollbacks"))
        return Guard(skipped, streak, rollbacks, tuple(map(float, data["norms"])), bad)


def report(guard: Guard, suspects: Callable[[Sequence[int]], list[tuple[int, float]]]) -> str:
    """Why a run stops, with the samples that are suspected: `suspects` tells their rows and noise levels."""
    found = suspects(sorted({sample for bad in guard.bad for sample in bad.samples}))
    named = ", ".join(f"{row} at {level:.3g}" for row, level in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return (
        f"training ran away at step {guard.bad[-1].step} ({guard.bad[-1].fault}), with {guard.skipped} bad steps and "
        f"{guard.rollbacks} roll-backs; suspected are rows of the data, each at its noise level sigma/alpha: "
        f"{named or 'none in particular'}{more}; mend them or lower optim.lr, and begin afresh."
    )
