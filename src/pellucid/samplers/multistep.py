r"""Multistep: a polynomial through what has been seen, integrated exactly. One network call a step.

    x_s = [first-order step] + sum_j W_j (f_j - f_t),      j over the past; f, W_j: form.py

    x0 in lam         DPM-Solver++ 2M and a true 3M (Lu et al. 2022b); with rho, their SDE forms
    eps in lam        DPM-Solver multistep, DEIS rhoAB in log rho
    eps in sigma      Adams and Bashforth on d(x/alpha)/d(sigma/alpha) = eps: LMS, variable-step iPNDM
    eps in t          DEIS tAB (Zhang & Chen 2023, eq. 15)
    velocity in t     Adams and Bashforth on a flow

Mode "correct" is UniPC (Zhao et al. 2023, algorithm 1): when f_t arrives, the polynomial of the step that led to x_t is
drawn through it too, and x_t moves by the difference of the two integrals, G, without another call:

    x_t <- x_t + sum_j G_j f_j,      x_s <- x_s + psi_s/psi_t sum_j G_j f_j

A straight line through two values, integrated over h = tau_s - tau_t, weighs w = int (tau - tau_t) dq psi_s by the rule
"exact"; "midpoint" takes h/2 int dq psi_s (2M of DPM-Solver++; UniPC's B_2 = e^h - 1), and "taylor" takes
h^2/2 dq/dtau psi_s at the end (UniPC's B_1 = h). All agree to second order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Denoise, Noise, State, Times
from .base import Number, Sampler, registry, remix
from .form import UNKNOWN, Clock, Form, Variable, value


@registry.register("multistep")
@dataclass(frozen=True)
class Multistep(Sampler):
    """Adams' method of `order` 1 to 4 in any form; `rho` the share of the reverse SDE's noise.

    Mode "correct" predicts with one order less and corrects with the full one: UniPC-p has order p + 1.
    """

    order: int = 2
    rho: float = 0.0
    rule: Literal["exact", "midpoint", "taylor"] = "exact"
    variable: Variable = "x0"
    clock: Clock = "lam"
    mode: Literal["predict", "correct"] = "predict"

    def __post_init__(self) -> None:
        if self.order not in range(1 + (self.mode == "correct"), 5):
            raise PellucidError(f"order is {self.order}; a multistep sampler has order 1 to 4, a corrected one 2 to 4.")
        if not self.rho >= 0:
            raise PellucidError(f"rho is {self.rho}; expected 0 (no noise) or more (1 is the reverse SDE).")
        if self.rule != "exact" and self.mode == "predict" and self.order != 2:
            raise PellucidError(f"the {self.rule} rule has order 2, not {self.order}; take rule = 'exact'.")
        _ = self.form

    @property
    def form(self) -> Form:
        """What is integrated."""
        return Form(self.variable, self.clock, self.rho)

    @property
    def stochastic(self) -> bool:
        return self.rho > 0

    @property
    def past(self) -> int:
        return self.order - 1

    @property
    def universal(self) -> bool:
        return self.clock != "t"

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        form = self.form
        signal, kept = form.first(path, t, s)
        fresh = path.sigma(s) * (1 - form.decay(path, t, s) ** 2).sqrt()
        known = past > -torch.inf
        before = torch.where(known, past, 1.0)
        taus = torch.where(known, form.tau(path, before), UNKNOWN).unbind(-1)
        weights = torch.zeros(self.past + 1, *t.shape, dtype=t.dtype)  # of f_t and of each past f
        points = self.order - (self.mode == "correct")
        weights[:points] = self.slants(path, t, s, [form.tau(path, t), *taus[: points - 1]])
        if self.mode == "correct":
            weights += form.carry(path, t, s) * self.correction(path, before[..., 0], t, taus)
        a, b = form.row(path, t)
        row = (a, b) if self.variable == "velocity" else ()
        return signal + weights[0] * a, kept + weights[0] * b, fresh, *row, *weights[1:]

    def correction(self, path: Path, before: Times, t: Times, taus: Sequence[Times]) -> Times:
        """[order, b]: G of f_t and of each past f, for the step before -> t; nothing where there was none."""
        predicted = self.slants(path, before, t, taus)
        corrected = self.slants(path, before, t, [taus[0], self.form.tau(path, t), *taus[1:]])
        corrected[[0, 1]] = corrected[[1, 0]]
        corrected[1:] -= predicted
        return torch.where(taus[0].isfinite(), corrected, 0.0)

    def slants(self, path: Path, t: Times, s: Times, taus: Sequence[Times]) -> Times:
        """[nodes, b]: W of each node, the first of them t's own, to be added to the first-order step of t -> s."""
        form, (now, *others) = self.form, taus
        if not others:
            return torch.zeros_like(t)[None]
        first, *weights = form.weights(path, t, s, taus)
        if self.rule != "exact":
            known = torch.stack([tau.isfinite() for tau in others])
            line = self.line(path, t, s, sum(weights, first))
            weights = [
                torch.where((known.sum(0) == 1) & known[j] & (w != 0), line / (tau - now), w)
                for j, (w, tau) in enumerate(zip(weights, others, strict=True))
            ]
        return torch.stack([-sum(weights, torch.zeros_like(t)), *weights])

    def line(self, path: Path, t: Times, s: Times, still: Times) -> Times:
        """What the slope of a straight line weighs; `still`: what f held still does."""
        start, end = self.form.tau(path, t), self.form.tau(path, s)
        if self.rule == "taylor":
            return (end - start) ** 2 / 2 * self.form.kernel(path, end, s)
        return (end - start) / 2 * still

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, memory = state
        past, wide = self.order - 1, 5 if self.variable == "velocity" else 3
        (signal, kept, fresh), row, weights = c[:3], c[3:wide], c[wide:]
        d, times, seen = denoise(x, t), memory[:past], memory[past:]
        out = remix(d, signal, kept, fresh, noise, *zip(weights, seen, strict=True))
        if not past:
            return State(out, s)
        return State(out, s, (t, *times[:-1], value(self.variable, d, row), *seen[:-1]))
