"""Noise: a function of (seed, sample, step), not of who asks, when, or beside whom.

The Philox-4x32-10 counter generator (Salmon et al. 2011) turns a 64-bit key and a 128-bit counter into 128 random
bits. The key is the seed; the counter is (block, step, sample, stream). So sample i of seed s has the same noise at
any batch size, in any order, on any number of machines, and a run resumes from one integer.

    normal:   sqrt(-2 log u) (cos, sin)(2 pi v)          (Box & Muller 1958)
"""

import math

import torch
from torch import Tensor

_MULTIPLY = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF

START, TRAIN, TIMES, DROP, ORDER, TOY = 0, 101, 102, 103, 104, 105
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
