"""Paths on which the data keeps its scale and the noise grows: alpha = 1."""

import math
from dataclasses import dataclass

import torch

from ..registry import Positive
from ..types import Times
from .base import Path, registry, rising, slope


@registry.register("ve", "variance-exploding")
@dataclass(frozen=True)
class VE(Path):
    """alpha = 1, sigma^2 = sigma_min^2 ((sigma_max/sigma_min)^(2t) - 1): the kernel of Song et al. 2021, eq. 29."""

    sigma_min: Positive = 0.01
    sigma_max: Positive = 50.0

    def __post_init__(self) -> None:
        rising("sigma_min and sigma_max", self.sigma_min, self.sigma_max)

    @property
    def _growth(self) -> float:
        return 2 * math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Times) -> Times:
        return torch.ones_like(t)

    def sigma(self, t: Times) -> Times:
        return self.sigma_min * torch.expm1(self._growth * t).sqrt()

    def time(self, lam: Times) -> Times:
        return torch.log1p(torch.exp(-2 * lam) / self.sigma_min**2) / self._growth

    def rates(self, t: Times) -> tuple[Times, Times]:
        return torch.zeros_like(t), slope(self.sigma, t)


@registry.register("edm", "karras")
@dataclass(frozen=True)
class EDM(Path):
    """alpha = 1, sigma = sigma_max t^rho: equal steps in t are Karras et al.'s (2022, eq. 5) with sigma_min = 0."""

    sigma_max: Positive = 80.0
    rho: Positive = 7.0

    def alpha(self, t: Times) -> Times:
        return torch.ones_like(t)

    def sigma(self, t: Times) -> Times:
        return self.sigma_max * t**self.rho

    def time(self, lam: Times) -> Times:
        return torch.exp((-lam - math.log(self.sigma_max)) / self.rho)

    def rates(self, t: Times) -> tuple[Times, Times]:
        return torch.zeros_like(t), slope(self.sigma, t)
