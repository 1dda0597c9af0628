"""Density and coverage: precision and recall that a few outliers do not move (Naeem et al. 2020, eq. 4 and 5).

    density = 1/(k n) sum_i sum_j [ x_i in ball_j ],    coverage = mean_j [ some x_i in ball_j ],

ball_j about the data point y_j, as wide as the distance to its k-th nearest other. Of equal laws the density has mean
1, and the coverage of m data by n samples 1 - (m-1)...(m-k) / ((n+m-1)...(n+m-k)) (their lemma 2).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..registry import Count
from .estimate import POSITIVE, SHARES, Figure, halved, share
from .metric import Case, Metric, registry
from .precision import Distances, inside


def density(d: Distances, k: int) -> float:
    """How many balls a sample lies in, over k."""
    return (inside(d, k).double().sum(1).mean() / k).item()


def coverage(d: Distances, k: int) -> float:
    """The share of data in whose ball there is a sample."""
    return inside(d, k).any(0).double().mean().item()


def density_coverage(x: Tensor, y: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of samples x [n, ...] against data y [m, ...]; n, m > k."""
    d = Distances.of(x, y, k)
    return density(d, k), coverage(d, k)


def expected_coverage(n: int, m: int, k: int) -> float:
    """Of m data by n samples of the same law."""
    i = torch.arange(1, k + 1, dtype=torch.float64)
    return 1 - ((m - i) / (n + m - i)).prod().item()


Statistic = Callable[[Distances, int], float]
STATISTICS = {"density": (density, POSITIVE), "coverage": (coverage, SHARES)}
SIDES = {"density": 1, "coverage": 0}  # of which set it is hits


@registry.register("density-coverage", "dc")
@dataclass(frozen=True)
class DensityCoverage(Metric):
    """Density and coverage of the features, by balls up to the k-th neighbour."""

    better = "near"
    most = 5000

    k: Count = 5

    def __call__(self, case: Case) -> dict[str, Figure]:
        d = Distances.of(case.samples.features, case.real.features, 2 * self.k + 1)  # of halves too
        return {name: self._figure(d, name, case.seed) for name in STATISTICS}

    def _figure(self, d: Distances, name: str, seed: int) -> Figure:
        of, within = STATISTICS[name]
        found = halved(of(d, self.k), lambda i, j: of(d.take(i, j), self.k), *d.xy.shape, within=within, seed=seed)
        hits = share(inside(d, self.k).any(SIDES[name]))
        if name == "density":  # a hit is 1/k or more of it, and hits may have been missed
            hits = Figure(found.value, 0, found.low, hits.high / self.k)
        return found.spanning(hits)
