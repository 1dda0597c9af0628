"""The nouns that every room shares.

A noisy sample is  x_t = alpha(t) x0 + sigma(t) eps  with t in [0, 1], 0 = data, 1 = noise.
Shapes are data, not assumptions: `b` samples of any `shape` (pictures, series, points).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .paths import Path

Batch = Tensor
"""[b, *shape], the dtype and device of the network."""
Times = Tensor
"""[b], float64, on the CPU, one per sample: coefficients are exact and reading one never waits for a device."""
Cond = Mapping[str, Tensor]
"""Conditions by name; every tensor leads with b. `drop` (bool) marks the samples whose conditions are withheld."""


class Denoised(NamedTuple):
    """What a model believes of x_t: its clean part, its noise, and (where learned) the spread of the reverse step.

    Both halves are kept because eps recovered from x0 divides by sigma(t), which ruins float32 near t = 0.
    """

    x0: Batch
    eps: Batch
    spread: Batch | None = None


class State(NamedTuple):
    """Where a sampler stands: x at times t, and the tensors it remembers (each leading with b).

    Samples never look at each other, so states of strangers may be joined and parted at any step.
    """

    x: Batch
    t: Times
    memory: tuple[Tensor, ...] = ()

    @staticmethod
    def cat(states: "list[State]") -> "State":
        """Join states of one sampler into a single batch."""
        memory = tuple(torch.cat(parts) for parts in zip(*(s.memory for s in states), strict=True))
        return State(torch.cat([s.x for s in states]), torch.cat([s.t for s in states]), memory)

    def split(self, sizes: list[int]) -> "list[State]":
        """Part a batch into states of the given sizes."""
        memories = [m.split(sizes) for m in self.memory]
        parts = zip(self.x.split(sizes), self.t.split(sizes), strict=True)
        return [State(x, t, tuple(m[i] for m in memories)) for i, (x, t) in enumerate(parts)]


class Context(NamedTuple):
    """What a network hears beside x and its clock: a vector, a sequence of tokens, extra input channels."""

    vec: Tensor | None = None  # [b, d]
    tokens: Tensor | None = None  # [b, n, d]
    channels: Tensor | None = None  # [b, c, *spatial]


Spectrum = tuple[tuple[float, float], ...]
"""(std, share of the variance) of bands of directions, rising in std; empty where it is not known."""


class Extent(NamedTuple):
    """How far data reaches: its std, how many numbers make a sample, and where it is known its spectrum."""

    std: float = 1.0
    size: int = 1
    spectrum: Spectrum = ()

    @property
    def bands(self) -> Spectrum:
        """The spectrum; one band of all directions where it is not known."""
        return self.spectrum or ((self.std, 1.0),)

    @property
    def width(self) -> float:
        """The std of its widest direction, no less than std; unknown, it is taken to have a part of the variance."""
        return max(self.std, self.spectrum[-1][0]) if self.spectrum else float(self.std * (1 + self.size / 22) ** 0.5)


ONE = Extent()


class Model(Protocol):
    """A denoiser of one path; whatever wraps one (guidance, another path) is one too."""

    @property
    def path(self) -> "Path": ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised: ...


class Denoise(Protocol):
    """A model with its conditions and guidance bound: all that a sampler sees."""

    @property
    def path(self) -> "Path": ...

    def __call__(self, x: Batch, t: Times) -> Denoised: ...


@dataclass(frozen=True)
class Bound:
    """`model` with its conditions bound: a Denoise."""

    model: Model
    cond: Cond | None = None

    @property
    def path(self) -> "Path":
        """The path of the model."""
        return self.model.path

    def __call__(self, x: Batch, t: Times) -> Denoised:
        return self.model(x, t, self.cond)


class Wrapper:
    """A model made from a model: guidance, another path. It keeps the shape, precision and device of what it wraps."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def path(self) -> "Path":
        """The path of the model."""
        return self.model.path

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.model.shape

    @property
    def data_std(self) -> float:
        """The std of the data, where the model says it."""
        return getattr(self.model, "data_std", 1.0)

    @property
    def spectrum(self) -> Spectrum:
        """The spectrum of the data, where the model says it."""
        return getattr(self.model, "spectrum", ())

    @property
    def hears(self) -> frozenset[str] | None:
        """The names of the conditions that the model hears; None where it does not say."""
        return getattr(self.model, "hears", None)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of x."""
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        """Where x lives."""
        return self.model.device


Noise = Callable[[int], Batch]
"""Standard normal noise of one step: `noise(k)` is its k-th draw, the same whenever it is asked."""


def along(coefficient: Times, x: Batch) -> Batch:
    """Coefficients [b] as [b, 1, ...]: ready to multiply x, in x's precision and on its device."""
    return coefficient.to(x.device, x.dtype, non_blocking=True).reshape(-1, *(1,) * (x.dim() - 1))


def combine(*terms: tuple[Times | float, Batch]) -> Batch:
    """The sum of coefficient * tensor, a new tensor; a coefficient is one number for each sample, or one for all.

    A product and its sum are one pass and one rounding, the same for both kinds of coefficient.
    """
    (c, x), *rest = terms
    if rest and isinstance(c, float) and c == 1:
        (c, y), *rest = rest
        out = torch.add(x, y, alpha=c) if isinstance(c, float) else torch.addcmul(x, along(c, y), y)
    else:  # as a sum a product by a float costs a third less
        out = torch.add(_NOTHING, x, alpha=c) if isinstance(c, float) else along(c, x) * x
    for c, y in rest:
        out = out.add_(y, alpha=c) if isinstance(c, float) else out.addcmul_(along(c, y), y)
    return out


_NOTHING = torch.zeros(())
