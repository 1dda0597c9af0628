"""Theorems of law: what a stochastic sampler draws tends to the data's own distribution as its steps grow.

For one Gaussian a step is affine in x and in its noise, so the law of a whole run is known without drawing: its
variance is the sum of the squares of what each unit of noise does to the end. For a mixture it is sampled.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...oracle import GaussianMixture
from ...paths import Path
from ...paths import registry as paths
from ...samplers import Sampler
from ...sampling import sample
from ...types import Bound
from .orders import PATHS
from .theorem import Row, all_samplers, at_least, at_most, mixture, theorem, times

STEPS = 16, 64, 256
DRAWS = 10_000


def variance_bias(sampler: Sampler, path: Path, steps: int) -> float:
    """var(sampled)/var(exact) - 1 for Gaussian data, from an exact start at lam = -2.5 to lam = 3; no chance in it."""
    data = GaussianMixture(times(1.0), times(0.3)[:, None], times(0.25)[0])
    t, s = path.time(times(-2.5, 3.0)).tolist()
    grid = [u.expand(steps + 2) for u in torch.linspace(t, s, steps + 1, dtype=torch.float64)]
    scale = lambda t: (0.25 * path.alpha(t) ** 2 + path.sigma(t) ** 2).sqrt()  # noqa: E731
    units = torch.eye(steps + 1, dtype=torch.float64)
    kicks = torch.cat([torch.zeros(1, steps + 1, dtype=torch.float64), units])  # run 0 is still, run k has noise k
    state = sampler.init((0.3 * path.alpha(grid[0]) + scale(grid[0]) * kicks[:, 0])[:, None], grid[0])
    for i, s in enumerate(grid[1:], start=1):
        state = sampler.step(Bound(data.at(path)), state, s, lambda draw, i=i: kicks[:, i : i + 1])  # type: ignore[misc]
    return float(((state.x[1:] - state.x[0]) ** 2).sum() / scale(grid[-1])[0] ** 2 - 1)


@theorem
def rate() -> Iterator[Row]:
    """The variance's bias falls at least with first order, computed without chance on Gaussian data."""
    for name in PATHS:
        for subject, sampler in all_samplers(stochastic=True).items():
            coarse, fine = (abs(variance_bias(sampler, paths.make(name), n)) for n in (80, 320))
            yield at_least(f"{subject} on {name}", math.log2(coarse / fine) / 2, 0.85)
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


def tends(subject: str, sampler: Sampler, exact: dict[str, Tensor]) -> Iterator[Row]:
    """One row for each feature: its bias at growing steps, and the bound on the last.

    At most half of the bias may be left when the steps are quadrupled: a first-order method leaves a quarter.
    """
    table = [biases(sampler, paths.make("cosine"), steps, exact) for steps in STEPS]
    for feature in exact:
        found = [row[feature] for row in table]
        (before, _), (last, error) = found[-2:]
        account = " ".join(f"{bias:+.3f}" for bias, _ in found)
        yield at_most(f"{subject}, {feature}: {account} (se {error:.3f})", abs(last), 3 * error + abs(before) / 2)


@theorem
def law() -> Iterator[Row]:
    """On a mixture each stochastic sampler's moments tend to the exact ones: biases at 16, 64 and 256 steps."""
    exact = features(mixture(), mixture().sample(20 * DRAWS, seed=1))
    for subject, sampler in all_samplers(stochastic=True).items():
        yield from tends(subject, sampler, exact)
