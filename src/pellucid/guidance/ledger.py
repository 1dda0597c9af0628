r"""The ledger of guidance: what each of its terms weighs at every step.

|c|, |u|      root mean square of the clean estimates with and without the condition
push          rms of  guided - c
angle         between c - u and c, in degrees: 90 changes the picture, 0 only makes more of it
energy        |guided|^2 / |c|^2
beyond        the share of the guided estimate more than a tenth outside the data's range, and of c
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..paths import Path
from ..types import Batch, Denoised, Times
from .rule import Rule, inner

MARGIN = 1.1  # of the limit: what is learnt of black and white lies on both sides of them
SATURATED = 0.05  # of the last estimate


class Entry(NamedTuple):
    """One call under guidance: means over the samples in which it acts."""

    t: float
    c: float
    u: float
    push: float
    angle: float
    energy: float
    beyond: float
    beyond_c: float


@dataclass(eq=False)
class Ledger:
    """What guidance did, call by call:  `ledger = Ledger(); sample(..., guidance=ledger.of(CFG(3.0)))`.

    limit: the data's range, [-1, 1] for pictures.
    """

    limit: float = 1.0
    entries: list[Entry] = field(default_factory=list)

    def of(self, rule: Rule) -> Rule:
        """The same rule, keeping this ledger."""
        return _Noted(rule.scale, rule.interval, rule, self)

    def note(self, t: Times, c: Denoised, u: Denoised, guided: Denoised) -> None:
        """Enter a call."""
        push, difference = guided.x0 - c.x0, c.x0 - u.x0
        square = inner(c.x0, c.x0)
        cosine = inner(difference, c.x0) / (square * inner(difference, difference)).sqrt().clamp(min=1e-30)
        parts = [rms(c.x0), rms(u.x0), rms(push), torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))]
        parts += [inner(guided.x0, guided.x0) / square.clamp(min=1e-30), self.out(guided.x0), self.out(c.x0)]
        self.entries.append(Entry(float(t.mean()), *(float(part.double().mean()) for part in parts)))

    def out(self, x0: Batch) -> Tensor:
        """[b] the share of each estimate beyond the limit and its margin."""
        return (x0.abs() > MARGIN * self.limit).flatten(1).double().mean(1)

    @property
    def warning(self) -> str | None:
        """A sentence where guidance ends in saturated samples; None where it does not."""
        if not self.entries or self.entries[-1].beyond < SATURATED:
            return None
        return (
            f"guidance saturates: {self.entries[-1].beyond:.0%} of the last estimate lies beyond {self.limit:g}, the "
            "data's range; lower the scale, or take apg, a rescale or a threshold."
        )


def rms(x: Batch) -> Tensor:
    """[b] the root mean square of each sample."""
    return x.flatten(1).square().mean(1).sqrt()


@dataclass(frozen=True)
class _Noted(Rule):
    """A rule whose calls are entered in a ledger."""

    rule: Rule = None  # type: ignore[assignment]
    ledger: Ledger = field(default_factory=Ledger, compare=False)

    @property
    def idle(self) -> bool:
        return self.rule.idle

    def combine(self, path: Path, x: Batch, t: Times, c: Denoised, u: Denoised) -> Denoised:
        guided = self.rule.combine(path, x, t, c, u)
        acts = self.acts(t)
        rows = acts.to(x.device)
        self.ledger.note(t[acts], *(Denoised(d.x0[rows], d.eps[rows]) for d in (c, u, guided)))
        return guided
