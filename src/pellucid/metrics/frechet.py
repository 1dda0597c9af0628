"""The Frechet distance: how far apart two sets of features are, each seen as a Gaussian (Dowson & Landau 1982).

    d = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)

This is the squared Wasserstein-2 distance of the two Gaussians. C1 C2 has the eigenvalues of the symmetric
S C2 S with S = C1^(1/2), so its root needs no root of an unsymmetric matrix, and singular covariances (fewer samples
than features) are no special case. Of Inception features it is the FID (Heusel et al. 2017, eq. 6).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """All that the distance sees of a set of features."""

    mean: Tensor  # [d]
    covariance: Tensor  # [d, d]


def moments(features: Tensor) -> Moments:
    """Mean and unbiased covariance of features [n, ...], n > 1, flattened to [n, d]; float64."""
    features = features.flatten(1).double()
    return Moments(features.mean(0), features.T.cov())


def frechet_distance(a: Moments, b: Moments) -> float:
    """d, in squared units of the features; 0 for equal moments."""
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt()  # root root' = C1: as good as S, for S = root times a rotation
    product = torch.linalg.eigvalsh(root.T @ b.covariance @ root)
    traces = a.covariance.trace() + b.covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
    return ((a.mean - b.mean).square().sum() + traces).item()
