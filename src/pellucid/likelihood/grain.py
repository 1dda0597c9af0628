r"""Grain: data that was rounded, of which a density says nothing until it is summed over what was rounded away.

Values lie on -1, -1 + g, ..., 1 (bytes: g = 2/255) and stand for a bin of width g. With x~ drawn from q(x~ | x) within
the bin of x, Jensen's inequality bounds its probability (Theis et al. 2016, eq. 3; Ho et al. 2019, eq. 8):

    log P(x) = log int p(x~) p(x | x~) >= E [log p(x~) - log q(x~ | x) + log p(x | x~)]

    uniform   x~ = x + g (u - 1/2)                       - log q = d log g
    normal    x~ = x + s z, s = g/(2 tau), |z| <= tau    what a model saw at sigma/alpha = s (Zheng et al. 2023)
    noise     x~ = x + s z                               the same past the bin's edge (Kingma et al. 2021, eq. 11)

Within its bin x~ tells x, and p(x | x~) = 1; past it the model's decoder does, which makes `noise` the very q of the
bounds: the three then differ in what they make of log p(x~), and in nothing else.

The bits are those of the values whatever the units: in bytes, density and g both change by 127.5 for each dimension.
A decoder is the other way to a probability: the mass that N(x0^, s^2) has in the bin, the first and the last bin
reaching to infinity (Ho et al. 2020, eq. 13).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..noise import GRAIN, words
from ..registry import Positive, Registry
from ..types import Batch

registry: "Registry[Dequantise]" = Registry("dequantisation")
_HALF_LOG = math.log(2 * math.pi) / 2


class Dequantise(ABC):
    """q(x~ | x), drawn. What is handed on is y = x_t/r: x~ itself, or cos(theta) x~ where it is a noisy sample."""

    registry: "ClassVar[Registry[Dequantise]]" = registry

    @abstractmethod
    def level(self, grain: float, low: float) -> float:
        """The sigma/alpha of which x~ is a sample; `low` where q has none of its own."""

    @abstractmethod
    def draw(self, x: Batch, grain: float, u: Tensor) -> tuple[Batch, Tensor]:
        """y [b, d] from x [b, d] and u [b, d] in (0, 1), and the -log q(y | x) [b] to be added to log p(y)."""

    def told(self, x: Batch, grain: float, guess: Callable[[], Batch]) -> Tensor:
        """log p(x | y) [b] of x [b, d]: y lies in the bin of x. guess: x0^(y), where it is needed."""
        return torch.zeros(len(x), dtype=x.dtype)


@registry.register("uniform")
@dataclass(frozen=True)
class Uniform(Dequantise):
    """Evenly over the bin."""

    def level(self, grain: float, low: float) -> float:
        return low

    def draw(self, x: Batch, grain: float, u: Tensor) -> tuple[Batch, Tensor]:
        return x + grain * (u - 0.5), torch.full((len(x),), x.shape[1] * math.log(grain), dtype=x.dtype)


@registry.register("normal", "truncated-normal")
@dataclass(frozen=True)
class Normal(Dequantise):
    """Normal within `tau` standard deviations, which fill the bin: the noise of the path itself. Nothing is learnt."""

    tau: Positive = 3.0

    def level(self, grain: float, low: float) -> float:
        return grain / (2 * self.tau)

    def draw(self, x: Batch, grain: float, u: Tensor) -> tuple[Batch, Tensor]:
        s, outside = self.level(grain, 0.0), math.erfc(self.tau / math.sqrt(2)) / 2
        z = torch.special.ndtri(outside + (1 - 2 * outside) * u)
        log_q = -z.square() / 2 - _HALF_LOG - math.log1p(-2 * outside) - math.log(s)
        cos = 1 / math.hypot(1, s)
        return cos * (x + s * z), (math.log(cos) - log_q).sum(1)


@registry.register("noise", "variational", "decoder")
@dataclass(frozen=True)
class Noise(Dequantise):
    """Normal, `ratio` bins wide: the noise of the path itself, and the model's decoder tells the bin."""

    ratio: Positive = 1.0

    def level(self, grain: float, low: float) -> float:
        return self.ratio * grain

    def draw(self, x: Batch, grain: float, u: Tensor) -> tuple[Batch, Tensor]:
        s, z = self.level(grain, 0.0), torch.special.ndtri(u)
        cos = 1 / math.hypot(1, s)
        return cos * (x + s * z), (z.square() / 2 + _HALF_LOG + math.log(s * cos)).sum(1)

    def told(self, x: Batch, grain: float, guess: Callable[[], Batch]) -> Tensor:
        return decode(x, guess(), torch.full((len(x),), self.level(grain, 0.0), dtype=x.dtype), grain)


def spots(seed: int, index: Tensor, step: int, dims: int) -> Tensor:
    """[b, dims] float64 in (0, 1): where in its bin each value falls."""
    return (words(seed, index, step, GRAIN, dims).double() + 0.5) / 2**32


def decode(x0: Batch, guess: Batch, std: Tensor, grain: float) -> Tensor:
    """[b] log N(x0; guess, std^2) of x0 [b, *shape], std [b]; with a grain, of all its bin. Float64."""
    x0, guess = x0.double().flatten(1), guess.double().flatten(1).to(x0.device)
    std = std.to(x0)[:, None]
    z = (x0 - guess) / std
    if not grain:
        return (-z.square() / 2 - std.log() - _HALF_LOG).sum(1)
    half = grain / 2 / std
    low = (z - half).masked_fill(x0 < -1 + grain / 2, -torch.inf)
    high = (z + half).masked_fill(x0 > 1 - grain / 2, torch.inf)
    flip = low > 0  # the nearer tail: there the difference keeps its digits
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return (log_high + torch.log1p(-torch.exp(log_low - log_high))).sum(1)
