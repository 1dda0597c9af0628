"""What a model learns from: pictures as bytes or points as numbers, with labels and texts where there are any.

Pictures are held as uint8 u in 0 .. 255 and met by the model as  x = u / 127.5 - 1  in [-1, 1].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..covariance import empirical, spectrum
from ..errors import PellucidError
from ..noise import directions
from ..types import Spectrum

Progress = Callable[[int, int], None]
"""Called as progress(done, total) while pictures are decoded."""


class Options(NamedTuple):
    """How a source is to be read; see `pellucid.data.load`."""

    size: int | None = None
    channels: int | None = None
    held_out: float = 0.1
    seed: int = 0
    progress: Progress | None = None


class Skipped(NamedTuple):
    """A picture that was left out, and why."""

    name: str
    reason: str


class Split(NamedTuple):
    """Samples, each with its label and its text where the source has them."""

    x: Tensor  # uint8 [n, c, h, w] pictures, or float32 [n, *shape] points
    label: Tensor | None = None  # int64 [n]
    text: tuple[str, ...] | None = None  # n of them
    noise: Tensor | None = None  # float32 [n, *shape]: the noise that each belongs to, as in reflow

    def take(self, index: Tensor) -> "Split":
        """The samples at index, int64 [m]."""
        label = None if self.label is None else self.label[index]
        text = None if self.text is None else tuple(self.text[i] for i in index.tolist())
        noise = None if self.noise is None else self.noise[index]
        return Split(self.x[index], label, text, noise)


def encode(x: Tensor) -> Tensor:
    """Bytes to model units: u / 127.5 - 1, float32."""
    return x.float() / 127.5 - 1


def decode(x: Tensor) -> Tensor:
    """Model units to the nearest bytes; what lies outside [-1, 1] is clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


MEASURED = 2**24  # numbers that the spectrum is measured by


@dataclass(frozen=True)
class Dataset:
    """Samples to train on, samples held out (if there are enough), and what was skipped on the way.

    counts: how often each byte is met in the pictures to train on, where that is known without looking.
    """

    name: str
    train: Split
    test: Split | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (c, h, w) for pictures."""
        return tuple(self.train.x.shape[1:])

    @property
    def pictures(self) -> bool:
        """Whether the samples are pictures (bytes) and not points (numbers)."""
        return self.train.x.dtype == torch.uint8

    @property
    def mean(self) -> float:
        """Of all training values, as the model meets them."""
        return self._moments[0]

    @property
    def std(self) -> float:
        """Of all training values about their mean, as the model meets them: the data_std of a denoiser."""
        return self._moments[1]

    @cached_property
    def spectrum(self) -> Spectrum:
        """In which directions the data reaches how far, by so many evenly spaced samples as the memory is to hold."""
        n, size = len(self.train.x), math.prod(self.shape)
        m = max(2, min(n, MEASURED // size))
        x, _ = self.batch(torch.arange(m) * (n - 1) // (m - 1))
        return spectrum(empirical(x.double()), directions(size))

    @cached_property
    def mark(self) -> str:
        """A mark of the training samples, from 64 of them: other data has another."""
        part = self.train.take(torch.arange(64) * len(self.train.x) // 64)
        held = [part.x.contiguous(), *([] if part.label is None else [part.label])]
        return sha256(b"".join(value.numpy().tobytes() for value in held)).hexdigest()[:16]

    def batch(self, index: Tensor, split: Literal["train", "test"] = "train") -> tuple[Tensor, dict[str, Tensor]]:
        """The samples at index, int64 [b], as the model meets them: float32 [b, *shape], and their conditions.

        Noise that belongs to samples is among these, as `noise`.
        """
        part = self.train if split == "train" else self.test
        if part is None:
            raise PellucidError(f"{self.name} has no held-out samples; load it with held_out=0.1, say.")
        x = part.x[index]
        beside = {"label": part.label, "noise": part.noise}
        return encode(x) if self.pictures else x, {k: v[index] for k, v in beside.items() if v is not None}

    encode = staticmethod(encode)
    decode = staticmethod(decode)

    @cached_property
    def _moments(self) -> tuple[float, float]:
        x = self.train.x
        if not self.pictures:
            return x.double().mean().item(), x.double().std(correction=0).item()
        counts = self.counts or sum(torch.bincount(part.flatten(), minlength=256) for part in x.split(1024))
        weight = torch.as_tensor(counts).double() / x.numel()  # exact at any size
        value = encode(torch.arange(256, dtype=torch.uint8)).double()
        mean = (weight * value).sum()
        return mean.item(), (weight * (value - mean) ** 2).sum().sqrt().item()


def hold_out(split: Split, fraction: float, seed: int = 0) -> tuple[Split, Split | None]:
    """Set a fraction apart: evenly spaced places along the samples sorted by class, so every class gives its share.

    The same source, fraction and seed set the same samples apart; another seed moves the places.
    Fewer than 20 samples are too few to spare any: nothing is held out.
    """
    n = len(split.x)
    m = min(round(n * fraction), n - 1)
    if n < 20 or m <= 0:
        return split, None
    phase = (0.5 + 0.6180339887498949 * seed) % 1  # the golden ratio never visits a place twice
    places = ((torch.arange(m, dtype=torch.float64) + phase) * (n / m)).long()
    order = torch.arange(n) if split.label is None else split.label.argsort(stable=True)
    held = torch.zeros(n, dtype=torch.bool)
    held[order[places]] = True
    return split.take((~held).nonzero().flatten()), split.take(held.nonzero().flatten())
