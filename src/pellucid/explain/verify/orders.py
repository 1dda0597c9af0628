"""Theorems of order: each deterministic sampler converges as fast as it says, to the exact flow.

Integrated between interior times (the last step, to sigma = 0, is first order by design), in equal steps of each
path's own time, so that steps in lam are unequal. The sampler's memory is filled by exact points: it walks the steps
that it looks back on before the start and is put back on the reference after each. What looks back on k steps gets
k + 1 times as many, so that all see equally far. A mixture, because a single Gaussian is too kind.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from ... import samplers
from ...oracle import GaussianMixture, Oracle
from ...paths import Path
from ...paths import registry as paths
from ...samplers import Sampler
from ...samplers.base import silent
from ...sampling import Counted, invert, sample
from ...types import Bound
from .theorem import Row, at_most, error, mixture, near, theorem, times, trial

PATHS = "cosine", "vp", "flow"
STEPS = 60, 120
TOLERANCES = 1e-2, 1e-3, 1e-4, 1e-5, 1e-6
Flow = Callable[[Tensor, float, float], Tensor]
"""x at time t -> x at time s."""


def span(path: Path) -> tuple[float, float]:
    """The times at which lam = -1.5 and lam = 2: where the data takes shape."""
    t, s = path.time(times(-1.5, 2.0)).tolist()
    return t, s


def points(data: GaussianMixture, path: Path, t: float, n: int = 128) -> Tensor:
    """Exact samples of x_t."""
    eps = GaussianMixture(times(1.0), torch.zeros(1, data.shape[0]), times(1.0)[0]).sample(n, seed=1)
    return path.mix(data.sample(n, seed=2), eps, times(t).expand(n))


def fine(oracle: Oracle, steps: int = 400) -> Flow:
    """The probability-flow ODE dx/dt = alpha' x0 + sigma' eps by the classical Runge-Kutta method, in tiny steps."""
    start, end = span(oracle.path)

    def velocity(x: Tensor, t: float) -> Tensor:
        da, ds = oracle.path.rates(times(t))
        d = oracle(x, times(t).expand(len(x)))
        return da * d.x0 + ds * d.eps

    def flow(x: Tensor, t: float, s: float) -> Tensor:
        n = math.ceil(steps * abs(t - s) / (start - end))
        h = (s - t) / n
        for i in range(n):
            now = t + i * h
            k1 = velocity(x, now)
            k2 = velocity(x + h / 2 * k1, now + h / 2)
            k3 = velocity(x + h / 2 * k2, now + h / 2)
            k4 = velocity(x + h * k3, now + h)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x

    return flow


def quantiles(oracle: Oracle) -> Flow:
    """In one dimension the flow keeps ranks: F_s^-1(F_t(x)), by bisection, exact."""
    data, path = oracle.data, oracle.path
    assert isinstance(data, GaussianMixture)

    def cdf(x: Tensor, t: float) -> Tensor:
        alpha, sigma = path.alpha(times(t)), path.sigma(times(t))
        std = (alpha**2 * data.covariances[:, 0, 0] + sigma**2).sqrt()
        return torch.special.ndtr((x - alpha * data.means[:, 0]) / std) @ data.weights

    def flow(x: Tensor, t: float, s: float) -> Tensor:
        rank = cdf(x, t)
        low, high = torch.full_like(x, -20), torch.full_like(x, 20)
        for _ in range(60):
            middle = (low + high) / 2
            below = (cdf(middle, s) < rank)[:, None]
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    return flow


class Problem:
    """Points at the start of the span and where the exact flow takes them."""

    def __init__(self, oracle: Oracle, exact: Flow) -> None:
        self.oracle, self.exact = oracle, exact
        self.t, self.s = span(oracle.path)
        self.x = points(oracle.data, oracle.path, self.t)  # type: ignore[arg-type]
        self.end = exact(self.x, self.t, self.s)

    def walk(self, sampler: Sampler, steps: int) -> Tensor:
        """x at the end, the memory before the start filled from the exact flow."""
        h, early = (self.t - self.s) / steps, max(sampler.order - 1, sampler.past)
        grid = self.t + (early - torch.arange(early + steps + 1, dtype=torch.float64)) * h
        seeds = [self.exact(self.x, self.t, float(u)) for u in grid[:early]] + [self.x]
        state, denoise = sampler.init(seeds[0], grid[:1].expand(len(self.x))), Bound(self.oracle)
        for i, (s, c) in enumerate(zip(grid[1:], sampler.prepare(denoise.path, grid), strict=True), start=1):
            state = sampler.move(denoise, state, s.expand(len(self.x)), c, silent)
            state = state._replace(x=seeds[i]) if i <= early else state
        return state.x

    def slope(self, sampler: Sampler) -> float:
        """log2 of the fall of the mean error as the steps double."""
        counts = [n * (1 + sampler.past) for n in STEPS]
        coarse, narrow = (float((self.walk(sampler, n) - self.end).abs().mean()) for n in counts)
        return math.log2(coarse / narrow)


@cache
def problem(name: str, dim: int, solution: Callable[[Oracle], Flow]) -> Problem:
    """The problem on the path of that name."""
    oracle = mixture(dim).at(paths.make(name))
    return Problem(oracle, solution(oracle))


def slopes(subject: str, sampler: Sampler, dim: int, solution: Callable[[Oracle], Flow]) -> Iterator[Row]:
    """One row for each path."""
    for name in PATHS if not sampler.stochastic else ():
        yield near(f"{subject} on {name}", problem(name, dim, solution).slope(sampler), sampler.order, 0.15)


@theorem
def reference() -> Iterator[Row]:
    """The fine solution of the probability-flow ODE is the exact flow map F_s^-1(F_t(x)) in one dimension."""
    for name in PATHS:
        oracle = mixture(1).at(paths.make(name))
        yield at_most(name, error(Problem(oracle, fine(oracle)).end, Problem(oracle, quantiles(oracle)).end), 1e-9)


@trial
def order(subject: str, sampler: Sampler) -> Iterator[Row]:
    """Each deterministic sampler converges to the fine solution with its declared order."""
    yield from slopes(subject, sampler, 2, fine)


@trial
def order_to_the_exact_flow(subject: str, sampler: Sampler) -> Iterator[Row]:
    """The same in one dimension, where the flow map is known in closed form."""
    yield from slopes(subject, sampler, 1, quantiles)


def adapted(path: Path, pair: str, tolerance: float, n: int) -> tuple[Tensor, float]:
    """n samples of the mixture from noise to data at a tolerance, absolute and relative, and the calls of each."""
    settings = {"name": "adaptive", "pair": pair, "rtol": tolerance, "atol": tolerance, "low": 1e-5, "least": 1e-6}
    counted = Counted(mixture().at(path))
    x = sample(counted, n, sampler=samplers.registry.make(settings), steps=1, seed=1)
    return x, counted.calls / n


@cache
def finest(path: Path, n: int) -> Tensor:
    """The same samples at a tolerance of 1e-11."""
    return adapted(path, "dopri5", 1e-11, n)[0]


def strayed(pair: str, path: Path, tolerance: float, n: int = 64) -> tuple[float, float]:
    """The error of an adaptive run, in units of its tolerance, that three samples of four keep, and a sample's calls.

    The rest begin near a border between the data's parts, where the flow itself magnifies what is wrong by then.
    """
    x, calls = adapted(path, pair, tolerance, n)
    return float((x - finest(path, n)).square().mean(1).sqrt().quantile(0.75)) / tolerance, calls


@theorem
def tolerance() -> Iterator[Row]:
    """An adaptive sampler's error is its tolerance, within a factor of 5, over four decades."""
    for pair in ("dopri5", "bosh3"):
        for name in PATHS:
            for tolerance in TOLERANCES:
                ratio, calls = strayed(pair, paths.make(name), tolerance)
                subject = f"{pair} on {name} at {tolerance:g}, {calls:.0f} calls: log_5 error/tolerance"
                yield near(subject, math.log(ratio, 5), 0, 1)


@theorem
def inversion() -> Iterator[Row]:
    """Data to noise and back is the data: a step undone by its fixed point leaves the last step's error alone."""
    for name in PATHS:
        oracle = mixture().at(paths.make(name))
        x = oracle.data.sample(32, seed=5)
        for sampler in ("ddim", "heun", "rk4"):
            yield at_most(
                f"{sampler} on {name}", invert(oracle, x, sampler=sampler, steps=30, rounds=10).error.max(), 1e-4
            )
