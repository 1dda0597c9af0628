"""A residual MLP, for points and other small samples.

    h = W [x, cos(B x), sin(B x)],   h <- h + W_2 silu((1 + gamma) W_1 silu(norm(h)) + beta),   [gamma, beta] = V e

Random angles B x make the sharp edges of a density easy to learn (Tancik et al. 2020, eq. 5); every block hears the
clock and the context through e.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..errors import PellucidError
from ..types import Batch, Context
from .base import Network, at_least, joined, registry, zero
from .features import Hearing, Kind


class Lift(nn.Module):
    """x [b, n] -> [x, cos(B x), sin(B x)], [b, n + width]; angles have standard deviation `lift` where x has 1."""

    angles: Tensor

    def __init__(self, n: int, width: int, lift: float, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("angles", lift / math.sqrt(n) * torch.randn(n, width // 2, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        angle = x @ self.angles
        return torch.cat([x, angle.cos(), angle.sin()], dim=1)


class Block(nn.Module):
    """h + W_2 silu((1 + gamma) W_1 silu(norm(h)) + beta),  [gamma, beta] = V e."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, width)
        self.project = nn.Linear(width, 2 * width)
        self.linear2 = zero(nn.Linear(width, width))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        gamma, beta = self.project(e).chunk(2, dim=1)
        return h + self.linear2(silu(torch.addcmul(beta, self.linear1(silu(self.norm(h))), 1 + gamma)))


@registry.register("mlp")
class MLP(Network):
    """A residual MLP over the flattened sample.

    width       units of every layer
    blocks      residual blocks
    lift        standard deviation of the random angles, in radians for x of unit variance: finer edges, more noise
    features    time features, and `scale`, how finely they read the clock (see nets/features.py)
    out         length of the output's first axis; by default that of x
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int = 0,
        *,
        width: int = 128,
        blocks: int = 3,
        lift: float = 5.0,
        features: Kind = "sinusoidal",
        scale: float | None = None,
        out: int | None = None,
    ) -> None:
        super().__init__(shape)
        self.out = (shape[0] if out is None else out, *shape[1:])
        at_least(1, {"width": width, "blocks": blocks, "out": self.out[0]})
        if not lift > 0:
            raise PellucidError(f"lift is {lift}; expected a positive number of radians, such as 5.")
        n = math.prod(shape)
        self.hearing = Hearing(features, width, width, context, scale)
        self.enter = nn.Sequential(Lift(n, width, lift), nn.Linear(n + width, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = zero(nn.Linear(width, math.prod(self.out)))

    def forward(self, x: Batch, clock: Tensor, ctx: Context) -> Batch:
        e = self.hearing(clock, ctx)
        h = self.enter(joined(x, ctx).flatten(1))
        for block in self.blocks:
            h = block(h, e)
        return self.leave(silu(self.norm(h))).unflatten(1, self.out)
