r"""Time features: a clock, one number per sample, as a vector that a network can hear.

Sinusoidal   [cos(s c w_i), sin(s c w_i)],    w_i = 10000^(-i/h),  i = 0 ... h-1     (Vaswani et al. 2017, sec. 3.5;
                                                                                    Ho et al. 2020, app. B)
Fourier      [cos(2 pi s c f_i), sin(2 pi s c f_i)],    f_i ~ N(0, 1)               (Tancik et al. 2020, eq. 5;
                                                                                    Song et al. 2021, app. C.2)

`s` is the scale. It belongs to the clock, so each kind has the default of the clock that it is made for:

    clock c                      sinusoidal     fourier
    time or index, 0 ... 1000    1 (default)    0.005
    lam, -10 ... 10              50             0.25 (default)
    edm, -lam/4                  200            1
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..errors import PellucidError
from ..types import Context

Kind = Literal["sinusoidal", "fourier"]


def check(width: int, scale: float) -> None:
    """Refuse what cannot tell one clock from another."""
    if width < 2 or width % 2:
        raise PellucidError(f"time features are {width} wide; cosines and sines need an even width of 2 or more.")
    if not 0 < scale < math.inf:
        raise PellucidError(f"the time features' scale is {scale}; expected a positive number.")


class Features(nn.Module):
    """clock [b] -> features [b, width]: cosines, then sines, of the clock at width/2 frequencies."""

    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        """`frequencies` [width/2], in radians per unit of the clock; a checkpoint carries them."""
        super().__init__()
        self.register_buffer("frequencies", frequencies)

    def forward(self, clock: Tensor) -> Tensor:
        angle = clock[:, None] * self.frequencies  # [b, width/2]
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class Sinusoidal(Features):
    """Geometric frequencies, from `scale` down to `scale`/10000 radians per unit of the clock."""

    def __init__(self, width: int, scale: float = 1.0) -> None:
        check(width, scale)
        half = width // 2
        super().__init__(scale * torch.exp(-math.log(10000) * torch.arange(half) / half))


class Fourier(Features):
    """Random frequencies, normal with standard deviation `scale` cycles per unit of the clock.

    They come from a generator of their own, so that networks of one width and seed hear alike.
    """

    def __init__(self, width: int, scale: float = 0.25, seed: int = 0) -> None:
        check(width, scale)
        generator = torch.Generator().manual_seed(seed)
        super().__init__(2 * math.pi * scale * torch.randn(width // 2, generator=generator))


KINDS: dict[Kind, type[Sinusoidal | Fourier]] = {"sinusoidal": Sinusoidal, "fourier": Fourier}


def hears(ctx: Context, vec: bool) -> None:
    """Refuse a context other than that for which a network was built: with a vector or without."""
    if (ctx.vec is not None) is not vec:
        raise PellucidError(
            f"this network hears {'a' if vec else 'no'} context vector and got "
            f"{'none' if vec else 'one'}; build it with its conditioner's width."
        )
    if ctx.tokens is not None:
        raise PellucidError("this network hears no tokens; take a conditioner that makes a vector.")


class Hearing(nn.Module):
    """e = silu(W_2 silu(W_1 features(clock)) + V vec), [b, heard]: all that the blocks of a network hear.

    The last silu is that of every block's own projection, computed once for all of them.
    """

    def __init__(self, kind: Kind, width: int, heard: int, context: int, scale: float | None = None) -> None:
        """`width` features and a context vector of width `context` (0: none). Without a scale: the kind's default."""
        super().__init__()
        self.features = KINDS[kind](width) if scale is None else KINDS[kind](width, scale)
        self.time = nn.Sequential(nn.Linear(width, heard), nn.SiLU(), nn.Linear(heard, heard))
        self.context = nn.Linear(context, heard, bias=False) if context else None

    def forward(self, clock: Tensor, ctx: Context) -> Tensor:
        hears(ctx, self.context is not None)
        e = self.time(self.features(clock))
        return silu(e if self.context is None else e + self.context(ctx.vec))
