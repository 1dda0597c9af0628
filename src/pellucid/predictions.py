r"""Predictions: what the network says, as a row of two numbers.

Every prediction is linear in the pair,  y = a x0 + b eps, and so is x itself:

    | x |   | alpha  sigma | | x0  |        x0  = (b x - sigma y) / det
    | y | = |   a      b   | | eps |        eps = (alpha y - a x) / det,     det = alpha b - sigma a

One solve replaces every converter and every preconditioning class. At a given x an error dy of the network becomes
|dx0| = sigma/|det| |dy|: that factor carries a loss weight, defined once in x0 units, to any prediction.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from .paths import Path
from .registry import Positive, Registry
from .types import Batch, Denoised, Times, along

registry: "Registry[Prediction]" = Registry("prediction")


class Prediction(ABC):
    """A row (a, b) for each time: the network's target is y = a x0 + b eps."""

    registry: "ClassVar[Registry[Prediction]]" = registry

    @abstractmethod
    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        """(a, b) at times t."""

    def target(self, path: Path, x0: Batch, eps: Batch, t: Times) -> Batch:
        """y = a x0 + b eps."""
        a, b = self.row(path, t)
        return along(a, x0) * x0 + along(b, eps) * eps

    def gain(self, path: Path, t: Times) -> Times:
        """|dx0| / |dy| = sigma / |det|: how much an error of the network is magnified in x0."""
        a, b = self.row(path, t)
        return path.sigma(t) / (path.alpha(t) * b - path.sigma(t) * a).abs()


@registry.register("eps", "epsilon", "noise")
@dataclass(frozen=True)
class Eps(Prediction):
    """y = eps (Ho et al. 2020)."""

    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        return torch.zeros_like(t), torch.ones_like(t)


@registry.register("x0", "sample", "data")
@dataclass(frozen=True)
class X0(Prediction):
    """y = x0."""

    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        return torch.ones_like(t), torch.zeros_like(t)


@registry.register("v", "v-prediction", "v_prediction")
@dataclass(frozen=True)
class V(Prediction):
    """y = alpha eps - sigma x0 (Salimans & Ho 2022, section 4)."""

    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        return -path.sigma(t), path.alpha(t)


@registry.register("score")
@dataclass(frozen=True)
class Score(Prediction):
    """y = -eps/sigma, the gradient of log p(x_t | x0) (Vincent 2011; Song & Ermon 2019)."""

    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        return torch.zeros_like(t), -1 / path.sigma(t)


@registry.register("velocity", "flow")
@dataclass(frozen=True)
class Velocity(Prediction):
    """y = alpha' x0 + sigma' eps = dx_t/dt (Lipman et al. 2022, eq. 14). On `flow`: eps - x0."""

    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        return path.rates(t)


@registry.register("edm", "f")
@dataclass(frozen=True)
class EDM(Prediction):
    """y = (sigma x0/sd - alpha sd eps)/sqrt(D), D = alpha^2 sd^2 + sigma^2: Karras et al.'s F (2022, eq. 7), any path.

    Its target has unit variance at every t when the data has standard deviation sd, and det never vanishes.
    """

    sd: Positive = 0.5

    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        alpha, sigma = path.alpha(t), path.sigma(t)
        root = torch.hypot(alpha * self.sd, sigma)
        return sigma / (self.sd * root), -alpha * self.sd / root


def solve(prediction: Prediction, path: Path, x: Batch, y: Batch, t: Times) -> Denoised:
    """(x0, eps) from x and the network's y: the 2 x 2 system above.

    Where it is singular (eps asked for x0 at alpha = 0, x0 asked for eps at sigma = 0, ...) y holds nothing that x
    does not, and the least-norm answer stands: x0 = x at t = 0; x0 = 0, eps = x/sigma where alpha = 0.
    """
    a, b = prediction.row(path, t)
    alpha, sigma = path.alpha(t), path.sigma(t)
    det = alpha * b - sigma * a
    rows = torch.stack([b / det, -sigma / det, -a / det, alpha / det])
    zero = torch.zeros_like(t)
    least = torch.stack([torch.where(alpha > 0, 1 / alpha, zero), zero, torch.where(alpha > 0, zero, 1 / sigma), zero])
    p, q, r, s = (along(c, x) for c in torch.where(rows.isfinite().all(0), rows, least))
    return Denoised(p * x + q * y, r * x + s * y)
