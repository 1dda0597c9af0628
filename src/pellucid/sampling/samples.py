"""Samples, and the ways on which they come: the loop, from noise to data.

Sample `first + i` of a seed is the same picture at any batch size: its noise is keyed by (seed, index, step).
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..conditioning import Conditions
from ..grids import Grid
from ..paths import Path
from ..samplers import Sampler
from ..types import Batch, Bound, Denoise, Denoised, Model, Times
from .loop import begin, walk
from .model import Asked, check, prepare
from .scheme import Scheme, extent


@torch.no_grad()
def sample(
    model: Model,
    n: int,
    *,
    sampler: Sampler | str = "scales",
    steps: int = 20,
    grid: Grid | str = "scales",
    seed: int = 0,
    first: int = 0,
    cond: Conditions = None,
    guidance: Asked = None,
    batch: int = 64,
    exact: bool = False,
    noise: str = "independent",
    path: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Batch:
    """Draw samples first ... first + n - 1 of `seed`: [n, *shape] in model units.

    cond: a tensor [n] or one value for each condition, such as {"label": 3}.
    guidance: a scale (classifier-free: 1 conditional, 0 unconditional), any guidance, such as CFG(2, rescale=0.7), or
        its table. One that strengthens a condition needs one.
    exact: each sample is computed alone, so that it is bit-equal whatever the batch; without it, to about 1e-6.
    noise: "independent" in each step, or "brownian": more steps refine the same picture of a stochastic sampler.
    path: sample on another path than the model was trained on.
    progress: called with (samples finished, n).
    """
    n, seed, first, batch = check(n, seed=seed, first=first, batch=batch)
    model, conditions = prepare(model, n, cond, guidance, path)
    scheme = Scheme.make(model.path, sampler, steps, grid, noise, extent(model))
    size, out = 1 if exact else batch, []
    for low in range(0, n, size):
        index = torch.arange(first + low, first + min(low + size, n))
        part = {name: value[low : low + size] for name, value in conditions.items()}
        states = walk(Bound(model, part), scheme, begin(model, scheme, seed, index), seed, index)
        out.append(deque(states, maxlen=1).pop().x)  # the last of them, keeping no other
        if progress:
            progress(min(low + size, n), n)
    return torch.cat(out)


class Step(NamedTuple):
    """One point of a trajectory: x at time t, and the x0 first seen in the step from there (none at the end)."""

    t: float
    x: Batch
    x0: Batch | None


@torch.no_grad()
def trajectory(
    model: Model,
    n: int,
    *,
    sampler: Sampler | str = "scales",
    steps: int = 20,
    grid: Grid | str = "scales",
    seed: int = 0,
    first: int = 0,
    cond: Conditions = None,
    guidance: Asked = None,
    noise: str = "independent",
    path: Path | str | None = None,
) -> list[Step]:
    """The way from noise to data of `sample` with the same arguments: steps + 1 points, the first one noise."""
    n, seed, first, _ = check(n, seed=seed, first=first)
    model, conditions = prepare(model, n, cond, guidance, path)
    scheme = Scheme.make(model.path, sampler, steps, grid, noise, extent(model))
    index = torch.arange(first, first + n)
    heard = _Witness(Bound(model, conditions))
    state = begin(model, scheme, seed, index)
    way, times = [], scheme.times.tolist()
    for t, after in zip(times, walk(heard, scheme, state, seed, index), strict=False):
        way.append(Step(t, state.x, heard.take()))
        state = after
    return [*way, Step(times[-1], state.x, None)]


class _Witness:
    """A Denoise that remembers the first x0 it gave since it was last asked for one."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.x0: Batch | None = None

    @property
    def path(self) -> Path:
        return self.denoise.path

    def __call__(self, x: Batch, t: Times) -> Denoised:
        d = self.denoise(x, t)
        self.x0 = d.x0 if self.x0 is None else self.x0
        return d

    def take(self) -> Batch | None:
        x0, self.x0 = self.x0, None
        return x0
