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

    def step(self, denoise: Denoise, state: State, s: Times, noise: Noise) -> State:
        path = denoise.path
        x, t = self.raised(path, state, s, noise) if self.churn > 0 else state[:2]
        d = denoise(x, t)
        out = _euler(denoise, d, s)
        rise = path.alpha(s) * (torch.exp(-path.lam(s)) - torch.exp(-path.lam(t)))
        half = torch.where(path.sigma(s) > 0, finite(rise / 2), 0.0)
        if bool(half.any()):  # the last step, to sigma = 0, is first order
            out = out + along(half, x) * (denoise(out, s).eps - d.eps)
        return State(out, s)

    def raised(self, path: Path, state: State, s: Times, noise: Noise) -> tuple[Batch, Times]:
        """x a little further up the path, and its time there: a forward transition."""
        x, t, _ = state
        lam = path.lam(t)
        back = (self.churn * (path.lam(s) - lam)).clamp(max=math.log(2) / 2)
        churned = (torch.exp(-lam) >= self.low) & (torch.exp(-lam) <= self.high) & lam.isfinite()
        up = torch.where(churned, path.time(lam - back).clamp(max=1), t)
        keep, fresh = path.transition(t, up)
        x = along(torch.where(up > t, keep, 1.0), x) * x
        return x + along(self.scale * torch.where(up > t, fresh, 0.0), x) * noise(0), up


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
