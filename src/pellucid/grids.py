"""Grids: the times at which a sampler asks the network.

A grid turns a path and a number of steps N into N + 1 strictly falling times, the last one 0 (clean data). The
network is called at the first N. Where a rule is stated in sigma it means sigma/alpha = exp(-lam), as in k-diffusion.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .errors import PellucidError
from .paths import Path
from .registry import Count, Positive, Registry
from .types import Times

registry: "Registry[Grid]" = Registry("grid")


class Grid(ABC):
    """N + 1 falling times for a path."""

    registry: "ClassVar[Registry[Grid]]" = registry
    rises: ClassVar[bool] = False  # whether it goes back up on its way

    def __call__(self, path: Path, steps: int) -> Times:
        """float64 [steps + 1] (more where the grid rises), strictly falling, ending at 0."""
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise PellucidError(f"steps is {steps!r}; expected a whole number, 1 or more.")
        times = torch.cat([self.times(path, steps), torch.zeros(1, dtype=torch.float64)])
        if not bool((times.isfinite() & (times >= 0) & (times <= 1)).all()):
            raise PellucidError(f"{steps} steps of this grid leave the times from 0 to 1; change its options.")
        if not self.rises and not bool((times.diff() < 0).all()):
            raise PellucidError(f"{steps} steps do not fit this grid: its times would repeat; take fewer steps.")
        return times

    @abstractmethod
    def times(self, path: Path, steps: int) -> Times:
        """The N times at which the network is called."""


@registry.register("uniform", "linear", "simple")
@dataclass(frozen=True)
class Uniform(Grid):
    """t = 1, 1 - 1/N, ..., 1/N. On a table of N' steps this is diffusers' `trailing` without its rounding."""

    def times(self, path: Path, steps: int) -> Times:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]


def _falling(low: float, high: float) -> None:
    if not low < high:
        raise PellucidError(f"sigma_min is {low} and sigma_max {high}; expected the first to be the smaller one.")


def _between(path: Path, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The limits of sigma/alpha, no noisier than the path's end."""
    end = torch.exp(-path.lam(torch.ones((), dtype=torch.float64)))
    top = end.clamp(max=high)
    return torch.minimum(torch.tensor(low, dtype=torch.float64), top / 2), top


def _at(path: Path, sigmas: Tensor) -> Times:
    times = path.time(-sigmas.log())
    return torch.cat([torch.ones(1, dtype=torch.float64), times[1:]])  # the first call is at the path's end


@registry.register("karras")
@dataclass(frozen=True)
class Karras(Grid):
    """sigma = (hi^(1/rho) + i/(N-1) (lo^(1/rho) - hi^(1/rho)))^rho, then 0 (Karras et al. 2022, eq. 5).

    hi is the path's own largest sigma/alpha, or `sigma_max` where that is larger or infinite.
    """

    rho: Positive = 7.0
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0

    def __post_init__(self) -> None:
        _falling(self.sigma_min, self.sigma_max)

    def times(self, path: Path, steps: int) -> Times:
        low, high = (sigma ** (1 / self.rho) for sigma in _between(path, self.sigma_min, self.sigma_max))
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        return _at(path, (high + ramp * (low - high)) ** self.rho)


@registry.register("lam", "exponential", "logsnr", "lambdas")
@dataclass(frozen=True)
class Lam(Grid):
    """Equal steps in lam = log(alpha/sigma), then 0 (Lu et al. 2022, section 3.4)."""

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0

    def __post_init__(self) -> None:
        _falling(self.sigma_min, self.sigma_max)

    def times(self, path: Path, steps: int) -> Times:
        low, high = (sigma.log() for sigma in _between(path, self.sigma_min, self.sigma_max))
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        return _at(path, torch.exp(high + ramp * (low - high)))


@registry.register("restart")
@dataclass(frozen=True)
class Restart(Grid):
    """`base`, but what lies in low <= sigma/alpha <= high is walked `repeats` times more, each from fresh noise.

    Restart sampling (Xu et al. 2023, algorithm 1): going up forgets the errors made so far, going down again makes only
    its own. `steps` counts those of the base.
    """

    base: Grid = Karras()
    low: float = 0.06
    high: float = 0.3
    repeats: Count = 2
    rises: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high or self.base.rises:
            raise PellucidError(
                f"low is {self.low}, high {self.high}, base {type(self.base).__name__}; "
                "expected 0 < low < high, and a base that falls."
            )

    def times(self, path: Path, steps: int) -> Times:
        times = self.base(path, steps)[:-1]
        sigmas = torch.exp(-path.lam(times))
        again = (sigmas >= self.low) & (sigmas <= self.high)
        if int(again.sum()) < 2:
            return times  # nothing to walk again
        return torch.cat([times[sigmas >= self.low], *[times[again]] * self.repeats, times[sigmas < self.low]])


class _Indices(Grid):
    """Whole indices of a schedule of `n` discrete steps, as diffusers names them; index i sits at t = (i + 1)/n."""

    n: int

    @abstractmethod
    def indices(self, steps: int) -> Tensor:
        """The falling indices."""

    def times(self, path: Path, steps: int) -> Times:
        if steps > self.n:
            raise PellucidError(f"steps is {steps}, but the grid has {self.n} discrete times; take at most {self.n}.")
        return (self.indices(steps) + 1) / self.n


@registry.register("linspace")
@dataclass(frozen=True)
class Linspace(_Indices):
    """diffusers' timestep_spacing="linspace": both ends included."""

    n: Count = 1000

    def indices(self, steps: int) -> Tensor:
        stride = (self.n - 1) / max(steps - 1, 1)  # as numpy has it, so that halves round as they do there
        return (torch.arange(steps, dtype=torch.float64) * stride).round().flip(0)


@registry.register("leading")
@dataclass(frozen=True)
class Leading(_Indices):
    """diffusers' timestep_spacing="leading": i (n // N) + offset. It does not start at the noisy end."""

    n: Count = 1000
    offset: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= self.n:
            raise PellucidError(f"offset is {self.offset}; expected a number of indices, from 0 to {self.n}.")

    def indices(self, steps: int) -> Tensor:
        return (torch.arange(steps, dtype=torch.float64) * (self.n // steps)).flip(0) + self.offset


@registry.register("trailing")
@dataclass(frozen=True)
class Trailing(_Indices):
    """diffusers' timestep_spacing="trailing": n - i n/N, rounded, starting at the noisy end."""

    n: Count = 1000

    def indices(self, steps: int) -> Tensor:
        stride = (self.n - self.n / steps) - self.n  # the step that numpy's arange takes, rounding and all
        return (self.n + torch.arange(steps, dtype=torch.float64) * stride).round() - 1
