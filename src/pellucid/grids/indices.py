"""Grids of whole indices: the times of a schedule of n discrete steps, as diffusers and ComfyUI name them.

Index i, from 0, sits at t = (i + 1)/n. Where `skip` is 1, N + 1 indices are laid out, and the cleanest is not asked.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import PellucidError
from ..paths import Path
from ..registry import Count
from ..types import Times
from .base import Grid, registry


class _Indices(Grid):
    """Whole indices of a schedule of `n` discrete steps."""

    n: int
    skip: Literal[0, 1] = 0

    @abstractmethod
    def indices(self, steps: int) -> Tensor:
        """The falling indices."""

    def times(self, path: Path, steps: int) -> Times:
        if steps + self.skip > self.n:
            most = self.n - self.skip
            raise PellucidError(f"steps is {steps}, but the grid has {self.n} discrete times; take at most {most}.")
        return (self.indices(steps + self.skip)[:steps] + 1) / self.n


@registry.register("linspace", "normal")
@dataclass(frozen=True)
class Linspace(_Indices):
    """diffusers' timestep_spacing="linspace" in whole indices: both ends included, for DDIM, DDPM and PNDM.

    With skip = 1 it is that of the DPM-Solvers, DEIS, UniPC and SA-Solver. That of Euler, Heun, LMS and DPM2 does not
    round: uniform, from 1 to low = 1/n with skip = 0.
    """

    n: Count = 1000
    skip: Literal[0, 1] = 0

    def indices(self, steps: int) -> Tensor:
        stride = (self.n - 1) / max(steps - 1, 1)  # as numpy has it, so that halves round as they do there
        return (torch.arange(steps, dtype=torch.float64) * stride).round().flip(0)


@registry.register("leading")
@dataclass(frozen=True)
class Leading(_Indices):
    """diffusers' timestep_spacing="leading": i (n // N) + offset. It does not start at the noisy end.

    With skip = 1, N + 1 in the place of N, it is that of the DPM-Solvers, DEIS, UniPC and SA-Solver.
    """

    n: Count = 1000
    offset: int = 0
    skip: Literal[0, 1] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= self.n:
            raise PellucidError(f"offset is {self.offset}; expected a number of indices, from 0 to {self.n}.")

    def indices(self, steps: int) -> Tensor:
        return (torch.arange(steps, dtype=torch.float64) * (self.n // steps)).flip(0) + self.offset


registry.preset("ddim-uniform", Leading(offset=1), "ddim_uniform", "ddim uniform")


@registry.register("trailing")
@dataclass(frozen=True)
class Trailing(_Indices):
    """diffusers' timestep_spacing="trailing": n - i n/N, rounded, starting at the noisy end."""

    n: Count = 1000

    def indices(self, steps: int) -> Tensor:
        stride = (self.n - self.n / steps) - self.n  # the step that numpy's arange takes, rounding and all
        return (self.n + torch.arange(steps, dtype=torch.float64) * stride).round() - 1


@registry.register("distilled")
@dataclass(frozen=True)
class Distilled(_Indices):
    """N of the `known` indices for which a model was distilled, from the noisiest: LCM and TCD (Luo et al. 2023)."""

    n: Count = 1000
    known: Count = 50

    def __post_init__(self) -> None:
        if self.known > self.n:
            raise PellucidError(f"known is {self.known}; expected at most the {self.n} indices that there are.")

    def indices(self, steps: int) -> Tensor:
        if steps > self.known:
            raise PellucidError(f"steps is {steps}, but the model was distilled for {self.known}; take at most those.")
        chosen = (torch.arange(steps, dtype=torch.float64) * self.known / steps).floor()
        return (self.known - chosen) * (self.n // self.known) - 1
