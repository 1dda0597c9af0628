"""Theorems of a step: which samplers are the same, what they do not depend on, and that none of them ever breaks."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ... import grids
from ...noise import normal
from ...paths import Path
from ...predictions import Prediction, solve
from ...samplers import Ancestral, Multistep, Sampler
from ...types import Batch, Bound, Denoised, State, Times, along
from .equation import all_predictions
from .theorem import Row, all_paths, at_most, error, formulas, mixture, theorem, trial, worst

LAMS = torch.linspace(-2, 4, 13, dtype=torch.float64)
STEPS = 1, 2, 3, 4, 5, 10
MANY = 1000


def draws(step: int, n: int = 64) -> Callable[[int], Tensor]:
    """The noise of one step for n samples."""
    return lambda draw: normal(step, torch.arange(n), draw, (2,), dtype=torch.float64)


def run(sampler: Sampler, path: Path) -> Tensor:
    """x/alpha at lam = 4 from equal starts at lam = -2, in equal steps of lam: the same task on every path."""
    denoise, grid = Bound(mixture().at(path)), [t.expand(64) for t in path.time(LAMS)]
    x, eps = draws(100)(0), draws(100)(1)
    state = sampler.init(path.mix(x, eps, grid[0]), grid[0])
    for i, s in enumerate(grid[1:]):
        state = sampler.step(denoise, state, s, draws(i))
    return state.x / path.alpha(grid[-1])[:, None]


@theorem
def one_step_many_names() -> Iterator[Row]:
    """DDIM = Euler = DPM-Solver-1, and DDPM = the reverse SDE's first-order step."""
    for one, other in ((Ancestral(0.0), Multistep(1)), (Ancestral(1.0), Multistep(1, rho=1.0))):
        where, gap = worst((name, error(run(one, path), run(other, path))) for name, path in all_paths().items())
        yield at_most(f"{one} = {other}{where}", gap, 1e-12)


@trial
def path_independence(name: str, sampler: Sampler) -> Iterator[Row]:
    """At equal lam every sampler that says so ends in the same x0, whatever the path."""
    if sampler.universal:
        ends = torch.stack([run(sampler, path) for path in formulas().values()])
        yield at_most(name, error(ends, ends[:1]), 1e-9)


@trial
def strangers(name: str, sampler: Sampler) -> Iterator[Row]:
    """Samples at different times of different runs, joined in one batch, step to the same bits as alone."""
    where, gap = worst((on, apart(sampler, path)) for on, path in formulas().items())
    yield at_most(f"{name}{where}", gap, 0)


def apart(sampler: Sampler, path: Path) -> Tensor:
    """The largest difference between a joined step and the steps taken alone."""
    denoise, grid = Bound(mixture().at(path)), grids.Uniform()(path, 4)
    states = [sampler.init(normal(7, torch.tensor([i]), 0, (2,), dtype=torch.float64), grid[:1]) for i in range(4)]
    for i, state in enumerate(states):  # one starts, one ends
        for j in range(i):
            state = sampler.step(denoise, state, grid[j + 1 : j + 2], draws(j, 1))
        states[i] = state
    after = [grid[i + 1 : i + 2] for i in range(4)]
    alone = [sampler.step(denoise, state, s, draws(9, 1)) for state, s in zip(states, after, strict=True)]
    same = lambda draw: draws(9, 1)(draw).expand(4, 2)  # noqa: E731
    joined = sampler.step(denoise, State.cat(states), torch.cat(after), same).split([1] * 4)
    return torch.stack([(a.x - b.x).abs().max() for a, b in zip(alone, joined, strict=True)]).max()


class Everyone(Prediction):
    """Sample i speaks prediction i, so that one batch tries them all."""

    def __init__(self) -> None:
        self.all = list(all_predictions().values())

    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        rows = [prediction.row(path, t) for prediction in self.all]
        sample = torch.arange(len(t))
        a, b = (torch.stack(column)[sample % len(rows), sample] for column in zip(*rows, strict=True))
        return a, b


class Speaker:
    """A Denoise: the oracle heard through each prediction's row and solve; every second sample hears nonsense."""

    def __init__(self, path: Path) -> None:
        self.path, self.everyone, self.oracle = path, Everyone(), mixture().at(path)

    def __call__(self, x: Batch, t: Times) -> Denoised:
        d, (a, b) = self.oracle(x, t), self.everyone.row(self.path, t)
        scale = along(torch.hypot(self.path.alpha(t), self.path.sigma(t)), x)
        nonsense = 3 * torch.sin(5 * x / scale + 700 * along(t, x))
        even = torch.arange(len(x)) // len(self.everyone.all) % 2 == 0
        sane = (even & a.isfinite() & b.isfinite())[:, None]  # where a row is infinite a network still says a number
        said = torch.where(sane, along(a, x) * d.x0 + along(b, x) * d.eps, nonsense)
        return solve(self.everyone, self.path, x, said, t)


@trial
def finite(name: str, sampler: Sampler) -> Iterator[Row]:
    """No NaN and no Inf on any path, for any prediction, hearing the oracle or nonsense, in 1 step or in 1000."""
    where, count = worst((on, broken(sampler, path)) for on, path in formulas().items())
    yield at_most(f"{name}, {len(all_predictions())} predictions, {STEPS} steps{where}", count, 0)
    where, count = worst((on, unprepared(sampler, path)) for on, path in formulas().items())
    yield at_most(f"{name}, numbers of {MANY} steps{where}", count, 0)


def unprepared(sampler: Sampler, path: Path) -> float:
    """How many coefficients of a long run are no numbers; -inf marks a step from alpha = 0."""
    prepared = sampler.prepare(path, grids.Karras()(path, MANY))
    return sum(math.isnan(c) or c == math.inf for numbers in prepared for c in numbers)


def broken(sampler: Sampler, path: Path) -> float:
    """How many numbers are not finite after runs of all lengths on two grids, side by side: all end together."""
    denoise, kinds = Speaker(path), 2 * len(all_predictions())
    plans = sorted((grid(path, n) for grid in (grids.Uniform(), grids.Karras()) for n in STEPS), key=len)
    z = draws(0, kinds * len(plans))(0)
    state, under_way = None, list[Times]()
    for left in range(max(STEPS), 0, -1):
        while plans and len(plans[-1]) == left + 1:
            under_way.append(plans.pop())
            t = under_way[-1][:1].expand(kinds)
            begun = sampler.init(along(path.sigma(t), z[:kinds]) * z[:kinds], t)
            state = State.cat([state, begun]) if state else begun
        assert state is not None
        s = torch.stack([plan[-left] for plan in under_way]).repeat_interleave(kinds)
        state = sampler.step(denoise, state, s, lambda draw: z[: len(s)])  # noqa: B023
    return float((~state.x.isfinite()).sum()) if state else 0.0
