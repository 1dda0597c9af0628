r"""Objectives: at which times a model learns, and what an error costs there.

    loss = w(t) |x0 - x0^|^2,    t ~ p(t)

A weight is defined once, in x0 units, as a function of lam; SNR = exp(2 lam). At a given x the error of the
network's own answer y is |dy|^2 = (det/sigma)^2 |dx0|^2, which carries the weight to any prediction. Weights that
stand for an integral over t (the ELBO and its kin) are divided by the density p(t) of the draws, so that they mean
the same under every choice of times.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .conditioning import drop
from .denoiser import Denoiser
from .errors import PellucidError
from .noise import DROP, TIMES, TRAIN, normal, uniform
from .paths import Path, slope
from .predictions import Prediction
from .registry import Count, Positive, Registry
from .types import Batch, Cond, Times, along

times: "Registry[TimeSampler]" = Registry("times")
weights: "Registry[Weight]" = Registry("weight")


class TimeSampler(ABC):
    """Times as a function of uniform numbers, so that draws may be stratified, replayed or split among machines."""

    registry: "ClassVar[Registry[TimeSampler]]" = times

    def numbers(self, seed: int, index: Tensor) -> Tensor:
        """A number in (0, 1) for each sample counter."""
        return uniform(seed, index, stream=TIMES)

    @abstractmethod
    def times(self, u: Tensor, path: Path) -> Times:
        """The time at quantile u."""

    @abstractmethod
    def density(self, t: Times, path: Path) -> Times:
        """p(t)."""


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


class Weight(ABC):
    """The price of an error, in x0 units. `integral`: it stands for an integral over t, whatever the draws' density."""

    registry: "ClassVar[Registry[Weight]]" = weights
    integral: ClassVar[bool] = False

    @abstractmethod
    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        """w(t), the factor of |x0 - x0^|^2."""


def snr(path: Path, t: Times) -> Times:
    """alpha^2/sigma^2 = exp(2 lam)."""
    return torch.exp(2 * path.lam(t))


@weights.register("unit", "plain", "flow-matching")
@dataclass(frozen=True)
class Unit(Weight):
    """1 in the network's own units: |y - y^|^2. With velocity this is flow matching, with score NCSN's plain loss."""

    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        return prediction.gain(path, t) ** -2


@weights.register("simple", "ddpm", "eps")
@dataclass(frozen=True)
class Simple(Weight):
    """1 in eps units, whatever the prediction: L_simple (Ho et al. 2020, eq. 14). w = SNR."""

    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        return snr(path, t)


@weights.register("min-snr", "min_snr")
@dataclass(frozen=True)
class MinSNR(Weight):
    """w = min(SNR, gamma) (Hang et al. 2023, eq. 10)."""

    gamma: Positive = 5.0

    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        return snr(path, t).clamp(max=self.gamma)


@weights.register("edm", "karras")
@dataclass(frozen=True)
class EDM(Weight):
    """w = SNR + 1/sd^2, which is (sigma^2 + sd^2)/(sigma sd)^2 where alpha = 1 (Karras et al. 2022, table 1)."""

    sd: Positive = 0.5

    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        return snr(path, t) + self.sd**-2


@weights.register("elbo", "vdm", "likelihood", "vlb")
@dataclass(frozen=True)
class ELBO(Weight):
    """w = -1/2 dSNR/dt: the expected loss is the diffusion term of the ELBO, in nats (Kingma et al. 2021, eq. 17).

    Song et al.'s (2021) likelihood weighting is the same number: g^2/(2 sigma^2) |d eps|^2 with g^2 = -2 sigma^2 lam'.
    """

    integral: ClassVar[bool] = True

    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        return -slope(path.lam, t) * snr(path, t)


@weights.register("sigmoid")
@dataclass(frozen=True)
class Sigmoid(Weight):
    """The ELBO times 1/(1 + SNR exp(-bias)): fine noise counts less (Kingma & Gao 2023; Hoogeboom et al. 2024)."""

    bias: float = 0.0
    integral: ClassVar[bool] = True

    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        return ELBO().x0(path, t, prediction) * torch.sigmoid(self.bias - 2 * path.lam(t))


@dataclass(frozen=True)
class Objective:
    """Where to learn (`times`), what an error costs (`weight`), how often conditions are withheld (`drop`).

    `span`: the quantiles of the times that are drawn; the ends, where the signal-to-noise ratio may be 0 or infinite,
    are left out by a hair.
    """

    times: TimeSampler = field(default_factory=Uniform)
    weight: Weight = field(default_factory=Unit)
    drop: float = 0.1
    span: tuple[float, float] = (1e-5, 1 - 1e-5)

    def __post_init__(self) -> None:
        if not 0 <= self.drop <= 1:
            raise PellucidError(f"drop is {self.drop}; expected the share of conditions to withhold, from 0 to 1.")
        if not 0 <= self.span[0] < self.span[1] <= 1:
            raise PellucidError(f"span is {self.span}; expected two rising quantiles, from 0 to 1.")

    def draw(self, path: Path, seed: int, index: Tensor) -> Times:
        """The times at which samples number `index` [b] are learnt."""
        low, high = self.span
        return self.times.times(low + (high - low) * self.times.numbers(seed, index), path)

    def price(self, path: Path, t: Times, prediction: Prediction) -> Times:
        """w(t) in x0 units, per draw."""
        w = self.weight.x0(path, t, prediction)
        return w / self.times.density(t, path) if self.weight.integral else w

    def loss(self, model: Denoiser, x0: Batch, eps: Batch, t: Times, cond: Cond | None = None) -> Tensor:
        """[b]: the weighted mean square error per dimension, measured on the network's own answer."""
        price = self.price(model.path, t, model.prediction) * model.prediction.gain(model.path, t) ** 2
        y = model.predict(model.path.mix(x0, eps, t), t, cond)
        square = (y - model.prediction.target(model.path, x0, eps, t)).square()
        return along(price, x0).flatten() * square.flatten(1).mean(1)

    def __call__(self, model: Denoiser, x0: Batch, cond: Cond, seed: int, index: Tensor) -> Tensor:
        """[b]: the loss of samples number `index` with their own times, noise and withheld conditions."""
        eps = normal(seed, index, 0, tuple(x0.shape[1:]), stream=TRAIN, dtype=x0.dtype).to(x0.device)
        if self.drop > 0 and cond:
            cond = drop(cond, (uniform(seed, index, stream=DROP) < self.drop).to(x0.device))
        return self.loss(model, x0, eps, self.draw(model.path, seed, index), cond)
