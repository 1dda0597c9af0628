r"""The diffusion transformer (Peebles & Xie 2023, sec. 3), for 1 to 3 spatial dimensions.

    e = hearing(clock, ctx),    h = W patches(x) + positions
    h <- h + a_1 attention((1 + g_1) norm(h) + s_1)                                [s_1, g_1, a_1, s_2, g_2, a_2] = V e
    h <- h + a_2 W_2 gelu(W_1 ((1 + g_2) norm(h) + s_2))
    y = patches^-1(U ((1 + g) norm(h) + s)),    [s, g] = V' e

V, V' and U start at zero (adaLN-Zero): every block is the identity at first. A patch's place, an integer on each axis,
is told by fixed sines, a learned vector, or by turning queries and keys (Su et al. 2021, eq. 34):

    sincos    h + [cos(n w_i), sin(n w_i)],    w_i = 10000^(-i/k)
    rope      (q_i, q_(i + d/2)) turned by the angle n w_i,  w_i = 100^(-i/k),  so that q k^T hears only n - n'

Normed queries and keys (q/rms(q) times a gain) bound the attention's logits (Dehghani et al. 2023, sec. 2).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PellucidError
from ..types import Batch, Context
from .base import RUN, Network, at_least, drops, joined, registry, zero
from .blocks import CONV
from .dropout import Dropout
from .features import Hearing, Kind

Positions = Literal["rope", "sincos", "learned"]
FEATURES = 256  # time features, at any width


def angles(sides: Sequence[int], slots: int, base: float) -> Tensor:
    """[n, slots] n_axis w_i for each place of a grid of `sides`; slot j belongs to axis j mod dims."""
    place = torch.cartesian_prod(*(torch.arange(side) for side in sides)).reshape(-1, len(sides))  # [n, dims]
    slot = torch.arange(slots)
    each = -(-slots // len(sides))  # slots of an axis
    return place[:, slot % len(sides)] * base ** (-(slot // len(sides)) / each)


def turned(q: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """q [..., n, d] with each pair (q_i, q_(i + d/2)) turned by its angle [n, d/2]."""
    a, b = q.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Rope(nn.Module):
    """Queries and keys turned by their places."""

    cos: Tensor
    sin: Tensor

    def __init__(self, sides: Sequence[int], head: int) -> None:
        super().__init__()
        angle = angles(sides, head // 2, 100.0)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, q: Tensor) -> Tensor:
        return turned(q, self.cos, self.sin)


class Places(nn.Module):
    """h + a vector for each place: fixed sines, or learned from a small start."""

    def __init__(self, sides: Sequence[int], width: int, learned: bool) -> None:
        super().__init__()
        if learned:
            self.places = nn.Parameter(0.02 * torch.randn(math.prod(sides), width))
        else:
            angle = angles(sides, width // 2, 10000.0)
            self.register_buffer("places", torch.cat([angle.cos(), angle.sin()], dim=1), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.places


class Norm(nn.RMSNorm):
    """q/rms(q) times a gain, in the precision of the gain: under autocast, too."""

    def forward(self, q: Tensor) -> Tensor:
        return super().forward(q.to(self.weight.dtype))


class Attention(nn.Module):
    """Every patch looks at all others of its sample, in heads of `head` channels."""

    def __init__(self, width: int, head: int, normed: bool, turn: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q, self.norm_k = (Norm(head) if normed else nn.Identity() for _ in "qk")
        self.turn = turn
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(2, (3, -1, self.head)).permute(2, 0, 3, 1, 4)  # [b, heads, n, d]
        q, k = self.turn(self.norm_q(q)), self.turn(self.norm_k(k))
        seen = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.out(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then an MLP: both heard through a scale, a shift and a gate."""

    def __init__(self, width: int, head: int, inner: int, normed: bool, turn: nn.Module, dropout: float) -> None:
        super().__init__()
        self.hear = zero(nn.Linear(width, 6 * width))
        self.attention = Attention(width, head, normed, turn)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU("tanh"), Dropout(dropout), nn.Linear(inner, width))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        s1, g1, a1, s2, g2, a2 = self.hear(e)[:, None].chunk(6, dim=2)
        h = torch.addcmul(h, a1, self.attention(modulated(h, s1, g1)))
        return torch.addcmul(h, a2, self.mlp(modulated(h, s2, g2)))


def modulated(h: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    """(1 + gain) norm(h) + shift."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=1e-6), 1 + gain)


@registry.register("dit", "transformer", "dittransformer2dmodel")
class DiT(Network):
    """A diffusion transformer for samples [channels, *sides], whose sides are multiples of the patch.

    patch        side of a patch
    width        channels of every layer
    depth        blocks
    head         channels per attention head
    expand       channels within the MLP over `width`
    positions    how a patch hears its place: turned queries and keys, fixed sines, or learned vectors
    normed       queries and keys are normed before they meet
    features     time features, and `scale`, how finely they read the clock (see nets/features.py)
    dropout      share of the MLP's activations dropped in training
    recompute    blocks are computed again in the backward step: less memory, a third more time
    channels     extra input channels, taken from `ctx.channels`
    out          output channels; by default those of x
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int = 0,
        *,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        head: int = 64,
        expand: int = 4,
        positions: Positions = "rope",
        normed: bool = True,
        features: Kind = "sinusoidal",
        scale: float | None = None,
        dropout: float = 0.0,
        recompute: bool = False,
        channels: int = 0,
        out: int | None = None,
    ) -> None:
        super().__init__(shape)
        self.out = self.shape[0] if out is None else out
        at_least(1, {"patch": patch, "width": width, "depth": depth, "head": head, "expand": expand, "out": self.out})
        at_least(0, {"channels": channels})
        drops(dropout)
        _fits(self.shape, patch, width, head)
        self.patch, self.channels, self.run = patch, channels, RUN[recompute]
        dims, sides = len(shape) - 1, [side // patch for side in shape[1:]]
        self.sides = sides
        turn = Rope(sides, head) if positions == "rope" else nn.Identity()
        self.hearing = Hearing(features, FEATURES, width, context, scale)
        self.enter = CONV[dims](shape[0] + channels, width, patch, patch)
        self.places = nn.Identity() if positions == "rope" else Places(sides, width, positions == "learned")
        self.blocks = nn.ModuleList(Block(width, head, expand * width, normed, turn, dropout) for _ in range(depth))
        for part in self.blocks.modules():
            if isinstance(part, nn.Linear) and part.out_features != 6 * width:
                nn.init.xavier_uniform_(part.weight)
        nn.init.xavier_uniform_(self.enter.weight.view(width, -1))
        self.hear = zero(nn.Linear(width, 2 * width))
        self.leave = zero(nn.Linear(width, self.out * patch**dims))

    def forward(self, x: Batch, clock: Tensor, ctx: Context) -> Batch:
        if x.shape[2:] != self.shape[1:]:
            raise PellucidError(f"x has sides {tuple(x.shape[2:])}; this network was built for {self.shape[1:]}.")
        e = self.hearing(clock, ctx)
        h = self.places(self.enter(joined(x, ctx, self.channels)).flatten(2).transpose(1, 2))  # [b, n, width]
        for block in self.blocks:
            h = self.run(block, h, e)
        shift, gain = self.hear(e)[:, None].chunk(2, dim=2)
        return self.whole(self.leave(modulated(h, shift, gain)))

    def whole(self, h: Tensor) -> Batch:
        """[b, out, *sides * patch] from patches [b, n, out * patch^dims]."""
        dims = len(self.sides)
        h = h.reshape(len(h), *self.sides, self.out, *(self.patch,) * dims)
        pairs = [axis for i in range(dims) for axis in (1 + i, 2 + dims + i)]
        return h.permute(0, 1 + dims, *pairs).reshape(len(h), self.out, *self.shape[1:])


def _fits(shape: tuple[int, ...], patch: int, width: int, head: int) -> None:
    """Refuse shapes and sizes that a transformer can do nothing with."""
    if len(shape) - 1 not in CONV:
        raise PellucidError(
            f"a DiT is asked for shape {shape}; expected (channels, *sides) with 1 to 3 sides, or net=mlp for points."
        )
    if any(side % patch for side in shape[1:]):
        raise PellucidError(f"patches of {patch} do not cover sides {shape[1:]}; give a patch that divides them.")
    if width % head or head % 2:
        raise PellucidError(f"head is {head} at width {width}; expected an even number that divides the width.")


SIZES = {"s": (384, 12, 64), "b": (768, 12, 64), "l": (1024, 24, 64), "xl": (1152, 28, 72)}
"""Width, depth and channels per head (Peebles & Xie 2023, table 1)."""
for size, (width, depth, head) in SIZES.items():
    for patch in (2, 4, 8):
        plain = {"positions": "sincos", "normed": False}
        registry.setting(
            f"dit-{size}/{patch}", "dit", {"patch": patch, "width": width, "depth": depth, "head": head, **plain}
        )
