r"""Runge-Kutta: several calls a step, nothing remembered.

A stage stands at the share c of the step in a clock tau; there f is integrated (form.py) by the polynomial through some
of the earlier stages, and likewise at the end of the step:

    x_i = [first-order step to tau_i] + sum_j W_ij (f_j - f_t),      W_ij = psi_i int_t^tau_i l_j(tau) dq

    method     c              stage i from        the end from
    euler      0                                  0
    midpoint   0 1/2          0                   1              DPM-Solver-2, k-diffusion's dpm_2; x0: DPM-Solver++(2S)
    heun       0 1            0                   0 1            Karras et al. 2022, algorithm 1 (eps in sigma)
    third      0 1/3 2/3      0; 0 1              0 2            DPM-Solver-3 (Lu et al. 2022a, algorithm 2)
    bosh3      0 1/2 3/4      0; 1                0 1 2          Bogacki & Shampine 1989
    rk4        0 1/2 1/2 1    0; 1; 2             0 (1 2) 3      Kutta 1901: Simpson's rule, stages 1 and 2 averaged

Where the kernel of the integral is not flat, as in lam, Simpson's two stages at one time are no match: rk4 has order 3.
The step to sigma = 0 and the one from alpha = 0 are of first order, and call once.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from ..errors import PellucidError
from ..paths import Path
from ..registry import Limit
from ..types import Batch, Denoise, Noise, State, Times, combine
from .base import Number, Sampler, at, registry, some
from .form import Clock, Form, Variable, value

Uses = tuple[tuple[int, ...], ...]
"""Which stages a polynomial goes through; stages at one time are averaged."""


class Tableau(NamedTuple):
    """The order, the share c of each stage after the first, what each of them is made from, and what the end is."""

    order: int
    shares: tuple[float, ...]
    stages: tuple[Uses, ...]
    end: Uses


TABLEAUX = {
    "euler": Tableau(1, (), (), ((0,),)),
    "midpoint": Tableau(2, (1 / 2,), (((0,),),), ((1,),)),
    "heun": Tableau(2, (1.0,), (((0,),),), ((0,), (1,))),
    "third": Tableau(3, (1 / 3, 2 / 3), (((0,),), ((0,), (1,))), ((0,), (2,))),
    "bosh3": Tableau(3, (1 / 2, 3 / 4), (((0,),), ((1,),)), ((0,), (1,), (2,))),
    "rk4": Tableau(4, (1 / 2, 1 / 2, 1.0), (((0,),), ((1,),), ((2,),)), ((0,), (1, 2), (3,))),
}


@registry.register("runge-kutta")
@dataclass(frozen=True)
class RungeKutta(Sampler):
    """A method of the table, in any form.

    With churn > 0 each step first goes back by min(churn h, log(2)/2) in lam, h = lam_s - lam_t, with fresh noise of
    std `scale`, where `low` <= sigma/alpha <= `high`: EDM's churn, log(1 + gamma) = churn h. EDM's gamma is S_churn/N;
    in units of h it vanishes with the step on any grid, so that the law converges to the exact one (scale = 1).
    churn = 1 adds the noise of the reverse SDE.
    """

    method: Literal["euler", "midpoint", "heun", "third", "bosh3", "rk4"] = "heun"
    variable: Variable = "eps"
    clock: Clock = "sigma"
    churn: float = 0.0
    low: float = 0.0
    high: Limit = math.inf
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.churn >= 0:
            raise PellucidError(f"churn is {self.churn}; expected 0 (no noise) or more (1 is the reverse SDE).")
        if not 0 <= self.low <= self.high or not self.scale >= 0:
            raise PellucidError(
                f"low is {self.low}, high {self.high}, scale {self.scale}; expected 0 <= low <= high, and 0 or more."
            )
        _ = self.form

    @property
    def form(self) -> Form:
        """What is integrated."""
        return Form(self.variable, self.clock)

    @property
    def tableau(self) -> Tableau:
        """The method."""
        return TABLEAUX[self.method]

    @property
    def order(self) -> int:  # type: ignore[override]
        return self.tableau.order if self.form.flat else min(self.tableau.order, 3)

    @property
    def calls(self) -> int:  # type: ignore[override]
        return 1 + len(self.tableau.shares)

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    @property
    def universal(self) -> bool:
        return self.clock != "t"

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        up, keep, fresh = self.back(path, t, s)
        form, tableau = self.form, self.tableau
        regular = form.regular(path, up, s) & (path.sigma(s) > 0)  # at the data the network is not asked
        start, end = form.tau(path, up), form.tau(path, s)
        taus = [start, *(torch.where(regular, start + c * (end - start), start) for c in tableau.shares)]
        out = [up, keep, fresh, regular.to(t.dtype), *self.stage(path, up, s, regular, taus, tableau.end)]
        for i, (c, uses) in enumerate(zip(tableau.shares, tableau.stages, strict=True), start=1):
            u = torch.where(regular, form.time(path, taus[i]) if c < 1 else s, up)
            row = form.row(path, u) if self.variable == "velocity" else ()
            out += [u, *row, *self.stage(path, up, u, regular, taus[:i], uses)]
        return tuple(out)

    def back(self, path: Path, t: Times, s: Times) -> tuple[Times, Times, Times]:
        """(time, scale, std) of the churned point: t, 1, 0 where there is no churn."""
        if not self.churn:
            return t, torch.ones_like(t), torch.zeros_like(t)
        lam = path.lam(t)
        back = (self.churn * (path.lam(s) - lam)).clamp(max=math.log(2) / 2)
        churned = (torch.exp(-lam) >= self.low) & (torch.exp(-lam) <= self.high) & lam.isfinite() & (back > 0)
        up = torch.where(churned, path.time(lam - back).clamp(max=1), t)
        keep, fresh = (
            torch.where(up > t, c, still) for c, still in zip(path.transition(t, up), (1.0, 0.0), strict=True)
        )
        return up, keep, self.scale * fresh

    def stage(self, path: Path, t: Times, u: Times, regular: Times, taus: list[Times], uses: Uses) -> list[Times]:
        """(signal, kept) of the pair at t, and W of each of the later stages `taus`, for the stage at time u."""
        form, weights = self.form, [torch.zeros_like(t) for _ in taus]
        if len(taus) == 1:  # held still, f_t is in the first-order step
            return [*form.first(path, t, u)]
        found = form.weights(path, t, u, [taus[group[0]] for group in uses])
        for group, weight in zip(uses, found, strict=True):
            for j in group:
                weights[j] = torch.where(regular, weight / len(group), 0.0)
        instead = -sum(weights[1:], torch.zeros_like(t))
        first = zip(form.first(path, t, u), form.row(path, t), strict=True)
        return [*(c + instead * share for c, share in first), *weights[1:]]

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, _ = state
        calls, wide = self.calls, 2 if self.variable == "velocity" else 0
        up, keep, fresh, regular, signal, kept = c[:6]
        end, later = c[6 : 5 + calls], c[5 + calls :]
        if some(fresh):
            x, t = combine((keep, x), (fresh, noise(0))), at(up, t)
        d = denoise(x, t)
        seen: list[Batch] = []
        if some(regular):
            for i in range(calls - 1):
                u, row, (known, still, *weights) = later[0], later[1 : 1 + wide], later[1 + wide : 3 + wide + i]
                x = combine((known, d.x0), (still, d.eps), *zip(weights, seen, strict=True))
                seen.append(value(self.variable, denoise(x, at(u, t)), row))
                later = later[3 + wide + i :]
        return State(combine((signal, d.x0), (kept, d.eps), *zip(end, seen, strict=False)), s)
