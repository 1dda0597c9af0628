r"""Moving averages of a model's weights: the ones that are sampled.

    ema <- ema + (1 - d_n)(theta - ema),    n = 0, 1, 2 ... updates so far

    warm     d_n = min(decay, (1 + n)/(10 + n))                                    (Song et al. 2021, app. H.1)
    fixed    d_n = decay
    power    d_n = (n/(n + 1))^(gamma + 1)                                         (Karras et al. 2024, eq. 5)

The warm-up lets an average forget where it started: d_0 = 0.1, and a decay of 0.999 is reached after 9000 updates.
A power average forgets it at once, d_0 = 0. After t updates the weights of update k have the share
(k/t)^(gamma + 1) - ((k - 1)/t)^(gamma + 1), about (gamma + 1) (k/t)^gamma / t: at any time it looks back over the same
part of the run. That part is its length, the standard deviation of k/t under these shares (eq. 6):

    sigma_rel = sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3))
"""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PellucidError
from ..registry import Registry, Rule
from ..world import placed

Decay = Annotated[float, Rule("a decay from 0 (none) to below 1, such as 0.999", lambda value: 0 <= value < 1)]
LONGEST = 1 / math.sqrt(12)  # gamma = 0: the plain mean
Length = Annotated[float, Rule("a share of the run from 0.001 to 0.288, such as 0.05", lambda v: 0.001 <= v < LONGEST)]


class Average(ABC):
    """What is kept of an average at each update. To add one, write a frozen dataclass and register it."""

    @abstractmethod
    def kept(self, n: int) -> float:
        """d_n, after n updates."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name in a checkpoint."""


registry: "Registry[Average]" = Registry("average")


@registry.register("warm", "ema")
@dataclass(frozen=True)
class Warm(Average):
    """A decay that rises to `decay`."""

    decay: Decay = 0.9999

    def kept(self, n: int) -> float:
        return min(self.decay, (1 + n) / (10 + n))

    @property
    def label(self) -> str:
        return f"warm-{self.decay}"


@registry.register("fixed", "constant")
@dataclass(frozen=True)
class Fixed(Average):
    """One decay from the first update on."""

    decay: Decay = 0.9999

    def kept(self, n: int) -> float:
        return self.decay

    @property
    def label(self) -> str:
        return f"fixed-{self.decay}"


@registry.register("power", "karras")
@dataclass(frozen=True)
class Power(Average):
    """A memory that grows with the run, and is always the share `length` of it: sigma_rel."""

    length: Length = 0.05

    def kept(self, n: int) -> float:
        return float((n / (n + 1)) ** (gamma(self.length) + 1))

    @property
    def label(self) -> str:
        return f"power-{self.length}"


@lru_cache
def gamma(length: float) -> float:
    """The exponent of a length: the largest root of sigma^2 (gamma + 2)^2 (gamma + 3) = gamma + 1."""
    square = length**-2
    return float(np.roots([1, 7, 16 - square, 12 - square]).real.max())


class EMA:
    """Averages of every tensor of `module`: parameters averaged, buffers as they are.

    averages    the first is the one to sample; a number stands for the warm average of that decay
    """

    def __init__(self, module: nn.Module, *averages: Average | float) -> None:
        self.averages = [Warm(a) if isinstance(a, int | float) else a for a in averages or (Warm(),)]
        self.names = ["ema", *(f"ema-{average.label}" for average in self.averages[1:])]
        if len({average.label for average in self.averages}) < len(self.averages):
            raise PellucidError(f"ema has two alike in {[a.label for a in self.averages]}; leave one out.")
        self.updates = 0
        own = module.state_dict()
        self.learnt = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        self.tensors = [{name: value.detach().clone() for name, value in own.items()} for _ in self.names]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move each average a step towards the weights of `module`."""
        own = module.state_dict()
        learnt = [own.pop(name) for name in self.learnt]
        for average, tensors in zip(self.averages, self.tensors, strict=True):
            torch._foreach_lerp_([tensors[name] for name in self.learnt], learnt, 1 - average.kept(self.updates))
            for name, value in own.items():  # buffers
                tensors[name].copy_(value)
        self.updates += 1

    @contextlib.contextmanager
    def applied(self, module: nn.Module, name: str = "ema") -> Iterator[None]:
        """Inside, `module` has the averaged weights of that name; after, its own again."""
        own = {name: value.detach().clone() for name, value in module.state_dict().items()}
        try:
            module.load_state_dict(self.groups()[name])
            yield
        finally:
            module.load_state_dict(own)

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """Every average by its name, as a state dict of the module itself: groups of a checkpoint."""
        return dict(zip(self.names, self.tensors, strict=True))

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], updates: int) -> None:
        """Take averages from the groups of a checkpoint, and the number of updates that made them."""
        for name, tensors in self.groups().items():
            if name not in groups:
                raise PellucidError(f"the checkpoint has no average {name}; train with those that it has, or anew.")
            for key, value in tensors.items():
                value.copy_(placed(groups[name][key], value))
        self.updates = updates
