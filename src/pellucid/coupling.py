r"""Couplings: which noise goes with which data. Every one has the same marginals; straighter ones are easier to follow.

    independent   eps is drawn for itself                                         (Ho et al. 2020)
    ot            within a batch, the permutation pi that makes  sum_i |x0_i - eps_pi(i)|^2  least
                                              (minibatch optimal transport: Pooladian et al. 2023; Tong et al. 2024)

Data that bring their own noise (reflow's pairs) keep it, whatever the coupling.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from .errors import PellucidError
from .registry import Registry
from .types import Batch

registry: "Registry[Coupling]" = Registry("coupling")


class Coupling(ABC):
    """A way of giving each of a batch's samples one of its noises."""

    registry: "ClassVar[Registry[Coupling]]" = registry

    @abstractmethod
    def couple(self, x0: Batch, eps: Batch) -> Batch:
        """The noises eps [b, *shape], each in its sample's place."""


@registry.register("independent", "none")
@dataclass(frozen=True)
class Independent(Coupling):
    """Each sample keeps the noise that was drawn for it."""

    def couple(self, x0: Batch, eps: Batch) -> Batch:
        return eps


@registry.register("ot", "optimal-transport", "minibatch-ot", "immiscible")
@dataclass(frozen=True)
class OT(Coupling):
    """The assignment of least squared distance within the batch, exactly, by scipy."""

    def couple(self, x0: Batch, eps: Batch) -> Batch:
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError:
            raise PellucidError("the coupling ot needs scipy; run pip install 'pellucid[demo]'.") from None
        cost = torch.cdist(x0.flatten(1).double(), eps.flatten(1).double()).square()
        _, columns = linear_sum_assignment(cost.cpu().numpy())
        return eps[torch.from_numpy(columns).to(eps.device)]
