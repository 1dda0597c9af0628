"""The Frechet distance of infinitely many samples (Chong & Forsyth 2020): FID without its dependence on n.

To first order in 1/n a distance of n samples is  d_n = d + c/n.  Both sets are cut into k parts each, k = 1 ... 4: the
mean distance of the parts, d + c k/n, is a line in k, and d is its height at k = 0. As every sample is in one part of
each cut, the slope is all that the cuts add to the influences: those of d are those of d_n.

Parts without full rank are far from the line, and of them nothing is said. Data that were divided class by class vary
less than by chance, which puts d below 0: read it beside its floor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .estimate import Figure, bootstrap
from .frechet import frechet, influence
from .metric import Case, Metric, registry
from .sets import both

CUTS = 4


def frechet_limit(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """d of the laws of features x [n, ...] and y [m, ...]; it may be below 0 by chance."""
    x, y = both(x, y, 2 * CUTS)
    rng = torch.Generator().manual_seed(seed)
    x, y = (part[torch.randperm(len(part), generator=rng)] for part in (x, y))
    k = torch.arange(1, CUTS + 1).double()
    means = [_mean(x, y, cut) for cut in range(1, CUTS + 1)]
    slope = ((k - k.mean()) * torch.tensor(means).double()).sum() / (k - k.mean()).square().sum()
    return (torch.tensor(means).double().mean() - slope * k.mean()).item()


def _mean(x: Tensor, y: Tensor, cut: int) -> float:
    parts = zip(x.tensor_split(cut), y.tensor_split(cut), strict=True)
    return sum(frechet(a, b) for a, b in parts) / cut


@registry.register("frechet-limit", "fd-infinity")
@dataclass(frozen=True)
class FrechetLimit(Metric):
    """The Frechet distance of the features, extrapolated to infinitely many samples."""

    better = "less"

    def __call__(self, case: Case) -> dict[str, Figure]:
        x, y = case.samples.features, case.real.features
        if min(len(x), len(y)) // CUTS <= x.shape[1]:
            return {}
        found = influence(x, y)
        return {"frechet_limit": bootstrap(frechet_limit(x, y, case.seed), found.x, found.y, seed=case.seed)}
