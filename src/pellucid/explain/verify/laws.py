"""Theorems of law: what a stochastic sampler draws tends to the data's own distribution as its steps grow.

For one Gaussian a step is affine in x and in its noise, so the law of a whole run is known without drawing: its
variance is the sum of the squares of what each unit of noise does to the end. For a mixture it is sampled.
"""

import itertools
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...noise import Draws, bridged, normal
from ...oracle import GaussianMixture
from ...paths import Path
from ...paths import registry as paths
from ...samplers import Sampler
from ...sampling import Scheme, sample, walk
from ...types import Bound, Times
from .orders import PATHS
from .theorem import Row, all_samplers, at_least, at_most, mixture, times, trial

STEPS = 16, 64
DRAWS = 10_000


class Bias(NamedTuple):
    """How far the law of a run is from the exact one: mean - exact mean, in units of the exact std; std/std - 1."""

    mean: float
    std: float


def bias(
    sampler: Sampler, path: Path, grid: Times, *, exact_start: bool = False, mean: float = 0.3, std: float = 0.5
) -> Bias:
    """The bias of a whole run on Gaussian data, N(mean, std^2): no chance in it.

    Run 0 is still; each other run has one unit of noise, at the start or in one draw of one step. Sampling starts, as
    it does in earnest, from sigma z, or from the exact law there.
    """
    data = GaussianMixture(times(1.0), times(mean)[:, None], times(std**2)[0])
    alpha, sigma = path.alpha(grid), path.sigma(grid)
    scale = torch.hypot(std * alpha, sigma)
    denoise, draws = Bound(data.at(path)), draws_of(sampler, path)
    runs = 2 + len(draws) * (len(grid) - 1)
    x = torch.zeros(runs, 1, dtype=torch.float64)
    x[1] = scale[0] if exact_start else sigma[0]

    def unit(seed: Any, index: Tensor, *_: Any) -> Draws:
        return lambda i, k: (index == 2 + i * len(draws) + draws.index(k)).double()[:, None]

    state = sampler.init(x + (mean * alpha[0] if exact_start else 0.0), grid[0].expand(runs))
    *_, state = walk(denoise, Scheme(sampler, grid, unit), state, 0, torch.arange(runs))
    spread = float((state.x[1:] - state.x[0]).norm())
    return Bias(float(state.x[0] - mean * alpha[-1]) / float(scale[-1]), spread / float(scale[-1]) - 1)


def draws_of(sampler: Sampler, path: Path) -> list[int]:
    """Which draws of noise a step may ask for: the first one, one in between, the last. A restart asks for draw 0."""
    grid = torch.cat([torch.ones(1), path.time(times(0.0, 0.1)), torch.zeros(1)])[:, None]
    asked, zero = {0}, torch.zeros(1, 1, dtype=torch.float64)
    denoise = Bound(GaussianMixture(times(1.0), times(0.0)[:, None], times(1.0)[0]).at(path))
    state = sampler.init(zero, grid[0])
    for s in grid[1:]:
        state = sampler.step(denoise, state, s, lambda draw: asked.add(draw) or zero)  # type: ignore[func-returns-value]
    return sorted(asked)


def middle(path: Path, steps: int) -> Times:
    """Equal steps of the path's time from lam = -2.5 to lam = 3."""
    t, s = path.time(times(-2.5, 3.0)).tolist()
    return torch.linspace(t, s, steps + 1, dtype=torch.float64)


def variance_bias(sampler: Sampler, path: Path, steps: int) -> float:
    """var(sampled)/var(exact) - 1 for Gaussian data, from an exact start at lam = -2.5 to lam = 3; no chance in it."""
    return (1 + bias(sampler, path, middle(path, steps), exact_start=True).std) ** 2 - 1


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


def weak_order(sampler: Sampler, path: Path, draws: int, steps: int = 24) -> Estimate:
    """The order in which a mixture's moments converge: log2 of d_1/d_2, d their change as the steps double.

    Runs of steps, 2 steps and 4 steps share their starts and their Brownian paths, so that the changes, and not the
    draws, carry the error. Of the features, the one that tells most: the smallest standard error.
    """
    data, index = mixture(), torch.arange(draws)
    eps, ends = normal(0, index, 0, data.shape, dtype=torch.float64), list[dict[str, Tensor]]()
    for n in (steps, 2 * steps, 4 * steps):
        grid = middle(path, n)
        start = path.mix(data.sample(draws), eps, grid[0].expand(draws))
        begin, scheme = sampler.init(start, grid[0].expand(draws)), Scheme(sampler, grid, bridged)
        *_, end = walk(Bound(data.at(path)), scheme, begin, 0, index)
        ends.append(features(data, end.x / path.alpha(grid[-1])))
    found = []
    for feature in ends[0]:
        first, second = (a[feature] - b[feature] for a, b in itertools.pairwise(ends))
        relative = [float((d.std() / d.mean()).abs()) / draws**0.5 for d in (first, second)]
        ratio = float((first.mean() / second.mean()).abs())
        found.append(Estimate(math.log2(ratio), math.hypot(*relative) / math.log(2)))
    return min(found, key=lambda estimate: estimate.error)


def weak_order_of_a_mixture() -> Iterator[Row]:
    """On a mixture moments converge with the declared weak order, within three standard errors: there are many rows."""
    for subject, sampler in all_samplers(stochastic=True).items():
        if sampler.weak:
            order, error = weak_order(sampler, paths.make("cosine"), 4000)
            yield at_least(f"{subject} (se {error:.2f})", order + 3 * error, sampler.weak - 0.15)


def promises(sampler: Sampler) -> bool:
    """Whether the law of what it draws tends to the exact one."""
    return sampler.stochastic and sampler.weak > 0


@trial
def rate(subject: str, sampler: Sampler) -> Iterator[Row]:
    """The variance's bias falls at least with the declared weak order, computed without chance on Gaussian data."""
    for name in PATHS if promises(sampler) else ():
        coarse, fine = (abs(variance_bias(sampler, paths.make(name), n)) for n in (80, 320))
        yield at_least(f"{subject} on {name}", math.log2(coarse / fine) / 2, sampler.weak - 0.15)
        yield at_most(f"{subject} on {name}, bias at 320 steps", fine, 0.05)


def features(data: GaussianMixture, x: Tensor) -> dict[str, Tensor]:
    """What is compared: location, spread and log density, a number for each sample."""
    centre = data.weights @ data.means
    return {
        "mean": (x - centre).sum(1),
        "square": ((x - centre) ** 2).sum(1),
        "log p": data.log_prob(x),
    }


def biases(sampler: Sampler, path: Path, steps: int, exact: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """(bias, its standard error) of each feature."""
    data = mixture()
    x = sample(data.at(path), DRAWS, sampler=sampler, steps=steps, batch=DRAWS, seed=steps)
    out = {}
    for name, drawn in features(data, x).items():
        true = exact[name]
        error = math.hypot(float(drawn.std()) / len(drawn) ** 0.5, float(true.std()) / len(true) ** 0.5)
        out[name] = float(drawn.mean() - true.mean()), error
    return out


@cache
def exact_features() -> dict[str, Tensor]:
    """Those of many exact samples."""
    return features(mixture(), mixture().sample(20 * DRAWS, seed=1))


def tends(subject: str, sampler: Sampler) -> Iterator[Row]:
    """One row for each feature: its bias at growing steps, and the bound on the last.

    At most half of the bias may be left when the steps are quadrupled: a first-order method leaves a quarter.
    """
    exact = exact_features()
    table = [biases(sampler, paths.make("cosine"), steps, exact) for steps in STEPS]
    for feature in exact:
        found = [row[feature] for row in table]
        (before, _), (last, error) = found[-2:]
        account = " ".join(f"{bias:+.3f}" for bias, _ in found)
        yield at_most(f"{subject}, {feature}: {account} (se {error:.3f})", abs(last), 3 * error + abs(before) / 2)


@trial
def law(subject: str, sampler: Sampler) -> Iterator[Row]:
    """On a mixture each stochastic sampler's moments tend to the exact ones: biases at 16 and 64 steps."""
    if promises(sampler):
        yield from tends(subject, sampler)
