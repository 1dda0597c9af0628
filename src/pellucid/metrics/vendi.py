"""The Vendi score: how many different samples there are, as an effective number (Friedman & Dieng 2023, eq. 2).

    V = exp(- sum_i l_i log l_i),    l the eigenvalues of K/n,    K_ij = f_i'f_j,  |f_i| = 1

1 where all are alike, n where all are at right angles. K/n has the eigenvalues of  R = sum_i f_i f_i'/n,  [d, d], and
the influence of a sample is  V (- f'(log R) f - log V).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import PellucidError
from .estimate import Figure, bootstrap
from .metric import Case, Metric, registry
from .moments import gram
from .sets import rows


class Diversity(NamedTuple):
    """V, and how each sample moves it."""

    score: float
    influence: Tensor  # [n]


def vendi(x: Tensor) -> Diversity:
    """V of features x [n, ...], seen by their directions."""
    f = rows(x)
    lengths = f.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise PellucidError("some features are all zero and have no direction; take other features.")
    f = f / lengths
    n, d = f.shape
    if d <= n:
        values, vectors = torch.linalg.eigh(gram(f) / n)
        weights = (f @ vectors).square()  # [n, d] what of each sample lies along each eigenvector
    else:
        values, vectors = torch.linalg.eigh(f @ f.T / n)
        weights = vectors.square() * values * n
    kept = values > 1e-12
    logs = values[kept].log()
    score = torch.exp(-(values[kept] * logs).sum()).item()
    return Diversity(score, score * (-weights[:, kept] @ logs))


@registry.register("vendi")
@dataclass(frozen=True)
class Vendi(Metric):
    """The diversity of the features, as an effective number of different samples."""

    better = "near"

    def __call__(self, case: Case) -> dict[str, Figure]:
        return {"vendi": bootstrap(*vendi(case.samples.features), seed=case.seed)}
