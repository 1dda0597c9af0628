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
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from .conditioning import drop
from .coupling import Coupling, Independent
from .data.augment import Augmentation, augment
from .denoiser import Denoiser, Sight
from .errors import PellucidError
from .noise import DROP, TIMES, TRAIN, normal, uniform
from .paths import Learned, Path, slope
from .predictions import Prediction, solve
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


class Lesson(NamedTuple):
    """What a batch teaches: samples by their numbers, with data, noise and conditions."""

    number: Tensor  # [b] int64, on the CPU
    x0: Batch
    eps: Batch
    cond: dict[str, Tensor]

    def to(self, device: torch.device) -> "Lesson":
        """The same on another device."""
        cond = {name: value.to(device) for name, value in self.cond.items()}
        return Lesson(self.number, self.x0.to(device), self.eps.to(device), cond)

    def split(self, parts: int) -> "list[Lesson]":
        """The same in so many parts, as even as can be."""
        number, x0, eps = (value.tensor_split(parts) for value in self[:3])
        conds = [{name: value.tensor_split(parts)[i] for name, value in self.cond.items()} for i in range(parts)]
        return [Lesson(*part) for part in zip(number, x0, eps, conds, strict=True)]


@dataclass(frozen=True)
class Objective:
    """Where to learn (`times`), what an error costs (`weight`), how often conditions are withheld (`drop`).

    `span`: the quantiles of the times that are drawn; the ends, where the signal-to-noise ratio may be 0 or infinite,
    are left out by a hair. `bound`: where the variance is learned, this much of the bound beside the loss (Nichol &
    Dhariwal 2021, eq. 16: L_hybrid), for a chain of `steps`. `coupling`: which noise goes with which data. `augment`:
    how pictures are changed, one after the other.
    """

    times: TimeSampler = field(default_factory=Uniform)
    weight: Weight = field(default_factory=Unit)
    drop: float = 0.1
    span: tuple[float, float] = (1e-5, 1 - 1e-5)
    bound: float = 0.0
    steps: int = 1000
    coupling: Coupling = Independent()
    augment: tuple[Augmentation, ...] = ()

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
        path, rule = model.path, model.prediction
        price, x = self.price(path, t, rule) * rule.gain(path, t) ** 2, path.mix(x0, eps, t)
        y, spread = model.answer(x, t, cond)
        loss = along(price, x0).flatten() * (y - rule.target(path, x0, eps, t)).square().flatten(1).mean(1)
        if spread is not None:
            error = x0 - solve(rule, path, x, y, t).x0.detach()  # the bound is to move the variance alone
            loss = loss + self.bound * self.steps * divergence(path, t, 1 / self.steps, error, spread)
        return loss

    def lesson(self, x0: Batch, cond: Cond, seed: int, index: Tensor) -> Lesson:
        """Samples number `index` with their own noise, some of their conditions withheld. It knows no model."""
        heard = dict(cond)
        eps = heard.pop("noise", None)  # what brought its own noise keeps it
        if eps is not None and self.augment:
            raise PellucidError("this data brings its own noise, and cannot be augmented; leave data.augment out.")
        if eps is None:
            fresh = normal(seed, index, 0, tuple(x0.shape[1:]), stream=TRAIN, dtype=x0.dtype)
            eps = self.coupling.couple(x0, fresh)
        if self.drop > 0 and heard:
            heard = dict(drop(heard, uniform(seed, index, stream=DROP) < self.drop))
        return Lesson(index, x0, eps, heard)

    def __call__(self, model: Denoiser, lesson: Lesson, seed: int) -> Tensor:
        """[b]: the loss of a lesson at its samples' own times, of which a path that is learned has the last word."""
        x0, done = augment(self.augment, lesson.x0, seed, lesson.number)
        cond = lesson.cond if done is None else {**lesson.cond, "augment": done}
        return self.loss(model, x0, lesson.eps, self.draw(model.path, seed, lesson.number), cond)

    def even(self, path: Path, losses: Tensor, seed: int, index: Tensor) -> None:
        """Add to the gradient of a learned clock what the losses [b] of a batch say of it: of a whole batch, for no
        part of one knows how large its losses are beside the others'."""
        if isinstance(path, Learned):
            moment = uneven(path, self.draw(path, seed, index), losses.detach())
            (found,) = torch.autograd.grad(moment.mean(), [path.logits])
            path.logits.grad = found if path.logits.grad is None else path.logits.grad + found


@dataclass(frozen=True)
class Naming(Objective):
    """What a classifier of noisy samples lowers: its cross entropy with their labels, none of which is withheld."""

    drop: float = 0.0

    def loss(self, model: Sight, x0: Batch, eps: Batch, t: Times, cond: Cond | None = None) -> Tensor:
        """[b]: -log p(y | x_t), nats."""
        return nll_loss(model(model.path.mix(x0, eps, t), t), (cond or {})["label"], reduction="none")


def divergence(path: Path, t: Times, step: float, error: Batch, spread: Batch) -> Tensor:
    """[b] KL(q(x_s | x_t, x0) | p(x_s | x_t)), s = t - step, nats per dimension, where x0 is missed by `error`.

    1/2 ((1 + k^2 error^2) e^-g - 1 + g),    k = e^(lam_s) sqrt(1 - e^(-2 h)),    g = 2 spread log(sigma_t/sigma_s)

    The step to the data itself has no variance to learn: the one before it stands in.
    """
    t = t.clamp(min=2 * step)
    s = t - step
    k = torch.exp(path.lam(s)) * (-torch.expm1(2 * (path.lam(t) - path.lam(s)))).sqrt()
    g = along(2 * (path.sigma(t) / path.sigma(s)).log(), error) * spread
    return (((1 + (along(k, error) * error).square()) * torch.exp(-g) - 1 + g) / 2).flatten(1).mean(1)


def uneven(path: Learned, t: Times, loss: Tensor) -> Tensor:
    """[b] how much the loss varies, in units of its square; its gradient evens it (Kingma et al. 2021, eq. 20).

    With uniform t the estimate's second moment is  int l(u)^2 / v'(u) du  for the loss l(u) du at the base's own time:
    it is least where v' is in proportion to l, and the network has no say in it.
    """
    density = path.density(path.inner(t))
    square = loss.double().cpu().square()
    return square / square.mean().clamp(min=1e-60) * density.detach() / density
