r"""Paths that preserve the variance: alpha^2 + sigma^2 = 1, and the sub-VP path beneath them.

alpha^2 = exp(-B), sigma^2 = 1 - exp(-B)  with  B(t) = int_0^t beta,  so that  exp(-2 lam) = exp(B) - 1.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch

from ..registry import Positive
from ..types import Times
from .base import Path, registry, rising


class VariancePreserving(Path):
    """alpha^2 + sigma^2 = 1, given by B(t), the integral of beta, and its inverse."""

    @abstractmethod
    def integral(self, t: Times) -> Times:
        """B(t), the integral of beta from 0 to t."""

    @abstractmethod
    def time_at(self, integral: Times) -> Times:
        """The inverse of B."""

    def alpha(self, t: Times) -> Times:
        return torch.exp(-self.integral(t) / 2)

    def sigma(self, t: Times) -> Times:
        return (-torch.expm1(-self.integral(t))).sqrt()

    def time(self, lam: Times) -> Times:
        return self.time_at(torch.nn.functional.softplus(-2 * lam, threshold=700))


class _Linear:
    """B(t) = beta_min t + (beta_max - beta_min) t^2 / 2."""

    beta_min: float
    beta_max: float

    def integral(self, t: Times) -> Times:
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def time_at(self, integral: Times) -> Times:
        per = 1 / integral  # divided through, so that an infinite integral has an infinite time
        root = ((self.beta_min * per) ** 2 + 2 * (self.beta_max - self.beta_min) * per).sqrt()
        return 2 / (self.beta_min * per + root)


@registry.register("vp", "linear", "vp-linear", "ddpm")
@dataclass(frozen=True)
class VP(_Linear, VariancePreserving):
    """beta(t) linear in t (Ho et al. 2020; Song et al. 2021, eq. 32). beta_min, beta_max: N times DDPM's betas."""

    beta_min: Positive = 0.1
    beta_max: Positive = 20.0


@registry.register("scaled-linear", "vp-scaled-linear", "stable-diffusion")
@dataclass(frozen=True)
class ScaledLinear(VariancePreserving):
    """sqrt(beta(t)) linear in t (Stable Diffusion; Rombach et al. 2022)."""

    beta_min: Positive = 0.85
    beta_max: Positive = 12.0

    def __post_init__(self) -> None:
        rising("beta_min and beta_max", self.beta_min, self.beta_max)

    @property
    def _roots(self) -> tuple[float, float]:
        return math.sqrt(self.beta_min), math.sqrt(self.beta_max) - math.sqrt(self.beta_min)

    def integral(self, t: Times) -> Times:
        a, d = self._roots
        return t * (a * a + a * d * t + d * d * t**2 / 3)

    def time_at(self, integral: Times) -> Times:
        a, d = self._roots
        return a / d * torch.expm1(torch.log1p(3 * d * integral / a**3) / 3)


@registry.register("subvp", "sub-vp")
@dataclass(frozen=True)
class SubVP(_Linear, Path):
    """alpha = exp(-B/2), sigma = 1 - exp(-B), at most VP's (Song et al. 2021, eq. 29); lam = -log(2 sinh(B/2))."""

    beta_min: Positive = 0.1
    beta_max: Positive = 20.0

    def alpha(self, t: Times) -> Times:
        return torch.exp(-self.integral(t) / 2)

    def sigma(self, t: Times) -> Times:
        return -torch.expm1(-self.integral(t))

    def time(self, lam: Times) -> Times:
        return self.time_at(2 * torch.asinh(torch.exp(-lam) / 2))
