r"""The blocks of a U-Net, for 1 to 3 spatial dimensions. h is a feature map, `e` the vector that all blocks hear.

    ResBlock    h -> S R h + C_2 drop(hear(C_1 R silu(norm(h)), e))            (Dhariwal & Nichol 2021, sec. 3, app. A)
    hear        add    silu(norm(h + W e))                                     (Ho et al. 2020, app. B)
                scale  silu((1 + gamma) norm(h) + beta),  [gamma, beta] = W e  (Dhariwal & Nichol 2021, sec. 3.1: AdaGN)
    Attention   h -> h + P softmax(q k^T / sqrt(d)) v,   q, k, v of norm(h)    (Vaswani et al. 2017, eq. 1)

The C are 3-wide convolutions; S is a 1-wide one where the channels change; R halves or doubles the sides, or does
nothing. C_2 and P start at zero: every block starts as S R. Sums are in place where no gradient needs the old value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PellucidError
from .base import zero
from .dropout import Dropout
from .kernels import Conv2d, conv2d, norm

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONV: dict[int, type[Conv]] = {1: nn.Conv1d, 2: Conv2d, 3: nn.Conv3d}
CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: conv2d, 3: F.conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
Fed = Literal["add", "scale"]


@dataclass(frozen=True)
class Style:
    """What all blocks of one network share: spatial dimensions, width of e, and the options of the same names."""

    dims: int
    heard: int
    groups: int
    head: int
    fed: Fed
    dropout: float

    def conv(self, start: int, end: int, size: int = 3, stride: int = 1) -> Conv:
        """A convolution that keeps the sides, or with stride 2 halves them, rounding up."""
        return CONV[self.dims](start, end, size, stride, padding=size // 2)

    def norm(self, kind: type["Norm"], channels: int) -> "Norm":
        """Group normalisation, or one with silu after it."""
        if channels % self.groups:
            raise PellucidError(f"groups is {self.groups}, which does not divide {channels} channels; give a divisor.")
        return kind(self.groups, channels)


class Norm(nn.GroupNorm):
    """Group normalisation in the precision of its weights: under autocast, means and variances stay exact."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.to(self.weight.dtype)).to(h.dtype)


class Silu(Norm):
    """silu((1 + gamma) norm(h) + beta), with gamma and beta [n, c] or none."""

    def forward(self, h: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
        if norm.suits(h, self.weight):
            a: Tensor = self.weight
            b: Tensor = self.bias
            if gamma is not None and beta is not None:
                a, b = a * (1 + gamma), torch.addcmul(beta, b, 1 + gamma)
            return norm.silu(h, self.num_groups, a, b, self.eps)
        y = super().forward(h)
        if gamma is not None and beta is not None:
            y = torch.addcmul(_over(h, beta), y, 1 + _over(h, gamma))
        return F.silu(y)


def shrink(h: Tensor) -> Tensor:
    """Halve the sides, rounding up: the mean of each pair (of one, at the end of an odd side)."""
    return POOL[h.dim() - 2](h, 2, ceil_mode=True)


def grow(h: Tensor, size: Sequence[int]) -> Tensor:
    """Undo the halving: every value twice along each side, but once at the end of an odd one."""
    return F.interpolate(h, size=tuple(size), mode="nearest")


def grow_conv(conv: Conv, h: Tensor, size: Sequence[int]) -> Tensor:
    """conv(every value of h twice), cut to `size`.

    Taps that read the same value are added first. That leaves a 4-wide transposed convolution of stride 2, which
    takes (2/3)^dims of the arithmetic: in one dimension, taps (a, b, c) become (c, b + c, a + b, a).
    """
    dims = len(size)
    taps = conv.weight.flip(tuple(range(2, 2 + dims))).transpose(0, 1)  # [in, out, 3, ...]
    for axis in range(dims):  # [in, out, 4, ...]
        before = (0,) * 2 * axis
        taps = F.pad(taps, (*before, 0, 1)) + F.pad(taps, (*before, 1, 0))
    grown = TRANSPOSED[dims](h, taps, conv.bias, stride=2, padding=1)
    for axis, side in enumerate(size, start=2):
        grown = grown if grown.shape[axis] == side else grown.narrow(axis, 0, side)
    return grown


class Add(nn.Module):
    """silu(norm(h + W e))."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(style.heard, channels)
        self.norm = style.norm(Silu, channels)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        y: Tensor = self.norm(h.add_(_over(h, self.project(e))))
        return y


class Scale(nn.Module):
    """silu((1 + gamma) norm(h) + beta),  [gamma, beta] = W e."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(style.heard, 2 * channels)
        self.norm = style.norm(Silu, channels)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        y: Tensor = self.norm(h, *self.project(e).chunk(2, dim=1))
        return y


def _over(h: Tensor, e: Tensor) -> Tensor:
    return e.reshape(*e.shape, *(1,) * (h.dim() - 2))  # [b, c] -> [b, c, 1, ...]


HEAR: dict[Fed, type[Add | Scale]] = {"add": Add, "scale": Scale}


class Residual(nn.Module):
    """What residual blocks share: all but R. They change the channels from `start` to `end`."""

    def __init__(self, style: Style, start: int, end: int) -> None:
        super().__init__()
        self.norm = style.norm(Silu, start)
        self.conv1 = style.conv(start, end)
        self.hear = HEAR[style.fed](style, end)
        self.dropout = Dropout(style.dropout)
        self.conv2 = zero(style.conv(end, end))
        self.shortcut = style.conv(start, end, 1) if start != end else nn.Identity()

    def enter(self, h: Tensor) -> Tensor:
        """silu(norm(h))."""
        y: Tensor = self.norm(h)
        return y

    def leave(self, h: Tensor, inner: Tensor, e: Tensor) -> Tensor:
        """S h + C_2 drop(hear(inner, e))."""
        return self.conv2(self.dropout(self.hear(inner, e))).add_(self.shortcut(h))


class ResBlock(Residual):
    """A residual block that keeps the sides."""

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return self.leave(h, self.conv1(self.enter(h)), e)


class DownBlock(Residual):
    """A residual block that halves the sides on its way."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__(style, channels, channels)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return self.leave(shrink(h), self.conv1(shrink(self.enter(h))), e)


class UpBlock(Residual):
    """A residual block that grows the sides to `size` on its way."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__(style, channels, channels)

    def forward(self, h: Tensor, e: Tensor, size: Sequence[int]) -> Tensor:
        return self.leave(grow(h, size), grow_conv(self.conv1, self.enter(h), size), e)


class Down(nn.Module):
    """Halve the sides by a convolution alone."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        self.conv = style.conv(channels, channels, stride=2)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return self.conv(h)


class Up(nn.Module):
    """Grow the sides to `size` by a convolution alone."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        self.conv = style.conv(channels, channels)

    def forward(self, h: Tensor, e: Tensor, size: Sequence[int]) -> Tensor:
        return grow_conv(self.conv, h, size)


class Attention(nn.Module):
    """Every position looks at all others of its sample: h + P softmax(q k^T / sqrt(d)) v, in heads of d channels."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        if channels % style.head:
            raise PellucidError(f"head is {style.head}, which does not divide {channels} channels; give a divisor.")
        self.head = style.head
        self.norm = style.norm(Norm, channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)  # a bias would cancel in the softmax
        self.value = nn.Linear(channels, channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        x = self.norm(h).flatten(2).transpose(1, 2)  # [b, n, c]: a view where channels lie last in memory
        q, k, v = (part(x).unflatten(2, (-1, self.head)).transpose(1, 2) for part in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [b, heads, n, d] -> [b, n, c]
        return h + self.out(seen).transpose(1, 2).unflatten(2, h.shape[2:])
