"""Discrete schedules: the variance-preserving family on a table of knots, beta_1 ... beta_N."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import PellucidError
from ..registry import Count, Offset, Positive, Share
from ..types import Times
from .base import Path, registry


@registry.register("table", "betas")
@dataclass(frozen=True)
class Table(Path):
    """A discrete schedule beta_1 ... beta_N: index i (from 0) sits at t = (i + 1)/N, clean data at t = 0.

    Between knots the angle atan2(sigma, alpha) is linear in t: finite everywhere, exact for zero terminal SNR.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < beta <= 1 for beta in self.betas):
            raise PellucidError("a table's betas are empty or leave (0, 1]; expected one variance for each step.")
        survival = torch.tensor(self.betas, dtype=torch.float64).neg().log1p().cumsum(0)  # log alpha^2
        angles = torch.atan2((-torch.expm1(survival)).sqrt(), torch.exp(survival / 2))
        angles = torch.cat([torch.zeros(1, dtype=torch.float64), angles])
        object.__setattr__(self, "_angles", angles)
        object.__setattr__(self, "_turns", angles.diff())

    @property
    def n(self) -> int:
        """The number of discrete steps."""
        return len(self.betas)

    def _angle(self, t: Times) -> Times:
        place = t * self.n
        i = place.detach().long().clamp(0, self.n - 1)
        return self._angles[i] + self._turns[i] * (place - i)  # type: ignore[attr-defined]

    def alpha(self, t: Times) -> Times:
        return torch.sin(math.pi / 2 - self._angle(t))

    def sigma(self, t: Times) -> Times:
        return torch.sin(self._angle(t))

    def lam(self, t: Times) -> Times:
        angle = self._angle(t)  # of both, as the slow part is to find it
        return torch.sin(math.pi / 2 - angle).log() - torch.sin(angle).log()

    def time(self, lam: Times) -> Times:
        angles: Tensor = self._angles  # type: ignore[attr-defined]
        angle = torch.atan2(torch.ones_like(lam), torch.exp(lam))
        i = (torch.searchsorted(angles, angle.contiguous(), right=True) - 1).clamp(0, self.n - 1)
        return (i + (angle - angles[i]) / (angles[i + 1] - angles[i])) / self.n


@registry.register("linear-table", "ddpm-table")
@dataclass(frozen=True)
class LinearTable(Table):
    """`steps` betas from `first` to `last` with beta^(1/power) equally spaced: DDPM's (Ho et al. 2020, section 4)."""

    betas: tuple[float, ...] = field(init=False, repr=False)
    steps: Count = 1000
    first: Share = 1e-4
    last: Share = 0.02
    power: Positive = 1.0

    def __post_init__(self) -> None:
        roots = [beta ** (1 / self.power) for beta in (self.first, self.last)]
        betas = torch.linspace(roots[0], roots[1], self.steps, dtype=torch.float64) ** self.power
        object.__setattr__(self, "betas", tuple(betas.tolist()))
        super().__post_init__()


registry.preset("scaled-linear-table", LinearTable(first=0.00085, last=0.012, power=2.0), "stable-diffusion-table")


@registry.register("cosine-table", "squaredcos-cap-v2")
@dataclass(frozen=True)
class CosineTable(Table):
    """The cosine schedule as improved DDPM runs it: `steps` betas, none above `cap` (Nichol & Dhariwal 2021)."""

    betas: tuple[float, ...] = field(init=False, repr=False)
    steps: Count = 1000
    cap: Share = 0.999
    s: Offset = 0.008

    def __post_init__(self) -> None:
        u = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        survival = torch.cos((u + self.s) / (1 + self.s) * math.pi / 2) ** 2
        betas = (1 - survival[1:] / survival[:-1]).clamp(max=self.cap)
        object.__setattr__(self, "betas", tuple(betas.tolist()))
        super().__post_init__()
