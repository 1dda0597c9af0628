"""At which times a model learns: t ~ p(t)."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..noise import TIMES, uniform
from ..paths import Path, slope
from ..registry import Count, Positive, Registry
from ..types import Times

times: "Registry[TimeSampler]" = Registry("times")


class TimeSampler(ABC):
    """Times as a function of uniform numbers, so that draws may be stratified, replayed or split among machines.

    `learns`: it hears what the draws cost, and its draws stand for uniform ones: their losses are divided by p(t).
    """

    registry: "ClassVar[Registry[TimeSampler]]" = times
    learns: ClassVar[bool] = False

    def numbers(self, seed: int, index: Tensor) -> Tensor:
        """A number in (0, 1) for each sample counter."""
        return uniform(seed, index, stream=TIMES)

    @abstractmethod
    def times(self, u: Tensor, path: Path) -> Times:
        """The time at quantile u."""

    @abstractmethod
    def density(self, t: Times, path: Path) -> Times:
        """p(t)."""

    def hear(self, t: Times, losses: Tensor) -> None:  # noqa: B027
        """What times t [b] cost, before it was divided by p(t). Most do not mind."""


@times.register("uniform")
@dataclass(frozen=True)
class Uniform(TimeSampler):
    """t ~ U(0, 1) (Ho et al. 2020)."""

    def times(self, u: Tensor, path: Path) -> Times:
        return u

    def density(self, t: Times, path: Path) -> Times:
        return torch.ones_like(t)


@times.register("stratified", "low-discrepancy")
@dataclass(frozen=True)
class Stratified(Uniform):
    """Uniform, one draw in each of `strata` equal parts for every `strata` samples in a row (Kingma et al. 2021)."""

    strata: Count = 64

    def numbers(self, seed: int, index: Tensor) -> Tensor:
        return (index % self.strata + uniform(seed, index, stream=TIMES)) / self.strata


@times.register("logit-normal")
@dataclass(frozen=True)
class LogitNormal(TimeSampler):
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024, eq. 19)."""

    mean: float = 0.0
    std: Positive = 1.0

    def times(self, u: Tensor, path: Path) -> Times:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))

    def density(self, t: Times, path: Path) -> Times:
        return _normal_density(torch.logit(t), self.mean, self.std) / (t * (1 - t))


@times.register("log-normal-sigma", "lognormal", "edm")
@dataclass(frozen=True)
class LogNormalSigma(TimeSampler):
    """log(sigma/alpha) ~ N(mean, std^2), no noisier than the path's end (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: Positive = 1.2

    def times(self, u: Tensor, path: Path) -> Times:
        return path.time(-self.mean - self.std * torch.special.ndtri(u)).clamp(max=1)

    def density(self, t: Times, path: Path) -> Times:
        return _normal_density(-path.lam(t), self.mean, self.std) * slope(path.lam, t).abs()


def _normal_density(z: Tensor, mean: float, std: float) -> Tensor:
    return torch.exp(-(((z - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
