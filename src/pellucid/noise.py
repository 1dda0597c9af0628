"""Noise: a function of (seed, sample, step), not of who asks, when, or beside whom.

The Philox-4x32-10 counter generator (Salmon et al. 2011) turns a 64-bit key and a 128-bit counter into 128 random
bits. The key is the seed; the counter is (block, step, sample, stream). So sample i of seed s has the same noise at
any batch size, in any order, on any number of machines, and a run resumes from one integer.

    normal:   sqrt(-2 log u) (cos, sin)(2 pi v)          (Box & Muller 1958)
    brownian: W(u) = u z_0 + sum_l 2^-(l/2 + 1) tent(2^l u mod 1) z_(2^l + floor(2^l u)),  u in [0, 1]   (Levy 1948)

A Brownian path is a tree of normals, addressed by node, so W(u) is exact at every multiple of 2^-31 whoever asks for
what in which order. A sampler's step from clock a to clock b may take its noise from it: then a finer grid does not
draw another picture, it draws the same one better.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .errors import PellucidError
from .types import Noise, along

_MULTIPLY = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF

START, TRAIN, TIMES, DROP, ORDER, TOY, TREE = 0, 101, 102, 103, 104, 105, 106
BOUND, LEVEL, PROBE, GRAIN = 107, 108, 109, 110
"""Streams. The k-th draw of a sampler's step has stream 1 + k; the others keep out of its way."""

Ints = int | Tensor


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox-4x32-10: four 32-bit words (held in int64) for each counter and key, elementwise."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLY[0], c2 * _MULTIPLY[1]
        c0, c1, c2, c3 = (p1 >> 32) & _LOW ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) & _LOW ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + _WEYL[0] & _LOW, k1 + _WEYL[1] & _LOW
    return c0, c1, c2, c3


def words(seed: Ints, index: Tensor, step: Ints, stream: int, count: int) -> Tensor:
    """[b, count] words of 32 random bits (int64); `index` [b] numbers the samples, `seed` and `step` may be [b] too."""
    index = index.to(torch.int64).reshape(-1, 1)
    seed = torch.as_tensor(seed, device=index.device).reshape(-1, 1)
    step = torch.as_tensor(step, device=index.device).reshape(-1, 1)
    block = torch.arange(-(-count // 4), device=index.device)
    counter = block, step & _LOW, index & _LOW, (index >> 32) & 0xFFFFFF | stream << 24
    out = philox(counter, (seed & _LOW, (seed >> 32) & _LOW))
    return torch.stack(torch.broadcast_tensors(*out), -1).reshape(len(index), -1)[:, :count]


def uniform(seed: Ints, index: Tensor, step: Ints = 0, *, stream: int = TIMES) -> Tensor:
    """[b] float64 in (0, 1), one for each sample."""
    high, low = words(seed, index, step, stream, 2).double().unbind(1)
    return (high + (low + 0.5) / 2**32) / 2**32


def normal(
    seed: Ints,
    index: Tensor,
    step: Ints,
    shape: tuple[int, ...],
    *,
    stream: int = START,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """[b, *shape] standard normal. Computed in float64, so that every precision sees the same noise."""
    count = math.prod(shape)
    u, v = words(seed, index, step, stream, count + count % 2).double().reshape(len(index), -1, 2).unbind(-1)
    radius, angle = ((u + 0.5) / 2**32).log_().mul_(-2).sqrt_(), v * (2 * math.pi / 2**32)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return pairs.reshape(len(index), -1)[:, :count].to(dtype).reshape(-1, *shape)


def brownian(
    seed: Ints, index: Tensor, u: Tensor, shape: tuple[int, ...], *, dtype: torch.dtype = torch.float64
) -> Tensor:
    """[..., b, *shape] W(u), one Brownian path for each sample and element, at u [..., b] in [0, 1] rounded to 2^-31.

    W(0) = 0. A time k/2^m costs m + 1 draws: round the clock where that precision is not needed.
    """
    u = (u.to(torch.float64) * 2**31).round() / 2**31
    scale = 2.0 ** torch.arange(31).reshape(-1, *(1,) * u.dim())
    tent = 1 - (2 * (u * scale).frac() - 1).abs()
    levels = int(tent.flatten(1).any(1).sum())  # u is a multiple of 2^-levels: no finer node reaches it
    weight = torch.cat([u[None], (tent / (2 * scale.sqrt()))[:levels]])
    node = torch.cat([torch.zeros_like(u)[None], (scale + (u * scale).floor())[:levels]]).long()
    path, size = torch.zeros(*u.shape, *shape, dtype=torch.float64), max(1, _ROOM // (u.numel() * math.prod(shape)))
    seed, index = (torch.as_tensor(number).expand(u.shape) for number in (seed, index))
    for w, n in zip(weight.split(size), node.split(size), strict=True):
        seeds, indices = (number.expand(n.shape).flatten() for number in (seed, index))
        z = normal(seeds, indices, n.flatten(), shape, stream=TREE, dtype=torch.float64)
        path += torch.einsum("lk,lk...->k...", w.flatten(1), z.reshape(len(n), -1, *shape)).reshape(path.shape)
    return path.to(dtype)


_ROOM = 2**20  # numbers drawn at once


Clock = tuple[Tensor, Tensor]
"""Where on the clock each sample's step begins and ends, [b] each, in [0, 1]."""
Source = Callable[[Ints, Tensor, int, Clock, tuple[int, ...], torch.dtype], Noise]
"""How a step gets its noise: from the seed, the samples' numbers, the step's number and its place on the clock."""

FINEST = 2**-24  # of the clock: two times of a grid must not be closer


def tick(lam: Tensor) -> Tensor:
    """The clock: 1/2 + atan(lam/4)/pi, from 0 (all noise) to 1 (data). It knows no path, and gives every lam room."""
    return ((0.5 + torch.atan(lam / 4) / math.pi) / FINEST).round() * FINEST


def independent(
    seed: Ints, index: Tensor, step: int, clock: Clock, shape: tuple[int, ...], dtype: torch.dtype
) -> Noise:
    """Every step of every grid draws its own noise."""
    return lambda draw: normal(seed, index, step, shape, stream=1 + draw, dtype=dtype)


def bridged(seed: Ints, index: Tensor, step: int, clock: Clock, shape: tuple[int, ...], dtype: torch.dtype) -> Noise:
    """A step's noise is what one Brownian path does meanwhile, scaled to variance 1: the same path on every grid.

    Draw 0 is (W(b) - W(a))/sqrt(b - a); draw 1 what its middle m adds, (2 W(m) - W(a) - W(b))/sqrt(b - a), independent
    of it. Further draws, such as those of Langevin steps, are each step's own.
    """
    a, b = clock
    if not bool((b > a).all()):
        raise PellucidError(
            "Brownian noise needs a falling grid, and this one rises or its times are too close; take another."
        )

    def noise(draw: int) -> Tensor:
        if draw > 1:
            return normal(seed, index, step, shape, stream=1 + draw, dtype=dtype)
        if draw == 0:
            first, last = brownian(seed, index, torch.stack([a, b]), shape)
            moved = last - first
        else:
            first, middle, last = brownian(seed, index, torch.stack([a, (a + b) / 2, b]), shape)
            moved = 2 * middle - first - last
        return (moved / along((b - a).sqrt(), moved)).to(dtype)

    return noise


sources: dict[str, Source] = {"independent": independent, "brownian": bridged}
