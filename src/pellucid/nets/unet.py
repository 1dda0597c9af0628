r"""The ADM U-Net (Ho et al. 2020, app. B; Dhariwal & Nichol 2021, sec. 3), for 1 to 3 spatial dimensions.

    e = hearing(clock, ctx)
    h_0 = enter(x),   h_i = down_i(h_{i-1}, e),   h = middle(h_n, e),   h = up_i([h, h_i], e) for i = n ... 0
    y = leave(silu(norm(h)))

Level l works at 1/2^l of the resolution with multipliers[l] * width channels. What goes down is kept, and is joined
by channel on the way up. The middle attends at the lowest resolution; `attention` names further resolutions.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import PellucidError
from ..types import Batch, Context
from .base import RUN, Network, at_least, drops, joined, registry, zero
from .blocks import Attention, Down, DownBlock, Fed, ResBlock, Silu, Style, Up, UpBlock
from .features import Hearing, Kind

LAYOUT = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}
RESAMPLE: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {"plain": (Down, Up), "resblock": (DownBlock, UpBlock)}


class Stage(nn.Module):
    """A residual block, then attention where `attends`."""

    def __init__(self, style: Style, start: int, end: int, attends: bool) -> None:
        super().__init__()
        self.block = ResBlock(style, start, end)
        self.attention = Attention(style, end) if attends else nn.Identity()

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return self.attention(self.block(h, e))


class Join(nn.Module):
    """A stage on the way up: h, grown by `up` where a level begins, joined with what was kept on the way down."""

    def __init__(self, stage: Stage, up: nn.Module | None) -> None:
        super().__init__()
        self.stage = stage
        self.up = up

    def forward(self, h: Tensor, e: Tensor, kept: Tensor) -> Tensor:
        h = h if self.up is None else self.up(h, e, kept.shape[2:])
        return self.stage(torch.cat([h, kept], dim=1), e)


@registry.register("unet", "adm", "unet2dmodel")
class UNet(Network):
    """An ADM U-Net for samples [channels, *spatial], any sides, odd ones too.

    width        channels of the first level, and of the time features
    multipliers  channels of each level over `width`: one level per resolution
    blocks       residual blocks per level on the way down (one more on the way up)
    attention    resolutions (longest side) that attend, besides the lowest; a number alone: all up to that one
    head         channels per attention head
    groups       groups of each normalisation
    features     time features, and `scale`, how finely they read the clock (see nets/features.py)
    fed          how blocks hear the clock: added, or as the scale and shift of a normalisation
    resample     between levels: plain convolutions, or residual blocks
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
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        attention: int | tuple[int, ...] = (),
        head: int = 32,
        groups: int = 32,
        features: Kind = "sinusoidal",
        scale: float | None = None,
        fed: Fed = "scale",
        resample: Literal["plain", "resblock"] = "resblock",
        dropout: float = 0.0,
        recompute: bool = False,
        channels: int = 0,
        out: int | None = None,
    ) -> None:
        super().__init__(shape)
        out = self.shape[0] if out is None else out
        at_least(1, {"width": width, "blocks": blocks, "head": head, "groups": groups, "out": out})
        at_least(1, {f"multiplier {i}": m for i, m in enumerate(multipliers)})
        at_least(0, {"channels": channels})
        drops(dropout)
        attends = attending(self.shape, len(multipliers), attention)
        style = Style(len(shape) - 1, 4 * width, groups, head, fed, dropout)
        down, up = RESAMPLE[resample]
        self.channels, self.run = channels, RUN[recompute]
        self.hearing = Hearing(features, width, style.heard, context, scale)
        self.enter = style.conv(shape[0] + channels, width)
        self.down, kept, h = nn.ModuleList(), [width], width
        for level, m in enumerate(multipliers):
            if level:
                self.down.append(down(style, h))
                kept.append(h)
            for _ in range(blocks):
                self.down.append(Stage(style, h, m * width, attends[level]))
                kept.append(h := m * width)
        self.attend = Stage(style, h, h, True)
        self.middle = ResBlock(style, h, h)
        self.up = nn.ModuleList()
        for level, m in reversed(list(enumerate(multipliers))):
            for i in range(blocks + 1):
                grows = i == 0 and level < len(multipliers) - 1
                stage = Stage(style, h + kept.pop(), m * width, attends[level])
                self.up.append(Join(stage, up(style, h) if grows else None))
                h = m * width
        self.norm = style.norm(Silu, h)
        self.leave = zero(style.conv(h, out))
        self.layout = LAYOUT[style.dims]
        self.to(memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, x: Batch, clock: Tensor, ctx: Context) -> Batch:
        e = self.hearing(clock, ctx)
        h = self.enter(joined(x, ctx, self.channels)).contiguous(memory_format=self.layout)
        kept = [h]
        for layer in self.down:
            h = self.run(layer, h, e)
            kept.append(h)
        h = self.run(self.middle, self.run(self.attend, h, e), e)
        for join in self.up:
            h = self.run(join, h, e, kept.pop())
        return self.leave(self.norm(h))


def attending(shape: tuple[int, ...], levels: int, attention: int | Sequence[int]) -> list[bool]:
    """Which levels attend; refuses shapes, levels and resolutions that a U-Net can do nothing with."""
    if len(shape) - 1 not in LAYOUT:
        raise PellucidError(
            f"a U-Net is asked for shape {shape}; expected (channels, *sides) with 1 to 3 sides, or net=mlp for points."
        )
    side = max(shape[1:])
    sides = [-(-side // 2**level) for level in range(levels)]  # rounding up
    if not sides or sides[-1] < 2:
        raise PellucidError(
            f"multipliers ask for {levels} levels of shape {shape}; "
            f"give 1 to {(side - 1).bit_length()}, so that the last level has more than one position."
        )
    if isinstance(attention, int):
        return [s <= attention for s in sides]
    missed = sorted(set(attention) - set(sides))
    if missed:
        raise PellucidError(f"attention is asked for at resolution {missed[0]}, never reached; the levels are {sides}.")
    return [s in attention for s in sides]


DDPM = {"width": 128, "multipliers": (1, 2, 2, 2), "resample": "plain", "fed": "add"}
ADM = {"attention": (32, 16, 8), "head": 64}
SIZES = {
    "ddpm-cifar10": DDPM | {"attention": (16,), "head": 256, "dropout": 0.1},  # Ho et al. 2020, app. B
    "iddpm-cifar10": DDPM | {"fed": "scale", "blocks": 3, "attention": (16, 8), "head": 64, "dropout": 0.3},
    "adm-64": ADM | {"width": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "dropout": 0.1},
    "adm-128": ADM | {"width": 256, "multipliers": (1, 1, 2, 3, 4)},
    "adm-256": ADM | {"width": 256, "multipliers": (1, 1, 2, 2, 4, 4)},  # Dhariwal & Nichol 2021, table 11
}
for size, options in SIZES.items():
    registry.setting(size, "unet", options)
