"""Paths that preserve the variance and end in noise, given by alpha itself: cosine and sigmoid."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PellucidError
from ..registry import Offset, Positive
from ..types import Times
from .base import Path, registry, rising


@registry.register("cosine", "vp-cosine", "squaredcos")
@dataclass(frozen=True)
class Cosine(Path):
    """alpha = cos(u)/cos(u0), u = (t + s)/(1 + s) pi/2, u0 = u(0) (Nichol & Dhariwal 2021, eq. 17); alpha(1) = 0."""

    s: Offset = 0.008

    @property
    def _u0(self) -> float:
        return self.s * self._rise

    @property
    def _rise(self) -> float:
        return math.pi / 2 / (1 + self.s)

    def alpha(self, t: Times) -> Times:
        # cos(u) as the sine of what is left to pi/2: exactly zero at t = 1
        return torch.sin((1 - t) * self._rise) / math.cos(self._u0)

    def sigma(self, t: Times) -> Times:
        # cos^2 u0 - cos^2 u = sin(u - u0) sin(u + u0)
        gone = t * self._rise
        return (torch.sin(gone) * torch.sin(gone + 2 * self._u0)).sqrt() / math.cos(self._u0)

    def time(self, lam: Times) -> Times:
        c0, s0 = math.cos(self._u0), math.sin(self._u0)
        noise, signal = torch.sigmoid(-2 * lam) * c0**2, torch.sigmoid(2 * lam) * c0**2
        u = torch.atan2((s0**2 + noise).sqrt(), signal.sqrt())
        share = torch.where(noise > 0, noise / torch.sin(u + self._u0), 0.0)
        gone = torch.asin(share.clamp(max=1))  # from the end that is near
        return torch.where(lam > 0, gone / self._rise, 1 - torch.asin(signal.sqrt()) / self._rise)


registry.preset("trigonometric", Cosine(0.0), "trig", "gvp")


@registry.register("sigmoid", "vp-sigmoid")
@dataclass(frozen=True)
class Sigmoid(Path):
    """alpha^2 = (S(b) - S(v))/(S(b) - S(a)), v = a + t (b - a), S(v) = 1/(1 + exp(-v/tau)) (Jabri et al. 2023)."""

    start: float = -3.0
    end: float = 3.0
    tau: Positive = 1.0

    def __post_init__(self) -> None:
        rising("start and end", self.start, self.end)
        if not max(abs(self.start), abs(self.end)) <= 300 * self.tau:
            raise PellucidError(f"start is {self.start} and end {self.end}; expected at most 300 tau from 0.")

    def _gap(self, low: Tensor, rise: Tensor) -> Tensor:
        # S(low + rise) - S(low) without cancellation
        return torch.sinh(rise / 2) / (2 * torch.cosh(low / 2) * torch.cosh((low + rise) / 2))

    def _ends(self) -> tuple[Tensor, Tensor]:
        a, b = torch.tensor([self.start, self.end], dtype=torch.float64) / self.tau
        return a, b

    def alpha(self, t: Times) -> Times:
        a, b = self._ends()
        return (self._gap(b, (t - 1) * (b - a)) / self._gap(b, a - b)).sqrt()

    def sigma(self, t: Times) -> Times:
        a, b = self._ends()
        return (self._gap(a, t * (b - a)) / self._gap(a, b - a)).sqrt()

    def time(self, lam: Times) -> Times:
        a, b = self._ends()
        whole, p, q = self._gap(a, b - a), torch.sigmoid(a), torch.sigmoid(b)
        up, down = torch.sigmoid(-2 * lam) * whole, torch.sigmoid(2 * lam) * whole
        gone = torch.log1p(up / p) - torch.log1p(-up / (1 - p))  # v - a, from the end that is near
        left = torch.log1p(down / (1 - q)) - torch.log1p(-down / q)  # b - v
        return torch.where(lam > 0, gone / (b - a), 1 - left / (b - a))
