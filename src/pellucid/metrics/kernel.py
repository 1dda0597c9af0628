"""The maximum mean discrepancy: how far apart two laws are in the eyes of a kernel k (Gretton et al. 2012, eq. 3).

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j)

without bias, so about 0, of either sign, where the laws are equal. The influence of x_i is
2 (mean_j k(x_i, x_j) - mean_j k(x_i, y_j)) about its mean. The kernels:

    polynomial   (x'y/d + 1)^3: of Inception features this is the KID (Binkowski et al. 2018, sec. 4)
    gaussian     exp(-|x - y|^2/(2 s^2)), s the median distance within the real data, so that all models meet one kernel

Kernels are computed in blocks: memory grows with n, not n^2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import PellucidError
from .estimate import Figure, bootstrap
from .metric import Case, Metric, registry
from .sets import both, distances, rows, spaced

BLOCK = 1024
MEDIAN_OF = 2000  # samples

Kernel = Callable[[Tensor, Tensor], Tensor]
"""x [n, d], y [m, d] to k(x_i, y_j), [n, m]."""


class Discrepancy(NamedTuple):
    """MMD^2, and how each sample of either set moves it."""

    squared: float
    x: Tensor  # [n]
    y: Tensor  # [m]


def mmd(x: Tensor, y: Tensor, kernel: Kernel) -> Discrepancy:
    """MMD^2 of samples x [n, ...] and y [m, ...]; n, m > 1."""
    x, y = both(x, y)
    xx, yy = _within(x, kernel), _within(y, kernel)
    blocks = [kernel(part, y) for part in x.split(BLOCK)]
    xy, yx = torch.cat([block.mean(1) for block in blocks]), sum(block.sum(0) for block in blocks) / len(x)
    squared = (xx.mean() + yy.mean() - 2 * xy.mean()).item()
    return Discrepancy(squared, 2 * (xx - xy), 2 * (yy - yx))


def _within(x: Tensor, kernel: Kernel) -> Tensor:
    """[n] the mean of k(x_i, x_j) over the others j."""
    means = []
    for low in range(0, len(x), BLOCK):
        block = kernel(x[low : low + BLOCK], x)
        means.append((block.sum(1) - block.diagonal(low)) / (len(x) - 1))
    return torch.cat(means)


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(x'y/d + 1)^3."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(data: Tensor) -> Kernel:
    """The Gaussian kernel whose width is the median distance within `data` [m, ...]."""
    points = rows(data)
    median = torch.pdist(points[spaced(len(points), MEDIAN_OF)]).median()
    if not median > 0:
        raise PellucidError("half of the real data or more are equal, so that the kernel has no width; take others.")
    return lambda x, y: torch.exp(-distances(x, y).square() / (2 * median**2))


def kid(x: Tensor, y: Tensor) -> float:
    """The polynomial kernel's MMD^2 of features x [n, ...] and y [m, ...]."""
    return mmd(x, y, polynomial).squared


@registry.register("kid")
@dataclass(frozen=True)
class KID(Metric):
    """The kernel distance of the features: MMD^2 with the polynomial kernel, without bias at any number of samples."""

    better = "less"
    most = 10_000

    def __call__(self, case: Case) -> dict[str, Figure]:
        found = mmd(case.samples.features, case.real.features, polynomial)
        return {"kid": bootstrap(*found, seed=case.seed)}


@registry.register("mmd")
@dataclass(frozen=True)
class MMD(Metric):
    """MMD^2 of the features with a Gaussian kernel as wide as the real data's median distance."""

    better = "less"
    most = 10_000

    def __call__(self, case: Case) -> dict[str, Figure]:
        found = mmd(case.samples.features, case.real.features, gaussian(case.real.features))
        return {"mmd": bootstrap(*found, seed=case.seed)}
