r"""Runge-Kutta: two calls a step, second order.

Heun works on  d(x/alpha)/d(sigma/alpha) = eps,  the probability-flow ODE on any path (Karras et al. 2022, eq. 4;
Algorithm 2 with its churn). Midpoint works in lam on x0 (Lu et al. 2022b, Algorithm 1, r = 1/2).
Both are the first-order re-mix plus a correction that vanishes where the signal-to-noise ratio is 0 or infinite.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import PellucidError
from ..types import Batch, Denoise, Noise, State, Times, along
from .base import Sampler, finite, registry, remix


def _none(draw: int) -> Batch:
    raise AssertionError("a deterministic re-mix draws no noise")


def _euler(denoise: Denoise, d: object, s: Times) -> Batch:
    one = torch.ones_like(s)
    return remix(denoise.path, d, s, one, 0 * one, _none)  # type: ignore[arg-type]


@registry.register("heun", "heundiscretescheduler", "sample_heun")
@dataclass(frozen=True)
class Heun(Sampler):
    """x_s = re-mix + alpha_s (sigma_s/alpha_s - sigma_t/alpha_t) (eps_s - eps_t)/2.

    With gamma > 0 each step first raises sigma/alpha by the factor 1 + gamma with fresh noise of std `scale`, where
    `low` <= sigma/alpha <= `high`: EDM's churn, gamma = min(S_churn/N, sqrt 2 - 1).
    """

    gamma: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0
    calls: ClassVar[int] = 2
    order: ClassVar[int] = 2  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= math.sqrt(2) - 1 + 1e-12:
            raise PellucidError(f"gamma is {self.gamma}; expected a number from 0 to sqrt(2) - 1 = 0.414.")

    @property
    def stochastic(self) -> bool:
        return self.gamma > 0

    def step(self, denoise: Denoise, state: State, s: Times, noise: Noise) -> State:
        path = denoise.path
        x, t = self.churn(denoise, state, noise) if self.gamma > 0 else state[:2]
        d = denoise(x, t)
        out = _euler(denoise, d, s)
        rise = path.alpha(s) * (torch.exp(-path.lam(s)) - torch.exp(-path.lam(t)))
        half = torch.where(path.sigma(s) > 0, finite(rise / 2), 0.0)
        if bool(half.any()):  # the last step, to sigma = 0, is first order
            out = out + along(half, x) * (denoise(out, s).eps - d.eps)
        return State(out, s)

    def churn(self, denoise: Denoise, state: State, noise: Noise) -> tuple[Batch, Times]:
        """x with its sigma/alpha raised by 1 + gamma: (alpha^/alpha) x + sigma^ sqrt(1 - (1 + gamma)^-2) z."""
        path, (x, t, _) = denoise.path, state
        sigma = torch.exp(-path.lam(t))
        gamma = torch.where((sigma >= self.low) & (sigma <= self.high), self.gamma, 0.0)
        raised = torch.where(gamma > 0, path.time(path.lam(t) - torch.log1p(gamma)), t)
        keep = path.sigma(raised) / (path.sigma(t) * (1 + gamma))
        fresh = self.scale * path.sigma(raised) * (1 - (1 + gamma) ** -2).sqrt()
        return along(torch.where(gamma > 0, keep, 1.0), x) * x + along(fresh, x) * noise(0), raised


@registry.register("midpoint", "dpm-solver-2", "dpmpp-2s", "dpm++ 2s")
@dataclass(frozen=True)
class Midpoint(Sampler):
    """x_s = re-mix + alpha_s (1 - exp(-h)) (x0_mid - x0_t), the middle taken in lam."""

    calls: ClassVar[int] = 2
    order: ClassVar[int] = 2  # type: ignore[misc]

    def step(self, denoise: Denoise, state: State, s: Times, noise: Noise) -> State:
        path, (x, t, _) = denoise.path, state
        d = denoise(x, t)
        out = _euler(denoise, d, s)
        lam = path.lam(t)
        h = path.lam(s) - lam
        inner = h.isfinite()
        if bool(inner.any()):
            middle = torch.where(inner, path.time(torch.where(inner, lam + h / 2, 0.0)), t)
            weight = torch.where(inner, -path.alpha(s) * torch.expm1(-h), 0.0)
            out = out + along(weight, x) * (denoise(_euler(denoise, d, middle), middle).x0 - d.x0)
        return State(out, s)
