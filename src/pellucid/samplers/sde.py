r"""Solvers of the reverse SDE: in the path's own time, and in lam.

    dx = [f x - (1 + rho)/2 g^2 score] dt + sqrt(rho) g dw,    f = alpha'/alpha,   g^2 = -2 sigma^2 lam'

(Song et al. 2021, eq. 6; rho = 1 is Anderson's reversal, 0 the probability flow). With score = -eps/sigma and the
pair, the drift is  b = alpha' x0 + (sigma' + rho v) eps  with  v = sigma' - sigma alpha'/alpha = g^2/(2 sigma).

In lam the linear part is exact, x_s = sigma_s/sigma_t kappa x + alpha_s int (1 + rho) exp(-(1 + rho)(lam_s - u)) x0 du
+ sigma_s sqrt(1 - kappa^2) z with kappa = exp(-rho h), and x0 is taken from the middle (SEEDS-2, Gonzalez et al. 2023;
DPM++ SDE, Lu et al. 2022b). The middle must feel the first half of the same noise, or the law is of first order:

    N_m = sigma_m sqrt(1 - kappa) z_m,   corr(z_m, z) = w = sqrt(kappa/(1 + kappa))

Where the signal-to-noise ratio is 0 or infinite both are the re-mix of first order.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Denoise, Noise, State, Times, combine
from .base import Number, Sampler, at, registry, remix, some


@registry.register("reverse-sde")
@dataclass(frozen=True)
class ReverseSDE(Sampler):
    """Order 1: Euler and Maruyama. Order 2: Heun, the drift averaged over both ends, the noise common to them."""

    order: int = 1
    rho: float = 1.0
    universal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2) or not self.rho >= 0:
            raise PellucidError(
                f"order is {self.order} and rho is {self.rho}; expected 1 (Euler) or 2 (Heun), and 0 or more."
            )

    @property
    def calls(self) -> int:  # type: ignore[override]
        return self.order

    @property
    def stochastic(self) -> bool:
        return self.rho > 0

    @property
    def weak(self) -> int:
        return self.order

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        step, h = s - t, path.lam(s) - path.lam(t)
        kappa = torch.exp(-self.rho * h) if self.rho else torch.ones_like(h)
        alpha, sigma = path.alpha(s), path.sigma(s)
        plain = alpha, sigma * kappa, sigma * (1 - kappa**2).clamp(min=0).sqrt(), *[torch.zeros_like(t)] * 4
        (a, e, g), (a2, e2, g2) = (self.drift(path, u) for u in (t, s))
        power = g if self.order == 1 else (g + g2) / 2
        half = step / 2 if self.order == 2 else 0 * step
        euler = path.alpha(t) + step * a, path.sigma(t) + step * e, (-step * power).sqrt()
        heun = -half * a, -half * e, half * a2, half * e2
        inner = h.isfinite()
        return tuple(torch.where(inner, c, p) for c, p in zip((*euler, *heun), plain, strict=True))

    def drift(self, path: Path, t: Times) -> tuple[Times, Times, Times]:
        """What x0 and eps add to the drift, and the noise's power, rho g^2."""
        alpha, sigma, (da, ds) = path.alpha(t), path.sigma(t), path.rates(t)
        v = ds - sigma * da / alpha
        return da, ds + self.rho * v, 2 * self.rho * sigma * v

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        signal, kept, fresh, a, e, a2, e2 = c
        d = denoise(state.x, state.t)
        out = remix(d, signal, kept, fresh, noise)
        if some(a2) or some(e2):
            d2 = denoise(out, s)
            out = combine((1.0, out), (a, d.x0), (e, d.eps), (a2, d2.x0), (e2, d2.eps))
        return State(out, s)


@registry.register("exponential-sde")
@dataclass(frozen=True)
class ExponentialSDE(Sampler):
    """The exponential midpoint rule in lam for the reverse SDE of amount `rho`: two calls, second order, in law too."""

    rho: float = 1.0
    calls: ClassVar[int] = 2  # type: ignore[misc]
    order: ClassVar[int] = 2  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not self.rho >= 0:
            raise PellucidError(f"rho is {self.rho}; expected 0 (no noise) or more (1 is the reverse SDE).")

    @property
    def stochastic(self) -> bool:
        return self.rho > 0

    @property
    def weak(self) -> int:
        return 2

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        lam, alpha, sigma = path.lam(t), path.alpha(s), path.sigma(s)
        h = path.lam(s) - lam
        inner = h.isfinite()
        middle = torch.where(inner, path.time(torch.where(inner, lam + h / 2, 0.0)), s)
        kappa = torch.exp(-self.rho * h) if self.rho else torch.ones_like(h)
        half = kappa.sqrt()
        early = path.alpha(middle), path.sigma(middle) * half, path.sigma(middle) * (1 - kappa).sqrt()
        share = (kappa / (1 + kappa)).sqrt()
        fresh = sigma * (1 - kappa**2).sqrt()
        late = torch.where(inner, -alpha * torch.expm1(-(1 + self.rho) * h), 0.0)
        return alpha, sigma * kappa, fresh, middle, *early, share, late

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, _ = state
        signal, kept, fresh, middle, signal_mid, kept_mid, fresh_mid, share, late = c
        d, z = denoise(x, t), noise(0) if some(fresh) else None
        out = remix(d, signal, kept, fresh, lambda _: z)  # type: ignore[arg-type, return-value]
        if not some(late):
            return State(out, s)
        between = remix(d, signal_mid, kept_mid, 0.0, noise)
        if z is not None:
            rest = (1 - share**2) ** 0.5
            between = combine((1.0, between), (fresh_mid * share, z), (fresh_mid * rest, noise(1)))
        return State(combine((1.0, out), (late, denoise(between, at(middle, t)).x0 - d.x0)), s)
