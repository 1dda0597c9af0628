r"""Exponential multistep: DPM-Solver++ and its SDE forms, of order 1 to 3.

In lam the reverse process is linear but for x0, and variation of constants gives it exactly:

    x_s = sigma_s/sigma_t exp(-rho h) x_t + alpha_s int_0^h (1 + rho) exp(-(1 + rho)(h - u)) x0(lam_t + u) du + noise

(Lu et al. 2022b, eq. 14). Newton's polynomial through past x0 (divided differences D_k in lam) turns it into

    x_s = [first-order re-mix with kappa = exp(-rho h)] + alpha_s (w_1 D_1 + w_2 D_2)
    c_0 = 1 - exp(-(1 + rho) h),   c_k = h^k - k/(1 + rho) c_(k-1)
    w_1 = c_1,                     w_2 = c_2 + (lam_t - lam_1) c_1

rho = 0 is the probability-flow ODE, rho = 1 the reverse SDE. The rule "midpoint" takes w_1 = h c_0 / 2 (the 2M of
DPM-Solver++). A past that is missing has lam = -inf: infinitely noisy, it says nothing, and the order falls by itself.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Batch, Denoise, Noise, State, Times, combine
from .base import Number, Sampler, at, finite, registry, remix


@registry.register("multistep")
@dataclass(frozen=True)
class Multistep(Sampler):
    """Adams' method in lam on x0: `order` 1 to 3, `rho` the share of the reverse SDE's noise."""

    order: int = 2
    rho: float = 0.0
    rule: Literal["exact", "midpoint"] = "exact"

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise PellucidError(f"order is {self.order}; a multistep sampler has order 1, 2 or 3.")
        if not self.rho >= 0:
            raise PellucidError(f"rho is {self.rho}; expected 0 (no noise) or more (1 is the reverse SDE).")
        if self.rule == "midpoint" and self.order != 2:
            raise PellucidError(f"the midpoint rule has order 2, not {self.order}; take rule = 'exact'.")

    @property
    def stochastic(self) -> bool:
        return self.rho > 0

    @property
    def past(self) -> int:
        return self.order - 1

    def init(self, x: Batch, t: Times) -> State:
        lams = torch.full((len(t), self.past), -torch.inf, dtype=torch.float64)
        return State(x, t, (lams, *(torch.zeros_like(x) for _ in range(self.past))) if self.past else ())

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        lam, alpha, sigma = path.lam(t), path.alpha(s), path.sigma(s)
        h = path.lam(s) - lam
        kappa = torch.exp(-self.rho * h) if self.rho > 0 else torch.ones_like(h)
        fresh = (-torch.expm1(-2 * self.rho * h)).sqrt() if self.rho > 0 else torch.zeros_like(h)
        now, *before = self.weights(h, lam, past)
        return alpha * (1 + now), sigma * kappa, sigma * fresh, lam, *(alpha * weight for weight in before)

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, memory = state
        signal, kept, fresh, lam, *before = c
        d = denoise(x, t)
        out = remix(d, signal, kept, fresh, noise)
        if not self.past:
            return State(out, s)
        lams, *history = memory
        out = combine((1.0, out), *zip(before, history, strict=True))
        lams = torch.cat([at(lam, t)[:, None], lams[:, :-1]], 1)
        return State(out, s, (lams, d.x0, *history[:-1]))

    def weights(self, h: Times, lam: Times, past: Times) -> Times:
        """[order, b]: what the present and each past x0 add, so that their sum is w_1 D_1 + w_2 D_2."""
        if not self.past:
            return torch.zeros_like(h)[None]
        a = 1 + self.rho
        c0 = -torch.expm1(-a * h)
        c1 = h - c0 / a
        w1 = finite(h * c0 / 2 if self.rule == "midpoint" else c1)
        r1 = finite(1 / (lam - past[:, 0]))
        if self.order == 2:
            return torch.stack([w1 * r1, -w1 * r1])
        c2 = h**2 - 2 * c1 / a
        w2 = finite(c2 + (lam - past[:, 0]) * c1)
        r2, r3 = finite(1 / (past[:, 0] - past[:, 1])), finite(1 / (lam - past[:, 1]))
        first, second = (w1 + w2 * r3) * r1, w2 * r3 * r2
        return torch.stack([first, -first - second, second])
