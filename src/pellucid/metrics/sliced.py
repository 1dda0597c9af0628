"""The sliced Wasserstein distance: how far samples must be carried, seen from many sides (Bonneel et al. 2015, sec. 3).

    SW^2 = mean over unit vectors u of  W^2(u'x, u'y),    W^2 = int_0^1 (F^-1(q) - G^-1(q))^2 dq

On a line the best plan keeps the order, so W needs no search: F^-1 and G^-1 are the sorted values, n and m steps of the
same height. The u come from a seed; every model meets the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import TIMES, normal
from .estimate import POSITIVE, Figure, halved
from .metric import Case, Metric, registry
from .sets import both

DIRECTIONS = 128


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """SW between samples x [n, ...] and y [m, ...], in their units."""
    x, y = both(x, y, 1)
    u = sides(x.shape[1], directions, seed)
    return wasserstein(x @ u, y @ u)


def sides(d: int, directions: int, seed: int) -> Tensor:
    """Unit vectors, [d, directions]."""
    u = normal(seed, torch.arange(directions), 0, (d,), stream=TIMES, dtype=torch.float64)
    return (u / u.norm(dim=1, keepdim=True)).T


def wasserstein(x: Tensor, y: Tensor) -> float:
    """The root of the mean, over k lines, of W^2 between x [n, k] and y [m, k]."""
    n, m = len(x), len(y)
    steps = torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]).unique()  # in 1/(n m), so exact
    i, j = steps[:-1] // m, steps[:-1] // n
    apart = x.sort(0).values[i] - y.sort(0).values[j]
    return (steps.diff().double() @ apart.square() / (n * m)).mean().sqrt().item()


@registry.register("sliced-wasserstein", "swd")
@dataclass(frozen=True)
class SlicedWasserstein(Metric):
    """The sliced Wasserstein-2 distance of the features."""

    better = "less"
    most = 10_000

    def __call__(self, case: Case) -> dict[str, Figure]:
        u = sides(case.real.features.shape[1], DIRECTIONS, case.seed)
        x, y = case.samples.features @ u, case.real.features @ u
        sizes, value = (len(x), len(y)), wasserstein(x, y)
        found = halved(value, lambda i, j: wasserstein(x[i], y[j]), *sizes, within=POSITIVE, seed=case.seed)
        return {"sliced_wasserstein": found}
