"""A grid that goes back up on its way."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import PellucidError
from ..paths import Path
from ..registry import Count
from ..types import Times
from .base import Grid, registry
from .levels import Karras


@registry.register("restart")
@dataclass(frozen=True)
class Restart(Grid):
    """`base`, but what lies in low <= sigma/alpha <= high is walked `repeats` times more, each from fresh noise.

    Restart sampling (Xu et al. 2023, algorithm 1): going up forgets the errors made so far, going down again makes only
    its own. `steps` counts those of the base.
    """

    base: Grid = Karras()
    low: float = 0.06
    high: float = 0.3
    repeats: Count = 2
    rises: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high or self.base.rises:
            raise PellucidError(
                f"low is {self.low}, high {self.high}, base {type(self.base).__name__}; "
                "expected 0 < low < high, and a base that falls."
            )

    def times(self, path: Path, steps: int) -> Times:
        times = self.base(path, steps)[:-1]
        sigmas = torch.exp(-path.lam(times))
        again = (sigmas >= self.low) & (sigmas <= self.high)
        if int(again.sum()) < 2:
            return times  # nothing to walk again
        return torch.cat([times[sigmas >= self.low], *[times[again]] * self.repeats, times[sigmas < self.low]])
