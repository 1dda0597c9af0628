"""Draws: the noise levels at which an integral over them is looked at.

    int f dlam = E f(lam)/q(lam),  lam ~ q(lam) = 1/(1 + (exp(-lam)/std)^power) / Z
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..paths import Path, slope
from ..registry import Positive
from ..types import Times


class Draws(Protocol):
    """Times at which an integral over t is looked at: quantiles, and their density, as objective/time.py has."""

    def times(self, u: Tensor, path: Path) -> Times: ...

    def density(self, t: Times, path: Path) -> Times: ...


@dataclass(frozen=True)
class Wiener:
    """q(lam) as above, between sigma/alpha = low and the path's end.

    Power 2 is what a Gaussian of this std loses there: of such data every draw says the same, and of all data of this
    std it is where the noise first hides it that decides. A network errs in noise too in which the exact denoiser no
    longer can; a lower power has a longer tail, so that no such error counts for much because it was hardly looked for.
    """

    std: Positive = 0.5
    low: Positive = 1e-3
    power: Positive = 0.5

    def _ends(self, path: Path) -> tuple[Tensor, Tensor]:
        """int q Z dlam = log(1 + (std exp(lam))^power)/power, at the path's end and at `low`."""
        one = torch.ones((), dtype=torch.float64)
        return self._mass(path.lam(one)), self._mass(-math.log(self.low) * one)

    def _mass(self, lam: Tensor) -> Tensor:
        return torch.logaddexp(torch.zeros_like(lam), self.power * (lam + math.log(self.std))) / self.power

    def times(self, u: Tensor, path: Path) -> Times:
        """The time at quantile u, rising from the data to the path's end."""
        end, low = self._ends(path)
        mass = self.power * (low + u * (end - low))
        lam = (mass + torch.log(-torch.expm1(-mass))) / self.power - math.log(self.std)
        return path.time(lam).clamp(max=1)

    def density(self, t: Times, path: Path) -> Times:
        """p(t)."""
        end, low = self._ends(path)
        lam = path.lam(t)
        return torch.sigmoid(self.power * (lam + math.log(self.std))) / (low - end) * slope(path.lam, t).abs()
