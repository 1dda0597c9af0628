"""The loop: from noise down the grid, one step for each pair of its times.

    x ~ sigma(t_0) eps;   for each pair of times t > s of the grid:  state = sampler.step(denoise, state, s, noise)
                          where a grid goes back up, s > t:          x_s = the forward process from x_t, and a new start
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..noise import START, normal, sent, tick
from ..paths import Path
from ..types import Batch, Denoise, Model, State, Times, along, combine
from .scheme import Scheme


def start(seed: int, index: Tensor, path: Path, t: float, model: Model) -> Batch:
    """The noise in which sampling starts: sigma(t) eps, [b, *shape]."""
    times = torch.full((len(index),), t, dtype=torch.float64)
    eps = normal(seed, index, 0, model.shape, stream=START, dtype=model.dtype)
    eps = sent(eps, model.device)
    return along(path.sigma(times), eps) * eps


def begin(model: Model, scheme: Scheme, seed: int, index: Tensor) -> State:
    """The state in which sampling starts: noise at the scheme's first time, nothing remembered yet."""
    t = float(scheme.times[0])
    times = torch.full((len(index),), t, dtype=torch.float64)
    return scheme.sampler.init(start(seed, index, model.path, t, model), times)


def walk(denoise: Denoise, scheme: Scheme, state: State, seed: int, index: Tensor) -> Iterator[State]:
    """The state after each step of the scheme; `index` [b] numbers the samples. A grid that rises adds noise."""
    path, sampler, i = denoise.path, scheme.sampler, 0
    rows, clock = (row[:, None].repeat(1, len(index)) for row in (scheme.times, tick(path.lam(scheme.times))))
    times = rows.unbind()  # [steps + 1] of [b]: a step finds its own at no cost
    draws, device = scheme.noise(seed, index, clock, tuple(state.x.shape[1:]), state.x.dtype), state.x.device

    def noise(draw: int) -> Batch:
        return sent(draws(i, draw), device)

    for leg in legs(scheme.times):
        if i:
            scale, std = path.transition(state.t, times[i + 1])
            state = sampler.init(combine((scale, state.x), (std, noise(0))), times[i + 1])
            yield state
            i += 1
        for numbers in sampler.prepare(path, leg):
            state = sampler.move(denoise, state, times[i + 1], numbers, noise)
            yield state
            i += 1


def legs(times: Times) -> Sequence[Times]:
    """The falling parts of a grid: all of it, or what lies between its restarts."""
    rises = (times.diff() > 0).nonzero().flatten() + 1
    return times.tensor_split(rises)
