r"""Covariance: in how many directions data has how much variance, without writing it down.

With C the covariance and v a random direction, the quadratic form  v^T f(C) v  is an integral of f over the spectrum of
C, and m products with C know its Gauss quadrature: the nodes are the eigenvalues of Lanczos's tridiagonal T, the
weights the squares of their first components (Golub & Welsch 1969). The outermost eigenvalues come first.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .types import Spectrum

PRODUCTS, BANDS = 12, 12
NOTHING = 1e-7  # of the variance


def spectrum(product: Callable[[Tensor], Tensor], start: Tensor) -> Spectrum:
    """(std, share of the variance) of bands of directions, rising; `product` is v -> C v, [d, probes] to the same.

    `start` [d, probes] are random directions, float64.
    """
    values, vectors = torch.linalg.eigh(lanczos(product, start, min(PRODUCTS, len(start))))
    share = values.clamp(min=0) * vectors[:, 0] ** 2  # [probes, m]: how many directions, and the variance of each
    share = share / share.sum().clamp(min=1e-300)
    seen = share > NOTHING
    if not bool(seen.any()):
        return ()
    value, share = values[seen], share[seen]
    place = value.log() - value.log().min()
    band = (place / place.max().clamp(min=1e-6) * BANDS).long().clamp(max=BANDS - 1)
    total, mean = (torch.zeros(BANDS, dtype=share.dtype).index_add(0, band, part) for part in (share, share * value))
    return tuple(((m / w) ** 0.5, w) for m, w in zip(mean.tolist(), total.tolist(), strict=True) if w > 0)


def empirical(points: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> C v for the covariance of points [n, *shape]."""
    rows = points.flatten(1)
    rows = (rows - rows.mean(0)) / len(rows) ** 0.5
    return lambda v: rows.mT @ (rows @ v)


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
    """[probes, steps, steps] T of each probe; zeros from where its directions are exhausted."""
    basis, table = [start / start.norm(dim=0)], start.new_zeros(start.shape[1], steps, steps)
    for i in range(steps):
        w = product(basis[i])
        size = w.norm(dim=0)
        table[:, i, i] = (w * basis[i]).sum(0)
        for _ in range(2):  # once is not enough in floating point
            for v in basis:
                w = w - v * (v * w).sum(0)
        beside = torch.where(w.norm(dim=0) > 1e-10 * size, w.norm(dim=0), 0.0)
        if i + 1 < steps:
            table[:, i, i + 1] = table[:, i + 1, i] = beside
            basis.append(torch.where(beside > 0, w / beside.clamp(min=1e-300), 0.0))
    return table
