r"""What a sampler is, and the step that all of them share.

A first-order step is a re-mix of the pair at the new time, on every path (identity 4 of the design):

    x_s = alpha_s x0 + sigma_s (kappa eps + sqrt(1 - kappa^2) z)

kappa = 1 is DDIM = flow Euler = DPM-Solver-1. kappa = exp(-h), h = lam_s - lam_t, is the exact posterior
q(x_s | x_t, x0): ancestral DDPM.

A step has two halves: its coefficients, numbers that depend on times alone, and its move, which asks the network and
combines. For a batch on one grid the numbers of all steps are prepared at once.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..paths import Path
from ..registry import Registry
from ..types import Batch, Denoise, Denoised, Extent, Noise, State, Times, combine

registry: "Registry[Sampler]" = Registry("sampler")

Number = Any
"""A coefficient: float64 [b], one for each sample, or a float for all of them."""


class Sampler(ABC):
    """One step of one algorithm. `order` and `stochastic` are promises that the tests keep."""

    registry: "ClassVar[Registry[Sampler]]" = registry
    calls: int = 1  # of the network, each step; 0: as many as it takes
    order: int

    @property
    def stochastic(self) -> bool:
        """Whether a step draws noise."""
        return False

    @property
    def universal(self) -> bool:
        """Whether at equal lam it takes the same steps on every path."""
        return True

    @property
    def weak(self) -> int:
        """The order in which the law of what it draws tends to the exact one; 0: it does not, or slower than that."""
        return 1

    @property
    def past(self) -> int:
        """How many earlier steps a step looks back on."""
        return 0

    def of(self, extent: Extent) -> "Sampler":
        """The same for data of this extent; to most samplers all data is alike."""
        return self

    def init(self, x: Batch, t: Times) -> State:
        """The state in which sampling starts: x at times t, nothing remembered.

        What looks back remembers its earlier times first, newest first; where there was none stands -inf.
        """
        return State(x, t, unseen(x, t, self.past))

    def step(self, denoise: Denoise, state: State, s: Times, noise: Noise) -> State:
        """The state at times s < t."""
        past = torch.stack(state.memory[: self.past], -1) if self.past else state.t.new_empty(len(state.t), 0)
        return self.move(denoise, state, s, self.coefficients(denoise.path, state.t, s, past), noise)

    def prepare(self, path: Path, times: Times) -> list[tuple[float, ...]]:
        """The coefficients of every step of a grid, as floats."""
        seen = torch.cat([times.new_full((self.past,), -torch.inf), times[:-1]])
        past = seen.unfold(0, self.past + 1, 1).flip(-1)[:, 1:]
        columns = self.coefficients(Known(path), times[:-1], times[1:], past)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    @abstractmethod
    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        """The numbers of steps t -> s, elementwise; `past` [b, self.past] holds the times before t, newest first."""

    @abstractmethod
    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        """The state at times s, by the numbers `c`."""


class Known(Path):
    """A path that remembers what it said: the numbers of a grid ask the same of the same times many times over."""

    def __init__(self, path: Path) -> None:
        self.path, self.said = path, dict[tuple[str, int], tuple[Times, Any]]()

    def _once(self, what: str, times: Times) -> Any:
        key = what, id(times)  # which stay, so that nothing else has their number
        if key not in self.said:
            self.said[key] = times, getattr(self.path, what)(times)
        return self.said[key][1]

    def alpha(self, t: Times) -> Times:
        return self._once("alpha", t)

    def sigma(self, t: Times) -> Times:
        return self._once("sigma", t)

    def lam(self, t: Times) -> Times:
        return self._once("lam", t)

    def time(self, lam: Times) -> Times:
        return self._once("time", lam)

    def rates(self, t: Times) -> tuple[Times, Times]:
        return self._once("rates", t)


def unseen(x: Batch, t: Times, past: int) -> tuple[Tensor, ...]:
    """The memory of so many steps that never were: their times, and what was seen in them."""
    return *(torch.full_like(t, -torch.inf) for _ in range(past)), *(torch.zeros_like(x) for _ in range(past))


def remix(
    d: Denoised, signal: Number, kept: Number, fresh: Number, noise: Noise, *more: tuple[Number, Batch]
) -> Batch:
    """signal x0 + kept eps + fresh z + more; no noise is drawn where none is asked for."""
    if some(fresh):
        return combine((signal, d.x0), (kept, d.eps), (fresh, noise(0)), *more)
    return combine((signal, d.x0), (kept, d.eps), *more)


def silent(draw: int) -> Batch:
    """The noise of a deterministic sampler, which never asks for it."""
    raise AssertionError("a deterministic sampler drew noise")


def some(number: Number) -> bool:
    """Whether a coefficient is not zero, for any sample."""
    return number != 0 if isinstance(number, float) else bool(number.any())


def at(number: Number, t: Times) -> Times:
    """A time among the coefficients as one for each sample, like t."""
    return torch.full_like(t, number) if isinstance(number, float) else number


def finite(weight: Times) -> Times:
    """A weight, or 0 where the signal-to-noise ratio runs to infinity and the correction it multiplies vanishes."""
    return torch.nan_to_num(weight, nan=0.0, posinf=0.0, neginf=0.0)
