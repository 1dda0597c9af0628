"""Precision and recall: do the samples lie where data lie, and do data lie where samples lie?

    precision = mean_i [ x_i in the manifold of y ],    recall = mean_j [ y_j in the manifold of x ]

(Kynkaanniemi et al. 2019, eq. 1 to 3.) The manifold of y is the union of balls about the y_j, each as wide as the
distance to its k-th nearest other y. Real data score below 1 too: a ball is only as good as the data are dense.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..errors import PellucidError
from ..registry import Count
from .estimate import SHARES, Figure, halved, share
from .metric import Case, Metric, registry
from .sets import both, distances


class Distances(NamedTuple):
    """All distances between and within two sets."""

    xy: Tensor  # [n, m]
    xx: Tensor  # [n, n]
    yy: Tensor  # [m, m]

    @staticmethod
    def of(x: Tensor, y: Tensor, k: int) -> "Distances":
        """Of x [n, ...] and y [m, ...], each with more than k samples."""
        if k < 1:
            raise PellucidError(f"k is {k}; expected a neighbour's number, 1 or more.")
        x, y = both(x, y, k + 1)
        return Distances(distances(x, y), distances(x, x), distances(y, y))

    def take(self, i: Tensor, j: Tensor) -> "Distances":
        """Of the samples x at i and y at j."""
        return Distances(self.xy[i][:, j], self.xx[i][:, i], self.yy[j][:, j])

    def turned(self) -> "Distances":
        """The same of y and x."""
        return Distances(self.xy.T, self.yy, self.xx)


def radii(within: Tensor, k: int) -> Tensor:
    """[n] the distance of each sample to its k-th nearest other, from all distances within a set [n, n]."""
    return within.topk(k + 1, dim=1, largest=False).values[:, k]  # the nearest of all is the sample itself


def inside(d: Distances, k: int) -> Tensor:
    """[n, m] whether x_i lies in the ball about y_j."""
    return d.xy <= radii(d.yy, k)


def precision(d: Distances, k: int) -> float:
    """The share of x in the manifold of y."""
    return inside(d, k).any(1).double().mean().item()


def precision_recall(x: Tensor, y: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall of samples x [n, ...] against data y [m, ...]; n, m > k."""
    d = Distances.of(x, y, k)
    return precision(d, k), precision(d.turned(), k)


@registry.register("precision-recall", "pr")
@dataclass(frozen=True)
class PrecisionRecall(Metric):
    """Precision and recall of the features, by balls up to the k-th neighbour."""

    better = "more"
    most = 5000

    k: Count = 3

    def __call__(self, case: Case) -> dict[str, Figure]:
        d = Distances.of(case.samples.features, case.real.features, 2 * self.k + 1)  # of halves too
        sides = {"precision": d, "recall": d.turned()}
        return {name: self._estimate(side, case.seed) for name, side in sides.items()}

    def _estimate(self, d: Distances, seed: int) -> Figure:
        hits, of = share(inside(d, self.k).any(1)), lambda i, j: precision(d.take(i, j), self.k)
        return halved(hits.value, of, *d.xy.shape, within=SHARES, seed=seed).spanning(hits)
