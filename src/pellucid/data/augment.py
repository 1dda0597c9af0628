r"""Augmentations: other pictures of the same thing, each a function of the picture and of the sample's number alone.

    x' = A(x; u),    u ~ U(0, 1)^k from (seed, sample number, place in the list)

What a model is shown it will draw: `flip` and `crop` leak into the samples, which is right where a mirrored or shifted
picture could have been in the data. Non-leaking augmentation (Karras et al. 2022, app. F.2) tells the network what was
done, a vector that is 0 for what was left alone, and sampling asks for that. With a ~ N(0, 1), phi ~ U(-pi, pi):

    flips, a coin each, the second with probability p       c_0, c_1 = 1 where flipped
    scale by 2^(a/5)                  with probability p       c_2 = a
    rotate by phi                     with probability p       c_3, c_4 = cos phi - 1, sin phi
    stretch by 2^(+-a/5) along phi    with probability p       c_5, c_6 = a cos 2 phi, a sin 2 phi
    shift by (a w, a' h)/8            with probability p       c_7, c_8 = a, a'

The angle of the stretch is doubled, for a along phi and -a along phi + pi/2 are the same: one c, one change.

All work on whole batches where the pictures are; the numbers are drawn on the CPU, so that nobody waits for a device.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..noise import AUGMENT, words
from ..registry import Count, Registry, Share
from ..types import Batch

registry: "Registry[Augmentation]" = Registry("augmentation")


class Augmentation(ABC):
    """A way to change pictures: `draws` numbers each, and of what was done `features` that the network hears."""

    draws: ClassVar[int]
    features: ClassVar[int] = 0
    registry: "ClassVar[Registry[Any]]" = registry

    @abstractmethod
    def change(self, x: Batch, u: Tensor) -> tuple[Batch, Tensor]:
        """Pictures x [b, c, h, w] changed by u [b, draws] (float64, on the CPU); what was done, [b, features]."""


def augment(parts: Sequence[Augmentation], x: Batch, seed: int, index: Tensor) -> tuple[Batch, Tensor | None]:
    """Samples number `index` changed by all parts in turn, and what the network is to hear of it, if anything."""
    heard = []
    for place, part in enumerate(parts):
        u = (words(seed, index, place, AUGMENT, part.draws).double() + 0.5) * 2.0**-32
        x, told = part.change(x, u)
        heard.append(told)
    said = torch.cat(heard, 1) if heard else torch.empty(0, 0)
    return x, said.to(x.device, x.dtype) if said.shape[1] else None


def features(parts: Sequence[Augmentation]) -> int:
    """How many numbers a network is to hear of what was done."""
    return sum(part.features for part in parts)


def chosen(x: Batch, other: Batch, where: Tensor) -> Batch:
    """`other` for the samples in `where` [b], x for the rest."""
    return torch.where(where.to(x.device).reshape(-1, *(1,) * (x.dim() - 1)), other, x)


@registry.register("flip")
@dataclass(frozen=True)
class Flip(Augmentation):
    """Left and right changed, for every other sample. Drawn pictures are mirrored too."""

    draws: ClassVar[int] = 1

    def change(self, x: Batch, u: Tensor) -> tuple[Batch, Tensor]:
        return chosen(x, x.flip(-1), u[:, 0] < 0.5), u[:, :0]


@registry.register("crop")
@dataclass(frozen=True)
class Crop(Augmentation):
    """A part of the picture with `pad` pixels of its mirror image around it. Drawn pictures are shifted too."""

    pad: Count = 4
    draws: ClassVar[int] = 2

    def change(self, x: Batch, u: Tensor) -> tuple[Batch, Tensor]:
        for side, draw in ((2, u[:, 0]), (3, u[:, 1])):
            n = x.shape[side]
            start = (draw * (2 * self.pad + 1)).long() - self.pad
            place = (start[:, None] + torch.arange(n)) % max(2 * n - 2, 1)  # a mirror at each edge
            place = torch.minimum(place, (2 * n - 2 - place).clamp(min=0)).to(x.device)
            shape = (len(x), 1, n, 1) if side == 2 else (len(x), 1, 1, n)
            x = x.gather(side, place.reshape(shape).expand(x.shape))
        return x, u[:, :0]


@registry.register("edm", "non-leaking", "karras")
@dataclass(frozen=True)
class NonLeaking(Augmentation):
    """Flips, scale, rotation, stretch and shift, of which the network is told (Karras et al. 2022, table 6)."""

    p: Share = 0.12
    draws: ClassVar[int] = 13
    features: ClassVar[int] = 9

    def change(self, x: Batch, u: Tensor) -> tuple[Batch, Tensor]:
        flips = torch.stack([u[:, 0] < 0.5, (u[:, 1] < self.p) & (u[:, 2] < 0.5)], 1)
        scaled, turned, stretched, shifted = (u[:, 3:7] < self.p).double().unbind(1)
        a, b, *ab = torch.special.ndtri(u[:, 7:11]).unbind(1)
        angle, axis = (math.pi * (2 * u[:, 11:] - 1)).unbind(1)
        scale, angle, stretch, shift = a * scaled, angle * turned, b * stretched, torch.stack(ab, 1) * shifted[:, None]
        grows = torch.exp2(scale / 5)[:, None, None] * rotation(angle)
        turn, along = rotation(axis * stretched), torch.diag_embed(torch.exp2(torch.stack([stretch, -stretch], 1) / 5))
        moved = grows @ turn @ along @ turn.mT
        x = chosen(x, x.flip(-1), flips[:, 0])
        x = chosen(x, x.flip(-2), flips[:, 1])
        c = [scale, angle.cos() - 1, angle.sin(), stretch * (2 * axis).cos(), stretch * (2 * axis).sin()]
        return affine(x, moved, shift / 8), torch.cat([flips.double(), torch.stack(c, 1), shift], 1)


def rotation(angle: Tensor) -> Tensor:
    """[b, 2, 2] that turn by an angle."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def affine(x: Batch, matrix: Tensor, shift: Tensor) -> Batch:
    """Pictures moved by p -> matrix p + shift about their middles, shift in parts of their sides (x, y), cubically.

    Samples that are not moved are not touched. Beyond its edges a picture goes on as its mirror image.
    """
    unmoved = (matrix == torch.eye(2, dtype=matrix.dtype)).flatten(1).all(1) & (shift == 0).all(1)
    moved = (~unmoved).nonzero().flatten()
    if not len(moved):
        return x
    h, w = x.shape[2:]
    sides = torch.tensor([w, h], dtype=torch.float64)
    back = torch.linalg.inv(matrix[moved])
    back = back * sides / sides[:, None]  # in units of half a side, as grid_sample counts
    theta = torch.cat([back, -(back @ (2 * shift[moved])[:, :, None])], 2).to(x.device, torch.float32)
    where = moved.to(x.device)
    own = x[where].float()
    grid = F.affine_grid(theta, list(own.shape), align_corners=False)
    seen = F.grid_sample(own, grid, "bicubic", "reflection", align_corners=False)
    return x.index_copy(0, where, seen.to(x.dtype))
