r"""A grid for data of a known extent: its std, and that of its widest direction.

    r_0 = the path's end,    r_1 > ... > r_{N-1} in equal ratios,    r = sigma/alpha = exp(-lam)
    r_1 = 1.05 N^(2/3) width (std/width)^(1/5),    r_{N-1} = std/N (width/std)^(1/10)

Far above the data's widest direction, whose std is the width, the noise hides all but the mean, and one call tells
that. Where the data has not been measured, one direction is taken to have a part of the variance: width = std
sqrt(1 + size/22). Below, details of all sizes take shape one after another, and all sizes alike mean equal steps in
lam. The more steps, the smaller their errors, and the less may be left aside at either end; the longer the way from
the width to the std, the more.
"""

import math
from dataclasses import dataclass

import torch

from ..errors import PellucidError
from ..paths import Path
from ..registry import Positive
from ..types import Extent, Times
from .base import Grid, registry
from .levels import at, end


@registry.register("scales")
@dataclass(frozen=True)
class Scales(Grid):
    """One call in pure noise, then equal steps in lam from `high` N^(2/3) widths of the data to `low`/N of its std."""

    high: Positive = 1.05
    low: Positive = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise PellucidError(f"low is {self.low} and high {self.high}; expected the first to be the smaller one.")

    def of(self, path: Path, steps: int, extent: Extent) -> Times:
        top, way = end(path), extent.width / extent.std
        high, low = self.high * steps ** (2 / 3) * extent.width / way**0.2, self.low * extent.std / steps * way**0.1
        bottom = torch.minimum(torch.tensor(low, dtype=torch.float64), top / 2)
        evenly = top ** (1 - 1 / (steps - 1)) * bottom ** (1 / (steps - 1)) if steps > 1 else top
        second = torch.maximum(evenly, top / math.e).clamp(max=high)
        ramp = torch.linspace(0, 1, steps - 1, dtype=torch.float64) if steps > 2 else torch.full((steps - 1,), 0.5)
        return at(path, torch.cat([top[None], second ** (1 - ramp) * bottom**ramp]))

    def times(self, path: Path, steps: int) -> Times:
        return self.of(path, steps, Extent())
