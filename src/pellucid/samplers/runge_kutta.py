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
from ..paths import Path
from ..types import Denoise, Noise, State, Times, combine
from .base import Number, Sampler, at, finite, registry, remix, some


@registry.register("heun", "heundiscretescheduler", "sample_heun")
@dataclass(frozen=True)
class Heun(Sampler):
    """x_s = re-mix + alpha_s (sigma_s/alpha_s - sigma_t/alpha_t) (eps_s - eps_t)/2.

    With churn > 0 each step first goes back by min(churn h, log(2)/2) in lam, h = lam_s - lam_t, with fresh noise of
    std `scale`, where `low` <= sigma/alpha <= `high`: EDM's churn, log(1 + gamma) = churn h. EDM's gamma is S_churn/N;
    in units of h it vanishes with the step on any grid, so that the law converges to the exact one (scale = 1).
    churn = 1 adds the noise of the reverse SDE.
    """

    churn: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0
    calls: ClassVar[int] = 2
    order: ClassVar[int] = 2  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not self.churn >= 0:
            raise PellucidError(f"churn is {self.churn}; expected 0 (no noise) or more (1 is the reverse SDE).")

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        lam, alpha, sigma = path.lam(t), path.alpha(s), path.sigma(s)
        back = (self.churn * (path.lam(s) - lam)).clamp(max=math.log(2) / 2)
        churned = (torch.exp(-lam) >= self.low) & (torch.exp(-lam) <= self.high) & lam.isfinite() & (back > 0)
        up = torch.where(churned, path.time(lam - back).clamp(max=1), t)
        keep, fresh = (
            torch.where(up > t, c, still) for c, still in zip(path.transition(t, up), (1.0, 0.0), strict=True)
        )
        rise = finite(alpha * (torch.exp(-path.lam(s)) - torch.exp(-path.lam(up))))
        half = torch.where(sigma > 0, rise / 2, 0.0)  # the last step, to sigma = 0, is first order
        return up, keep, self.scale * fresh, alpha, sigma, half

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, _ = state
        up, keep, fresh, signal, kept, half = c
        if some(fresh):
            x, t = combine((keep, x), (fresh, noise(0))), at(up, t)
        d = denoise(x, t)
        out = remix(d, signal, kept, 0.0, noise)
        if some(half):
            out = combine((1.0, out), (half, denoise(out, s).eps - d.eps))
        return State(out, s)


@registry.register("midpoint", "dpm-solver-2", "dpmpp-2s", "dpm++ 2s")
@dataclass(frozen=True)
class Midpoint(Sampler):
    """x_s = re-mix + alpha_s (1 - exp(-h)) (x0_mid - x0_t), the middle taken in lam."""

    calls: ClassVar[int] = 2
    order: ClassVar[int] = 2  # type: ignore[misc]

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        lam, alpha = path.lam(t), path.alpha(s)
        h = path.lam(s) - lam
        inner = h.isfinite()
        middle = torch.where(inner, path.time(torch.where(inner, lam + h / 2, 0.0)), t)
        weight = torch.where(inner, -alpha * torch.expm1(-h), 0.0)
        return alpha, path.sigma(s), path.alpha(middle), path.sigma(middle), middle, weight

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, _ = state
        signal, kept, signal_mid, kept_mid, middle, weight = c
        d = denoise(x, t)
        out = remix(d, signal, kept, 0.0, noise)
        if some(weight):
            between = remix(d, signal_mid, kept_mid, 0.0, noise)
            out = combine((1.0, out), (weight, denoise(between, at(middle, t)).x0 - d.x0))
        return State(out, s)
