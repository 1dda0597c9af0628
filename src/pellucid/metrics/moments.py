"""Mean and covariance, a part at a time: parts are counted alone and then merged (Chan, Golub & LeVeque 1979, eq. 2.1).

    m = (n_a m_a + n_b m_b)/n,    S = S_a + S_b + (n_a n_b/n) (m_b - m_a)(m_b - m_a)',    S = sum_i (x_i - m)(x_i - m)'

in float64, about the mean of each part, so that nothing cancels. Of each symmetric product half is computed.
"""

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .sets import rows

BLOCK = 256  # columns of a symmetric product that are computed together
PART = 8192  # samples counted together


class Moments(NamedTuple):
    """How many samples there were, their mean and their scatter about it."""

    n: int
    mean: Tensor  # [d], float64
    scatter: Tensor  # [d, d], float64

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, [d, d]; n > 1."""
        return self.scatter / (self.n - 1)

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both sets together."""
        n, apart = self.n + other.n, other.mean - self.mean
        between = torch.outer(apart, apart) * (self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), self.scatter + other.scatter + between)


def moments(features: Tensor | Iterable[Tensor]) -> Moments:
    """The moments of features [n, ...], flattened to [n, d], or of a stream of such parts."""
    parts = features.split(PART) if isinstance(features, Tensor) else features
    return reduce(Moments.merged, map(_moments, parts))


def _moments(part: Tensor) -> Moments:
    x = rows(part)
    mean = x.mean(0)
    return Moments(len(x), mean, gram(x - mean))


def gram(x: Tensor) -> Tensor:
    """x'x, [d, d], of x [n, d]."""
    product = x.new_empty(x.shape[1], x.shape[1])
    for low in range(0, x.shape[1], BLOCK):
        product[low:, low : low + BLOCK] = x[:, low:].T @ x[:, low : low + BLOCK]
    return product.tril() + product.tril(-1).T
