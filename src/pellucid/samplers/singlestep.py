r"""Singlestep: Runge-Kutta whose stages are the grid's own points. One network call a step.

Steps come in groups of `order`. The k-th of a group starts again from the group's first time t_0, with a polynomial
through the k values that the group has seen (Lu et al. 2022a, section 3.3, and 2022b, algorithm 1):

    x_s = [first-order step t_0 -> s] + sum_j W_j (f_j - f_0),      j = 1 ... k - 1; f, W_j: form.py

    rule       k = 2                               k = 3
    line       the line through f_0 and f_1        the line through f_0 and f_2: DPM-Solver-3 on a grid of thirds
    midpoint   its slope counts h/2 int dq psi_s   the same                     (diffusers' "midpoint")
    exact      the line through f_0 and f_1        the parabola through all three (diffusers' "heun")

A group's last point has the order of the whole. A step that is infinite in its clock is a group of its own, and what
follows begins a new one, so that the last step, to the data, starts from where the others led.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Batch, Denoise, Noise, State, Times, combine
from .base import Known, Number, Sampler, at, registry, unseen
from .form import UNKNOWN, Form


@registry.register("singlestep")
@dataclass(frozen=True)
class Singlestep(Sampler):
    """Groups of `order` 2 or 3, for x0 or eps in lam."""

    order: int = 3
    rule: Literal["line", "midpoint", "exact"] = "line"
    variable: Literal["x0", "eps"] = "eps"

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise PellucidError(f"order is {self.order}; a singlestep sampler has groups of 2 or 3.")

    @property
    def form(self) -> Form:
        """What is integrated."""
        return Form(self.variable, "lam")

    @property
    def past(self) -> int:
        return self.order - 1

    def init(self, x: Batch, t: Times) -> State:
        return State(x, t, (*unseen(x, t, self.past), torch.zeros_like(x)))  # the times; x0_0, eps_0, f_1

    def prepare(self, path: Path, times: Times) -> list[tuple[float, ...]]:
        """As of every sampler, but a step looks back no further than its group, which depends on all steps before."""
        ends, finite, group = times.tolist(), path.lam(times).isfinite().tolist(), list[int]()
        past = torch.full((len(times) - 1, self.past), -torch.inf, dtype=torch.float64)
        for i in range(len(times) - 1):
            past[i, : len(group)] = torch.tensor([ends[j] for j in group], dtype=torch.float64)
            going = finite[[i, *group][-1]] and finite[i + 1] and len(group) < self.past
            group = [i, *group] if going else []
        columns = self.coefficients(Known(path), times[:-1], times[1:], past)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def after(self, going: Times, t: Times, times: Sequence[Times]) -> Sequence[Times]:
        """The times to look back on after a step from t; none where it ended its group."""
        return [torch.where(going > 0, time, -torch.inf) for time in [t, *times][: self.past]]

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        """Whether the group goes on, whether it goes back to its beginning; (x0, eps) now and there; W of f, of f_1."""
        form, known = self.form, past > -torch.inf
        seen = known.sum(-1)
        begin = torch.where(seen > 0, past.gather(-1, (seen - 1).clamp(min=0)[..., None])[..., 0], t)
        regular = form.regular(path, begin, s)
        back, going = regular & (seen > 0), regular & (seen < self.past)
        start = torch.where(back, begin, t)
        first = form.first(path, start, s)
        now, middle = form.tau(path, t), form.tau(path, torch.where(seen > 1, past[..., 0], 1.0))
        slopes = self.slopes(path, start, s, now, torch.where(seen > 1, middle, UNKNOWN))
        newest, second = (torch.where(back, w, 0.0) for w in slopes)
        here = [torch.where(back, 0.0, c) for c in first]
        row = form.row(path, t)
        there = [torch.where(back, c - (newest + second) * r, 0.0) for c, r in zip(first, row, strict=True)]
        flags = going.to(t.dtype), back.to(t.dtype)
        return *flags, *here, *there, newest, second

    def slopes(self, path: Path, start: Times, s: Times, now: Times, middle: Times) -> Sequence[Times]:
        """W of f_t and of f_1, which the second step of a group does not have."""
        form, origin = self.form, self.form.tau(path, start)
        _, line = form.weights(path, start, s, [origin, now])
        if self.rule == "exact":
            _, newest, second = form.weights(path, start, s, [origin, now, middle])
            return newest, second
        if self.rule == "midpoint":
            (still,) = form.weights(path, start, s, [origin])
            half = (form.tau(path, s) - origin) / 2 * still / (now - origin)
            line = torch.where(middle.isfinite(), line, half)
        return line, torch.zeros_like(line)

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, memory = state
        times, (x0, eps, *middle) = memory[: self.past], memory[self.past :]
        going, back, signal, kept, signal_0, kept_0, newest, second = c
        d = denoise(x, t)
        f = d.x0 if self.variable == "x0" else d.eps
        out = combine((signal, d.x0), (kept, d.eps), (signal_0, x0), (kept_0, eps), (newest, f))
        if middle:
            out = combine((1.0, out), (second, middle[0]))
        here = 1 - back
        begun = combine((here, d.x0), (back, x0)), combine((here, d.eps), (back, eps))
        return State(out, s, (*self.after(at(going, t), t, times), *begun, *([f] if middle else [])))


registry.preset("dpm-fast", Singlestep(3), "dpm fast", "dpm_fast", "sample_dpm_fast")
registry.preset("dpmpp-singlestep", Singlestep(2, "midpoint", "x0"), "dpmsolversinglestepscheduler")
