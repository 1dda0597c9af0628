r"""A U-Net that preserves magnitude (Karras et al. 2024, fig. 1, config G), for 1 to 3 spatial dimensions.

    e = silu(mix(W sqrt(2) features(clock), unit(V ctx.vec), 1/2))
    h <- R h;  down:  h <- unit(S h);    r = C_2 drop(silu((1 + W e) C_1 silu(h)));  up:  h <- S h;    h <- mix(h, r, t)
    h <- mix(h, P softmax(q k^T / sqrt(d)) v, t),    q, k, v each unit over the d channels of a head
    y = g C h

All sums, joins and layers are those of nets/magnitude.py: none can grow, so there is nothing to normalise by group,
and no bias (a channel of ones enters with x). The only gains, of y and of W e, start at zero. R halves or doubles the
sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PellucidError
from ..types import Batch, Context
from .base import RUN, Network, at_least, drops, joined, registry
from .blocks import grow, shrink
from .dropout import Dropout
from .features import KINDS, Kind, hears
from .magnitude import Layer, forced, join, mix, silu, unit
from .unet import LAYOUT, attending

LIMIT = 256.0  # no activation is larger, which bfloat16 and float16 can tell apart


@dataclass(frozen=True)
class Style:
    """What all blocks of one network share."""

    dims: int
    heard: int
    head: int
    balance: float
    dropout: float

    def conv(self, start: int, end: int, size: int = 3) -> Layer:
        """A convolution that keeps the sides."""
        return Layer(start, end, size, self.dims)


class Attention(nn.Module):
    """Every position looks at all others of its sample; queries, keys and values have unit variance."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        if channels % style.head:
            raise PellucidError(f"head is {style.head}, which does not divide {channels} channels; give a divisor.")
        self.head, self.balance = style.head, style.balance
        self.qkv = Layer(channels, 3 * channels)
        self.out = Layer(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        x = self.qkv(h.flatten(2).transpose(1, 2))  # [b, n, 3 c]
        q, k, v = unit(x.unflatten(2, (3, -1, self.head)), dim=4).permute(2, 0, 3, 1, 4)  # [b, heads, n, d]
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return mix(h, self.out(seen).transpose(1, 2).unflatten(2, h.shape[2:]), self.balance)


class Block(nn.Module):
    """A residual block; on the way down what it passes on is made unit, on the way up what it has learnt is joined."""

    def __init__(self, style: Style, start: int, end: int, down: bool, attends: bool) -> None:
        super().__init__()
        self.down, self.balance = down, style.balance
        self.shortcut = style.conv(start, end, 1) if start != end else nn.Identity()
        self.conv1 = style.conv(end if down else start, end)
        self.hear = Layer(style.heard, end)
        self.gain = nn.Parameter(torch.zeros(1))
        self.dropout = Dropout(style.dropout)
        self.conv2 = style.conv(end, end)
        self.attention = Attention(style, end) if attends else nn.Identity()

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        if self.down:
            h = unit(self.shortcut(h))
        c = 1 + self.hear(e, self.gain)
        inner = silu(self.conv1(silu(h)) * c.reshape(*c.shape, *(1,) * (h.dim() - 2)))
        if not self.down:
            h = self.shortcut(h)
        h = mix(h, self.conv2(self.dropout(inner)), self.balance)
        return self.attention(h).clamp(-LIMIT, LIMIT)


class Smaller(nn.Module):
    """A block that halves the sides first."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return self.block(shrink(h), e)


class Larger(nn.Module):
    """A block that first doubles the sides, to those of what was kept."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, h: Tensor, e: Tensor, size: Sequence[int]) -> Tensor:
        return self.block(grow(h, size), e)


class Join(nn.Module):
    """A block on the way up: h is joined with what was kept on the way down."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, h: Tensor, e: Tensor, kept: Tensor) -> Tensor:
        return self.block(join(h, kept), e)


@registry.register("mp-unet", "edm2")
class MPUNet(Network):
    """A magnitude-preserving U-Net for samples [channels, *spatial], any sides, odd ones too.

    width        channels of the first level, and of the time features
    multipliers  channels of each level over `width`: one level per resolution
    blocks       residual blocks per level on the way down (one more on the way up)
    attention    resolutions (longest side) that attend, besides the lowest; a number alone: all up to that one
    head         channels per attention head
    balance      share of a residual branch in what comes after it
    features     time features, and `scale`, how finely they read the clock (see nets/features.py)
    dropout      share of the activations dropped in each block in training
    recompute    blocks are computed again in the backward step: less memory, a third more time
    channels     extra input channels, taken from `ctx.channels`
    out          output channels; by default those of x
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int = 0,
        *,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 3),
        blocks: int = 2,
        attention: int | tuple[int, ...] = (),
        head: int = 64,
        balance: float = 0.3,
        features: Kind = "fourier",
        scale: float | None = None,
        dropout: float = 0.0,
        recompute: bool = False,
        channels: int = 0,
        out: int | None = None,
    ) -> None:
        super().__init__(shape)
        out = self.shape[0] if out is None else out
        at_least(1, {"width": width, "blocks": blocks, "head": head, "out": out})
        at_least(1, {f"multiplier {i}": m for i, m in enumerate(multipliers)})
        at_least(0, {"channels": channels})
        drops(dropout)
        if not 0 < balance < 1:
            raise PellucidError(f"balance is {balance}; expected a share between 0 and 1, such as 0.3.")
        attends = attending(self.shape, len(multipliers), attention)
        style = Style(len(shape) - 1, width * max(multipliers), head, balance, dropout)
        self.channels, self.run = channels, RUN[recompute]
        self.features = KINDS[features](width) if scale is None else KINDS[features](width, scale)
        self.time = Layer(width, style.heard)
        self.context = Layer(context, style.heard) if context else None
        self.enter = style.conv(shape[0] + channels + 1, width)
        self.down, kept, h = nn.ModuleList(), [width], width
        for level, m in enumerate(multipliers):
            if level:
                self.down.append(Smaller(Block(style, h, h, True, False)))
                kept.append(h)
            for _ in range(blocks):
                self.down.append(Block(style, h, m * width, True, attends[level]))
                kept.append(h := m * width)
        self.attend = Block(style, h, h, False, True)
        self.middle = Block(style, h, h, False, False)
        self.up = nn.ModuleList()
        for level, m in reversed(list(enumerate(multipliers))):
            grown = nn.Identity() if level == len(multipliers) - 1 else Larger(Block(style, h, h, False, False))
            self.up.append(grown)
            for _ in range(blocks + 1):
                self.up.append(Join(Block(style, h + kept.pop(), m * width, False, attends[level])))
                h = m * width
        self.leave = style.conv(h, out)
        self.gain = nn.Parameter(torch.zeros(1))
        self.layout = LAYOUT[style.dims]
        self.to(memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, x: Batch, clock: Tensor, ctx: Context) -> Batch:
        if self.training:
            forced(self)
        e = self.hearing(clock, ctx)
        x = joined(x, ctx, self.channels)
        h = self.enter(torch.cat([x, torch.ones_like(x[:, :1])], dim=1)).contiguous(memory_format=self.layout)
        kept = [h]
        for layer in self.down:
            h = self.run(layer, h, e)
            kept.append(h)
        h = self.run(self.middle, self.run(self.attend, h, e), e)
        for layer in self.up:
            match layer:
                case Join():
                    h = self.run(layer, h, e, kept.pop())
                case Larger():
                    h = self.run(layer, h, e, kept[-1].shape[2:])
        return self.leave(h, self.gain)

    def hearing(self, clock: Tensor, ctx: Context) -> Tensor:
        """e, [b, heard]."""
        hears(ctx, self.context is not None)
        e = self.time(2**0.5 * self.features(clock))
        return silu(e if self.context is None else mix(e, unit(self.context(ctx.vec)), 0.5))


SIZES = {"xs": 128, "s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}
"""Width (Karras et al. 2024, table 7)."""
for size, wide in SIZES.items():
    options = {"width": wide, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (16, 8)}
    registry.setting(f"edm2-{size}", "mp-unet", options)
