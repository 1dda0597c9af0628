"""What an error costs at time t: w(t), once, in x0 units, as a function of lam. SNR = exp(2 lam)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..paths import Path, slope
from ..predictions import Prediction
from ..registry import Count, Positive, Registry
from ..types import Times

weights: "Registry[Weight]" = Registry("weight")


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


@weights.register("chain", "discrete-elbo", "l-vlb")
@dataclass(frozen=True)
class Chain(Weight):
    """w = T/2 (SNR(t - 1/T) - SNR(t)): the bound of a chain of T steps, in nats (Kingma et al. 2021, eq. 13).

    Where the variance is learned it is the bound of that chain, from which mean and variance are learnt alike: L_vlb
    (Nichol & Dhariwal 2021, eq. 4). The step to the data itself costs what the one before it does.
    """

    steps: Count = 1000
    integral: ClassVar[bool] = True

    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        t = t.clamp(min=2 / self.steps)
        return self.steps / 2 * (snr(path, t - 1 / self.steps) - snr(path, t))


@weights.register("sigmoid")
@dataclass(frozen=True)
class Sigmoid(Weight):
    """The ELBO times 1/(1 + SNR exp(-bias)): fine noise counts less (Kingma & Gao 2023; Hoogeboom et al. 2024)."""

    bias: float = 0.0
    integral: ClassVar[bool] = True

    def x0(self, path: Path, t: Times, prediction: Prediction) -> Times:
        return ELBO().x0(path, t, prediction) * torch.sigmoid(self.bias - 2 * path.lam(t))
