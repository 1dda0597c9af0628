"""The divergence of a field: the trace of its Jacobian J, exactly or by probes.

    div f = sum_i e_i' J e_i                    exact: as many products as dimensions
    div f = E v' J v,   E v v' = I              Hutchinson (1989): without bias by any number of probes v

Signs (Rademacher) have the least variance of all probes with independent entries: 2 sum_(i != j) of the squares of the
symmetric part of J. Normal probes add 2 sum_i J_ii^2.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..errors import PellucidError
from ..noise import PROBE, normal, words
from ..registry import Count, Registry
from ..types import Batch

registry: "Registry[Divergence]" = Registry("divergence")


class Divergence(ABC):
    """Which vectors are multiplied from both sides, and what becomes of the products."""

    registry: "ClassVar[Registry[Divergence]]" = registry

    @abstractmethod
    def vectors(self, dims: int, seed: int, index: Tensor, step: int) -> Tensor:
        """[k, b, dims] the vectors for samples number `index` [b]; float64."""

    @abstractmethod
    def fold(self, products: Tensor) -> Tensor:
        """[b, rounds] estimates from the k products [b, k]."""


@registry.register("exact")
@dataclass(frozen=True)
class Exact(Divergence):
    """The trace, dimension by dimension."""

    def vectors(self, dims: int, seed: int, index: Tensor, step: int) -> Tensor:
        return torch.eye(dims, dtype=torch.float64)[:, None].expand(dims, len(index), dims)

    def fold(self, products: Tensor) -> Tensor:
        return products.sum(1, keepdim=True)


@registry.register("hutchinson", "skilling-hutchinson")
@dataclass(frozen=True)
class Hutchinson(Divergence):
    """`probes` probes for each sample, the same all the way; each is an estimate of its own."""

    probes: Count = 1
    law: Literal["rademacher", "normal"] = "rademacher"

    def __post_init__(self) -> None:
        if self.law not in ("rademacher", "normal"):
            raise PellucidError(f"the law of the probes is {self.law!r}; expected rademacher or normal.")

    def vectors(self, dims: int, seed: int, index: Tensor, step: int) -> Tensor:
        return torch.stack([self._probe(dims, seed, index, step * self.probes + j) for j in range(self.probes)])

    def _probe(self, dims: int, seed: int, index: Tensor, step: int) -> Tensor:
        if self.law == "normal":
            return normal(seed, index, step, (dims,), stream=PROBE, dtype=torch.float64)
        return 1.0 - 2 * (words(seed, index, step, PROBE, dims) & 1).double()

    def fold(self, products: Tensor) -> Tensor:
        return products


def products(f: Batch, x: Batch, v: Tensor, keep: bool) -> Tensor:
    """[b, k] v' J v at every sample: f [b, d] computed from x [b, d], v [k, b, d]. keep: to be differentiated again."""
    found = []
    for probe in v.to(f):  # one by one: whatever a network is made of, this it can
        (back,) = torch.autograd.grad(f, x, probe, retain_graph=True, create_graph=keep)
        found.append((back * probe).double().sum(1))
    return torch.stack(found, 1)
