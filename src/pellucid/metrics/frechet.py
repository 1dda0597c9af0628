r"""The Frechet distance: how far apart two sets of features are, each seen as a Gaussian (Dowson & Landau 1982).

    d = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)

This is the squared Wasserstein-2 distance of the two Gaussians. With C1 = L L', the product C1 C2 has the eigenvalues
of the symmetric  M = L' C2 L = U s^2 U',  so its root needs no root of an unsymmetric matrix: tr (C1 C2)^(1/2) = sum s.
L is Cholesky's where C1 has full rank, else made of its eigenvectors, so singular covariances are no special case. With
fewer samples than features no covariance is formed: of centred rows X1, X2 the s are the singular values of X1 X2'.
Of Inception features d is the FID (Heusel et al. 2017, eq. 6).

The influence of a sample that lies at u from the mean m1 is the derivative of d in its weight,

    I(u) = 2 (m1 - m2)'u + u'u - tr C1 - (u'T u - tr T C1),    T = L'^-1 U s U' L^-1,    T C1 T = C2,

T the linear map that carries the first Gaussian to the second (Olkin & Pukelsheim 1982); for the other set it is
T^-1 = L U s^-1 U' L'. So the bootstrap costs one decomposition more, not a thousand. A finite set lies farther away
than its law: `frechet_limit` takes that off.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .estimate import POSITIVE, Figure, bootstrap
from .metric import Case, Metric, registry
from .moments import BLOCK, Moments, gram, moments
from .sets import both


def frechet_distance(a: Moments, b: Moments) -> float:
    """d between two sets that were streamed, in squared units of the features; 0 for equal moments."""
    s = _sqrt(torch.linalg.eigvalsh(_between(_root(a.covariance), b.covariance)))
    return _distance(a.mean - b.mean, a.covariance.trace() + b.covariance.trace(), s)


def frechet(x: Tensor, y: Tensor) -> float:
    """d between features x [n, ...] and y [m, ...]; n, m > 1."""
    x, y = both(x, y)
    if max(len(x), len(y)) > x.shape[1]:
        return frechet_distance(moments(x), moments(y))
    a, b = _scaled(x), _scaled(y)
    return _distance(x.mean(0) - y.mean(0), a.square().sum() + b.square().sum(), torch.linalg.svdvals(a @ b.T))


class Influence(NamedTuple):
    """The distance, and how each sample of either set moves it."""

    distance: float
    x: Tensor  # [n]
    y: Tensor  # [m]


def influence(x: Tensor, y: Tensor) -> Influence:
    """d between features x [n, ...] and y [m, ...], and I of every sample."""
    x, y = both(x, y)
    a, b, apart = _scaled(x), _scaled(y), x.mean(0) - y.mean(0)
    if max(len(x), len(y)) > x.shape[1]:
        s, there, back = _carried(a, b)
    else:
        left, s, right = torch.linalg.svd(a @ b.T, full_matrices=False)
        there, back = left.square() @ s, right.T.square() @ s
    ix = len(x) * (a.square().sum(1) - there) + 2 * (x - x.mean(0)) @ apart
    iy = len(y) * (b.square().sum(1) - back) - 2 * (y - y.mean(0)) @ apart
    traces = a.square().sum() + b.square().sum()
    return Influence(_distance(apart, traces, s), ix - ix.mean(), iy - iy.mean())


def _distance(apart: Tensor, traces: Tensor, s: Tensor) -> float:
    return max(0.0, (apart.square().sum() + traces - 2 * s.sum()).item())


def _scaled(x: Tensor) -> Tensor:
    """Centred rows a [n, d] with a'a the covariance of x."""
    return (x - x.mean(0)) / (len(x) - 1) ** 0.5


def _sqrt(values: Tensor) -> Tensor:
    """Roots of eigenvalues; those that are zero but for rounding are zero."""
    return values.where(values > len(values) * 2.3e-16 * values.max(), 0).sqrt() if len(values) else values


def _root(covariance: Tensor) -> Tensor:
    """L [d, r] with L L' the covariance: lower triangular where it has full rank d, else orthogonal columns."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return root
    values, vectors = torch.linalg.eigh(covariance)
    s = _sqrt(values)
    return (vectors * s)[:, s > 0]


def _between(root: Tensor, covariance: Tensor) -> Tensor:
    """The lower half of L' C L, [r, r], without the products that a triangular L makes zero."""
    d, r = root.shape
    out = root.new_zeros(r, r)
    for low in range(0, r, BLOCK):
        top = low if d == r else 0
        right = covariance[:, top:] @ root[top:, low : low + BLOCK]
        for row in range(low, r, BLOCK):
            top = row if d == r else 0
            out[row : row + BLOCK, low : low + BLOCK] = root[top:, row : row + BLOCK].T @ right[top:]
    return out


def _carried(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s [r], u'T u of the rows u of a, u'T^-1 u of those of b, for the covariances a'a and b'b."""
    root = _root(gram(a))
    values, vectors = torch.linalg.eigh(_between(root, gram(b)))
    s = _sqrt(values)
    u, s = vectors[:, s > 0], s[s > 0]
    if root.shape[0] == root.shape[1]:
        white = torch.linalg.solve_triangular(root, a.T, upper=False).T  # L^-1 u
    else:
        white = a @ (root / root.square().sum(0))
    return s, (white @ u).square() @ s, (b @ (root @ u)).square() @ (1 / s)


@registry.register("frechet", "fd")
@dataclass(frozen=True)
class Frechet(Metric):
    """The Frechet distance of the features, at these numbers of samples."""

    better = "less"

    def __call__(self, case: Case) -> dict[str, Figure]:
        found = influence(case.samples.features, case.real.features)
        return {"frechet": bootstrap(*found, within=POSITIVE, seed=case.seed)}
