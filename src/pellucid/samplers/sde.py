r"""Solvers of the reverse SDE: in the path's own time, and in lam.

    dx = [f x - (1 + rho)/2 g^2 score] dt + sqrt(rho) g dw,    f = alpha'/alpha,   g^2 = -2 sigma^2 lam'

(Song et al. 2021, eq. 6; rho = 1 is Anderson's reversal, 0 the probability flow). With score = -eps/sigma and the
pair, the drift is  b = alpha' x0 + (sigma' + rho v) eps  with  v = sigma' - sigma alpha'/alpha = g^2/(2 sigma).

In lam the linear part is exact, with kappa = exp(-rho h), and x0 is interpolated through stages inside the step
(form.py; the methods of runge_kutta.py): SEEDS-2 and SEEDS-3 (Gonzalez et al. 2023), DPM++ SDE (Lu et al. 2022b). A
stage at the share c feels its part of the same noise: of unit variance, N_c is tied to a later N_d by

    N_c = w N_d + sqrt(1 - w^2) z,    w^2 = (exp(2 rho c h) - 1)/(exp(2 rho d h) - 1)

or the law is of first order. Where the signal-to-noise ratio is 0 or infinite both are the re-mix of first order.
"""

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Batch, Denoise, Noise, State, Times, combine
from .base import Number, Sampler, at, finite, registry, remix, some
from .form import Form
from .runge_kutta import TABLEAUX, Uses


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
    """An exponential Runge-Kutta method in lam for the reverse SDE of amount `rho`: two calls, or three for "third"."""

    rho: float = 1.0
    method: Literal["midpoint", "heun", "third"] = "midpoint"

    def __post_init__(self) -> None:
        if not self.rho >= 0:
            raise PellucidError(f"rho is {self.rho}; expected 0 (no noise) or more (1 is the reverse SDE).")

    @property
    def order(self) -> int:  # type: ignore[override]
        return TABLEAUX[self.method].order

    @property
    def calls(self) -> int:  # type: ignore[override]
        return 1 + len(TABLEAUX[self.method].shares)

    @property
    def stochastic(self) -> bool:
        return self.rho > 0

    @property
    def weak(self) -> int:
        return 2 if self.method == "midpoint" else 1

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        form, tableau, lam = Form("x0", "lam", self.rho), TABLEAUX[self.method], path.lam(t)
        regular = form.regular(path, t, s) & (path.sigma(s) > 0)
        h = torch.where(regular, path.lam(s) - lam, 0.0)
        taus = [lam + c * h for c in (0.0, *tableau.shares)]
        out = [regular.to(t.dtype), *self.stage(form, path, t, s, regular, taus, tableau.end)]
        ends = (*tableau.shares[1:], 1.0)
        for i, (c, later, uses) in enumerate(zip(tableau.shares, ends, tableau.stages, strict=True), start=1):
            u = torch.where(regular, path.time(taus[i]), s) if c < 1 else s
            grown = torch.expm1(-2 * self.rho * c * h) / torch.expm1(-2 * self.rho * later * h)
            tie = torch.exp(-self.rho * (later - c) * h) * finite(grown).sqrt()
            out += [u, tie, *self.stage(form, path, t, u, regular, taus[:i], uses)]
        return tuple(out)

    def stage(
        self, form: Form, path: Path, t: Times, u: Times, regular: Times, taus: list[Times], uses: Uses
    ) -> list[Times]:
        """(signal, kept, fresh) of the step t -> u, and the weight of x0 at each of the later stages `taus`."""
        found = form.weights(path, t, u, [taus[group[0]] for group in uses])
        used = {group[0]: torch.where(regular, weight, 0.0) for group, weight in zip(uses, found, strict=True)}
        weights = [used.get(j, torch.zeros_like(t)) for j in range(1, len(taus))]
        signal, kept = form.first(path, t, u)
        fresh = path.sigma(u) * (1 - form.decay(path, t, u) ** 2).clamp(min=0).sqrt()
        return [signal - sum(weights, torch.zeros_like(t)), kept, fresh, *weights]

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, _ = state
        stages = self.calls - 1
        (regular, signal, kept, fresh), end, later = c[:4], c[4 : 4 + stages], iter(c[4 + stages :])
        d, seen = denoise(x, t), list[Batch]()
        terms = [(signal, d.x0), (kept, d.eps)]
        if some(fresh):
            felt = [noise(0)]
            terms.append((fresh, felt[0]))
        if some(regular):
            parts = [tuple(islice(later, 5 + i)) for i in range(stages)]
            for draw, (_, tie, *_) in enumerate(reversed(parts), start=1) if some(fresh) else ():
                free = (1 - tie**2) ** 0.5
                felt.append(combine((tie, felt[-1]), (free, noise(draw))) if some(free) else felt[-1])
            for i, (u, _, known, still, stirred, *weights) in enumerate(parts):
                new = [(stirred, felt[-1 - i])] if some(stirred) else []
                between = combine((known, d.x0), (still, d.eps), *new, *zip(weights, seen, strict=True))
                seen.append(denoise(between, at(u, t)).x0)
        return State(combine(*terms, *zip(end, seen, strict=False)), s)
