"""Noise: a function of (seed, sample, step), not of who asks, when, or beside whom.

The Philox-4x64-10 counter generator (Salmon et al. 2011) turns a 128-bit key and a 256-bit counter into 256 random
bits. The key is (seed, stream); the counter is (sample * blocks + block, step, blocks), lowest first, where a sample
takes so many blocks. So sample i of seed s has the same noise at any batch size, in any order, on any number of
machines, and a run resumes from one integer. The generator is numpy's, told where to stand; samples that follow each
other lie one behind the other, and are one call.

    normal:   sqrt(-2 log u) (cos, sin)(2 pi v)          (Box & Muller 1958)
    brownian: W(u) = u z_0 + sum_l 2^-(l/2 + 1) tent(2^l u mod 1) z_(2^l + floor(2^l u)),  u in [0, 1]   (Levy 1948)

Normal numbers are float32 numbers, from 32 bits each: u >= 2^-33, so that |z| reaches 6.7. Every other precision sees
the same ones, converted. They are drawn on the CPU, wherever the samples live.

A Brownian path is a tree of normals, addressed by node, so W(u) is exact at every multiple of 2^-31 whoever asks for
what in which order. A sampler's step from clock a to clock b may take its noise from it: then a finer grid does not
draw another picture, it draws the same one better.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .errors import PellucidError
from .types import along

START, TRAIN, TIMES, DROP, ORDER, TOY, TREE = 0, 101, 102, 103, 104, 105, 106
BOUND, LEVEL, PROBE, GRAIN, LOSE, SPREAD, AUGMENT = 107, 108, 109, 110, 111, 112, 120
"""Streams. The k-th draw of a sampler's step has stream 1 + k; the others keep out of its way."""

Ints = int | Tensor
Array = np.ndarray[Any, Any]


class _Philox(threading.local):
    """Each thread's own generator: it is told key and counter before each use, and remembers nothing between."""

    def __init__(self) -> None:
        self.generator = np.random.Philox(key=0)


_philox = _Philox()
_WORD = 2**64 - 1
_USED_UP = {"buffer": (0, 0, 0, 0), "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}


def philox(counter: int, key: tuple[int, int], count: int) -> Array:
    """[count] words of 64 random bits from the 256-bit `counter` on, four for each of its values."""
    before, (seed, stream) = counter - 1, key  # it counts first, and then draws
    lanes = [before & _WORD, before >> 64 & _WORD, before >> 128 & _WORD, before >> 192 & _WORD]
    place: Any = {"bit_generator": "Philox", "state": {"counter": lanes, "key": [seed & _WORD, stream]}, **_USED_UP}
    generator = _philox.generator
    generator.state = place
    return generator.random_raw(count)


def drawn(seed: Ints, index: Tensor, step: Ints, stream: int, count: int) -> Iterator[tuple[slice, Array]]:
    """The words of a few samples at a time, [n, count] uint64, and which of them these are."""
    samples, (seeds, steps) = index.numpy(), (n.numpy() if isinstance(n, Tensor) else n for n in (seed, step))
    blocks, b, low, found = -(-count // 4), len(samples), 0, list[Array]()
    rows = max(1, _ROOM // (4 * blocks))
    for start, end in runs(seeds, samples, steps, rows):
        s, i, k = (n if isinstance(n, int) else n.item(start) for n in (seeds, samples, steps))
        counter = (blocks << 192) + ((k & _WORD) << 128) + i * blocks
        found.append(philox(counter, (s, stream), 4 * blocks * (end - start)))
        if end % rows == 0 or end == b:
            bits = found[0] if len(found) == 1 else np.concatenate(found)
            yield slice(low, end), bits.reshape(end - low, -1)[:, :count]
            low, found = end, []


def runs(seeds: Array | int, samples: Array, steps: Array | int, rows: int) -> Iterable[tuple[int, int]]:
    """Where samples that follow each other begin and end, within so many rows."""
    b = len(samples)
    if b == 1:
        return ((0, 1),)
    apart = samples[1:] != samples[:-1] + 1
    for numbers in (seeds, steps):
        if not isinstance(numbers, int):
            apart |= numbers[1:] != numbers[:-1]
    return pairwise(sorted({0, *(apart.nonzero()[0] + 1).tolist(), *range(rows, b, rows), b}))


def words(seed: Ints, index: Tensor, step: Ints, stream: int, count: int) -> Tensor:
    """[b, count] words of 32 random bits (int64); `index` [b] numbers the samples, `seed` and `step` may be [b] too."""
    out = np.empty((len(index), count), np.int64)
    for part, bits in drawn(seed, index, step, stream, -(-count // 2)):
        out[part] = bits.view(np.uint32)[:, :count]
    return torch.from_numpy(out)


def uniform(seed: Ints, index: Tensor, step: Ints = 0, *, stream: int = TIMES) -> Tensor:
    """[b] float64 in (0, 1), one for each sample: the middles of 2^52 intervals."""
    out = np.empty(len(index), np.uint64)
    for part, bits in drawn(seed, index, step, stream, 1):
        out[part] = bits[:, 0]
    return torch.from_numpy(((out >> 12) + 0.5) * 2.0**-52)


def normal(
    seed: Ints,
    index: Tensor,
    step: Ints,
    shape: tuple[int, ...],
    *,
    stream: int = START,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """[b, *shape] standard normal: float32 numbers, whatever their type."""
    count, b = math.prod(shape), len(index)
    z, half = np.empty((b, count), np.float32), -(-count // 2)
    desk = np.empty((3, max(half, min(b * half, _ROOM))), np.float32)
    for part, bits in drawn(seed, index, step, stream, half):
        u, v = bits.view(np.uint32)[:, :half], bits.view(np.int32)[:, half : 2 * half]
        box_muller(u, v, desk[:, : u.size].reshape(3, *u.shape), z[part])
    return torch.from_numpy(z.reshape(b, *shape)).to(dtype)


def directions(size: int, count: int = 16) -> Tensor:
    """[size, count] random directions, float64: always the same ones."""
    return normal(0, torch.arange(count), 0, (size,), stream=SPREAD, dtype=torch.float64).mT


_ROOM = 2**15  # words at once: what stays in the cache


def box_muller(u: Array, v: Array, desk: Array, out: Array) -> None:
    """Two normals from the 32-bit words u [b, n] and v (signed, for an angle in -pi ... pi), into `out` [b, 2n or so].

    The first half is sqrt(-2 log u) cos, the second sqrt(-2 log u) sin, with (u + 1/2)/2^32 for u; `desk` [3, b, n] is
    where they are worked out.
    """
    radius, angle, turned = desk
    np.copyto(radius, u, "unsafe")
    np.copyto(angle, v, "unsafe")
    radius += _MIDDLE
    radius *= _UNIT
    np.log(radius, radius)
    radius *= _TWICE
    np.sqrt(radius, radius)
    angle *= _TURN
    half, rest = u.shape[1], out.shape[1] - u.shape[1]
    np.multiply(radius, np.cos(angle, turned), out=out[:, :half])
    np.sin(angle, angle)
    np.multiply(radius[:, :rest], angle[:, :rest], out=out[:, half:])


_MIDDLE, _UNIT, _TWICE, _TURN = (np.array(number, np.float32) for number in (0.5, 2.0**-32, -2.0, math.pi / 2**31))


def sent(noise: Tensor, device: torch.device) -> Tensor:
    """Noise on a device. A GPU fetches it from page-locked memory, and nobody waits for it."""
    return noise.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else noise.to(device)


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
    path, size = torch.zeros(*u.shape, *shape, dtype=torch.float64), max(1, _CROWD // (u.numel() * math.prod(shape)))
    seed, index = (torch.as_tensor(number).expand(u.shape) for number in (seed, index))
    for w, n in zip(weight.split(size), node.split(size), strict=True):
        seeds, indices = (number.expand(n.shape).flatten() for number in (seed, index))
        z = normal(seeds, indices, n.flatten(), shape, stream=TREE, dtype=torch.float64)
        for share, level in zip(w, z.reshape(*n.shape, *shape), strict=True):  # in this order, whoever is beside
            path.addcmul_(share.reshape(*u.shape, *(1,) * len(shape)), level)
    return path.to(dtype)


_CROWD = 2**20  # numbers drawn at once


Draws = Callable[[int, int], Tensor]
"""The noise of a walk: `draws(i, k)` is the k-th draw of its i-th step, [b, *shape]."""
Source = Callable[[Ints, Tensor, Tensor, tuple[int, ...], torch.dtype], Draws]
"""How a walk gets its noise: from the seed, the samples' numbers and the clock at each time of its grid [steps + 1, b].

It draws ahead where that costs less, and remembers a draw or two; what it says does not depend on it.
"""

FINEST = 2**-24  # of the clock: two times of a grid must not be closer


def tick(lam: Tensor) -> Tensor:
    """The clock: 1/2 + atan(lam/4)/pi, from 0 (all noise) to 1 (data). It knows no path, and gives every lam room."""
    return ((0.5 + torch.atan(lam / 4) / math.pi) / FINEST).round() * FINEST


def independent(seed: Ints, index: Tensor, clock: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Draws:
    """Every step of every grid draws its own noise; a few samples draw for several steps at once."""
    b, steps = clock.shape[1], len(clock) - 1
    ahead = max(1, _ROOM // (b * -(-math.prod(shape) // 2)))
    seen: dict[int, tuple[int, tuple[Tensor, ...]]] = {}

    def draw(i: int, k: int) -> Tensor:
        if ahead == 1:
            return normal(seed, index, i, shape, stream=1 + k, dtype=dtype)
        start, drawn = seen.get(k, (i, ()))
        if not 0 <= i - start < len(drawn):
            numbers = torch.arange(i, min(i + ahead, steps)).repeat_interleave(b)
            times = len(numbers) // b
            seeds = seed.repeat(times) if isinstance(seed, Tensor) else seed
            drawn = normal(seeds, index.repeat(times), numbers, shape, stream=1 + k, dtype=dtype).split(b)
            start, seen[k] = i, (i, drawn)
        return drawn[i - start]

    return draw


def bridged(seed: Ints, index: Tensor, clock: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Draws:
    """A step's noise is what one Brownian path does meanwhile, scaled to variance 1: the same path on every grid.

    Draw 0 is (W(b) - W(a))/sqrt(b - a); draw 1 what its middle m adds, (2 W(m) - W(a) - W(b))/sqrt(b - a), independent
    of it. Further draws, such as those of Langevin steps, are each step's own.
    """
    seen: dict[int, Tensor] = {}

    def at(i: int) -> Tensor:
        if i not in seen:
            seen[i] = brownian(seed, index, clock[i], shape)
        return seen[i]

    def draw(i: int, k: int) -> Tensor:
        if k > 1:
            return normal(seed, index, i, shape, stream=1 + k, dtype=dtype)
        a, b = clock[i : i + 2]
        if not bool((b > a).all()):
            raise PellucidError(
                "Brownian noise needs a falling grid, and this one rises or its times are too close; take another."
            )
        for j in seen.keys() - {i, i + 1}:
            del seen[j]
        first, last = at(i), at(i + 1)
        moved = 2 * brownian(seed, index, (a + b) / 2, shape) - first - last if k else last - first
        return (moved / along((b - a).sqrt(), moved)).to(dtype)

    return draw


Kind = Literal["independent", "brownian"]
sources: dict[str, Source] = {"independent": independent, "brownian": bridged}
