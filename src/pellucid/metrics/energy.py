"""The energy distance: how far apart two samples are, by their distances alone (Szekely & Rizzo 2013, eq. 5).

    E(x, y) = 2 mean |x_i - y_j| - mean |x_i - x_j| - mean |y_i - y_j| = - a' D a,

where D holds the distances between all n + m points and a is 1/n on x, -1/m on y. It is never negative, and zero only
for equal samples. Where both samples are of one law, its mean over all ways to part the n + m points in two is
(1/n + 1/m) times the mean distance between two different points: no distance is judged without its `two_sample` test.
The influence of x_i is  2 (mean_j |x_i - y_j| - mean_j |x_i - x_j|)  about its mean.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .estimate import POSITIVE, Figure, bootstrap
from .kernel import mmd
from .metric import Case, Metric, registry
from .sets import both, distances


class TwoSample(NamedTuple):
    """An energy distance, and the chance of one at least as large if both samples were of one law."""

    distance: float
    p: float


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Energy distance of samples x [n, ...] and y [m, ...], in the units of the samples."""
    x, y = both(x, y, 1)
    return 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)


def two_sample(x: Tensor, y: Tensor, rounds: int = 999, seed: int = 0) -> TwoSample:
    """Permutation test of "x [n, ...] and y [m, ...] are of one law"; needs memory for (n + m)^2 distances.

    The observed parting counts among the `rounds` random ones, so that p is exact at any n (Phipson & Smyth 2010).
    """
    points = torch.cat(both(x, y, 1))
    distances = _distances(points, points)
    a = torch.cat([torch.ones(len(x)).double() / len(x), -torch.ones(len(y)).double() / len(y)])
    rng = torch.Generator().manual_seed(seed)
    shuffles = torch.stack([torch.arange(len(a)), *(torch.randperm(len(a), generator=rng) for _ in range(rounds))])
    signed = a[shuffles]  # [1 + rounds, n + m]
    energies = -((signed @ distances) * signed).sum(1)
    observed = energies[0]
    return TwoSample(observed.item(), (energies >= observed * (1 - 1e-12)).double().mean().item())


@registry.register("energy")
@dataclass(frozen=True)
class Energy(Metric):
    """The energy distance of the features."""

    better = "less"
    most = 10_000

    def __call__(self, case: Case) -> dict[str, Figure]:
        x, y = case.samples.features, case.real.features
        _, *influences = mmd(x, y, lambda a, b: -distances(a, b))
        return {"energy": bootstrap(energy_distance(x, y), *influences, within=POSITIVE, seed=case.seed)}


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")  # a point lies at exactly 0 from itself


def _mean_distance(x: Tensor, y: Tensor) -> float:
    return sum(_distances(part, y).sum().item() for part in x.split(1024)) / (len(x) * len(y))
