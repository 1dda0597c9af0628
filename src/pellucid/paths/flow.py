"""The straight path: alpha = 1 - t, sigma = t."""

from dataclasses import dataclass

import torch

from ..types import Times
from .base import Path, registry


@registry.register("flow", "rectified-flow", "conditional-ot", "linear-interpolant")
@dataclass(frozen=True)
class Flow(Path):
    """alpha = 1 - t, sigma = t: straight lines (Liu et al. 2022; Lipman et al. 2022, eq. 20 with sigma_min = 0)."""

    def alpha(self, t: Times) -> Times:
        return 1 - t

    def sigma(self, t: Times) -> Times:
        return t

    def time(self, lam: Times) -> Times:
        return torch.sigmoid(-lam)

    def rates(self, t: Times) -> tuple[Times, Times]:
        return -torch.ones_like(t), torch.ones_like(t)
