"""What a grid is: the times at which a sampler asks the network.

A grid turns a path and a number of steps N into N + 1 strictly falling times, the last one 0 (clean data). The
network is called at the first N. Where a rule is stated in sigma it means sigma/alpha = exp(-lam), as in k-diffusion.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from ..errors import PellucidError
from ..paths import Path
from ..registry import Registry
from ..types import ONE, Extent, Times

registry: "Registry[Grid]" = Registry("grid")


class Grid(ABC):
    """N + 1 falling times for a path."""

    registry: "ClassVar[Registry[Grid]]" = registry
    rises: ClassVar[bool] = False  # whether it goes back up on its way

    def __call__(self, path: Path, steps: int, extent: Extent = ONE) -> Times:
        """float64 [steps + 1] (more where the grid rises), strictly falling, ending at 0; for data of this extent."""
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise PellucidError(f"steps is {steps!r}; expected a whole number, 1 or more.")
        times = torch.cat([self.of(path, steps, extent), torch.zeros(1, dtype=torch.float64)])
        if not bool((times.isfinite() & (times >= 0) & (times <= 1)).all()):
            raise PellucidError(f"{steps} steps of this grid leave the times from 0 to 1; change its options.")
        if not self.rises and not bool((times.diff() < 0).all()):
            raise PellucidError(f"{steps} steps do not fit this grid: its times would repeat; take fewer steps.")
        return times

    def of(self, path: Path, steps: int, extent: Extent) -> Times:
        """The N times for data of this extent; to most grids all data is the same."""
        return self.times(path, steps)

    @abstractmethod
    def times(self, path: Path, steps: int) -> Times:
        """The N times at which the network is called."""
