"""What every distance between two sets asks of them: numbers, in rows of one length, and enough of them."""

import torch
from torch import Tensor

from ..errors import PellucidError

NEAR = 1e-6  # of the largest norm: cdist takes a root of a difference of squares


def rows(x: Tensor) -> Tensor:
    """Samples x [n, ...] as rows, float64 [n, d] on the CPU."""
    return x.reshape(len(x), -1).double().cpu()


def spaced(n: int, most: int) -> Tensor:
    """Places of `most` of n samples, or of all, evenly spaced: of sorted ones every class has its share."""
    m = min(n, most)
    return (2 * torch.arange(m) + 1) * n // (2 * m)  # in whole numbers: exact


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Distances of x [n, d] to y [m, d], [n, m]; what lies nearer than rounding can tell lies at 0."""
    middle = y.mean(0)
    x, y = x - middle, y - middle
    found = torch.cdist(x, y)
    return found.where(found > NEAR * torch.maximum(x.norm(dim=1).max(), y.norm(dim=1).max()), 0)


def both(x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """The rows of two sets x [n, ...] and y [m, ...]; a set that has no distance to the other is refused."""
    for one in (x, y):
        if len(one) < least:
            what = "sample" if len(one) == 1 else "samples"
            raise PellucidError(f"a set has {len(one)} {what}; expected {least} or more: draw or read more of them.")
    if x.shape[1:] != y.shape[1:]:
        shapes = f"{list(x.shape[1:])} and {list(y.shape[1:])}"
        raise PellucidError(f"the samples of the two sets have the shapes {shapes}; expected one shape.")
    x, y = rows(x), rows(y)
    for one in (x, y):
        if not bool(torch.isfinite(one).all()):
            bad = int((~torch.isfinite(one).all(1)).sum())
            raise PellucidError(f"{bad} of {len(one)} samples are not finite numbers; leave them out.")
    return x, y
