"""Sampling: the loop.

    x ~ sigma(t_0) eps;   for each pair of times t > s of the grid:  state = sampler.step(denoise, state, s, noise)
                          where a grid goes back up, s > t:          x_s = the forward process from x_t, and a new start

Sample `first + i` of a seed is the same picture at any batch size: its noise is keyed by (seed, index, step).
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import grids, samplers
from .denoiser import Repath
from .errors import PellucidError, unknown
from .grids import Grid
from .guidance import CFG
from .noise import START, Source, independent, normal, sent, sources, tick
from .paths import Path
from .samplers import Ancestral, Sampler
from .types import ONE, Batch, Bound, Denoise, Denoised, Extent, Model, State, Times, Wrapper, along, combine

Guidance = Callable[[Model], Model]


class Step(NamedTuple):
    """One point of a trajectory: x at time t, and the x0 first seen in the step from there (none at the end)."""

    t: float
    x: Batch
    x0: Batch | None


class Scheme(NamedTuple):
    """How to sample: everything but the model, the conditions and the seed."""

    sampler: Sampler
    times: Times
    noise: Source = independent

    @staticmethod
    def make(
        path: Path,
        sampler: Sampler | str,
        steps: int,
        grid: Grid | str,
        noise: str = "independent",
        extent: Extent = ONE,
    ) -> "Scheme":
        """A scheme for data of this extent, from names or objects; a grid in the sampler's name wins (Euler Karras)."""
        if noise not in sources:
            raise unknown("noise", noise, sources)
        if isinstance(sampler, str):
            sampler, named = samplers.names.split(sampler)
            grid = named or grid
        times = grids.registry.resolve(grid)(path, steps, extent)
        return Scheme(samplers.registry.resolve(sampler).of(extent), times, sources[noise])


def extent(model: Model) -> Extent:
    """How far the model's data reaches: its `data_std`, or 1 where it does not say, its size, and its `spectrum`."""
    return Extent(getattr(model, "data_std", 1.0), math.prod(model.shape), getattr(model, "spectrum", ()))


def with_eta(named: Sampler | str | Mapping[str, Any], eta: float) -> Sampler:
    """The sampler with its eta set; a sentence if it has none."""
    sampler = samplers.registry.resolve(named)
    if not isinstance(sampler, Ancestral):
        name = named if isinstance(named, str) else samplers.registry.describe(sampler)["name"]
        raise PellucidError(f"eta is {eta}, but sampler {name!r} has no eta; take ddim, or leave eta out.")
    return replace(sampler, eta=eta)


def start(seed: int, index: Tensor, path: Path, t: float, model: Model) -> Batch:
    """The noise in which sampling starts: sigma(t) eps, [b, *shape]."""
    times = torch.full((len(index),), t, dtype=torch.float64)
    eps = normal(seed, index, 0, model.shape, stream=START, dtype=model.dtype)
    eps = sent(eps, model.device)
    return along(path.sigma(times), eps) * eps


def walk(denoise: Denoise, scheme: Scheme, state: State, seed: int, index: Tensor) -> Iterator[State]:
    """The state after each step of the scheme; `index` [b] numbers the samples. A grid that rises adds noise."""
    path, sampler, i = denoise.path, scheme.sampler, 0
    clock = tick(path.lam(scheme.times))
    times, clock = (row[:, None].repeat(1, len(index)) for row in (scheme.times, clock))  # [steps + 1, b]
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
    cond: Mapping[str, Tensor | int] | None = None,
    guidance: Guidance | float | None = None,
    batch: int = 64,
    exact: bool = False,
    noise: str = "independent",
    path: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Batch:
    """Draw samples first ... first + n - 1 of `seed`: [n, *shape] in model units.

    cond: a tensor [n] or one value for each condition, such as {"label": 3}.
    guidance: a scale (classifier-free: 1 conditional, 0 unconditional), or any guidance, such as CFG(2, rescale=0.7).
    exact: each sample is computed alone, so that it is bit-equal whatever the batch; without it, to about 1e-6.
    noise: "independent" in each step, or "brownian": more steps refine the same picture of a stochastic sampler.
    path: sample on another path than the model was trained on.
    progress: called with (samples finished, n).
    """
    if n < 1 or batch < 1:
        raise PellucidError(f"n is {n} and batch is {batch}; expected whole numbers, 1 or more.")
    model, conditions = prepare(model, n, cond, guidance, path)
    scheme = Scheme.make(model.path, sampler, steps, grid, noise, extent(model))
    size, out = 1 if exact else batch, []
    for low in range(0, n, size):
        index = torch.arange(first + low, first + min(low + size, n))
        part = {name: value[low : low + size] for name, value in conditions.items()}
        states = walk(Bound(model, part), scheme, _begin(model, scheme, seed, index), seed, index)
        out.append(deque(states, maxlen=1).pop().x)  # the last of them, keeping no other
        if progress:
            progress(min(low + size, n), n)
    return torch.cat(out)


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
    cond: Mapping[str, Tensor | int] | None = None,
    guidance: Guidance | float | None = None,
    noise: str = "independent",
    path: Path | str | None = None,
) -> list[Step]:
    """The way from noise to data of `sample` with the same arguments: steps + 1 points, the first one noise."""
    model, conditions = prepare(model, n, cond, guidance, path)
    scheme = Scheme.make(model.path, sampler, steps, grid, noise, extent(model))
    index = torch.arange(first, first + n)
    heard = _Witness(Bound(model, conditions))
    state = _begin(model, scheme, seed, index)
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


class Inversion(NamedTuple):
    """The noise that leads to x, what sampling makes of it, and how far that is from x: rms [n], in model units."""

    noise: Batch
    back: Batch
    error: Tensor


@torch.no_grad()
def invert(
    model: Model,
    x: Batch,
    *,
    sampler: Sampler | str = "ddim",
    steps: int = 50,
    grid: Grid | str = "karras",
    rounds: int = 0,
    cond: Mapping[str, Tensor | int] | None = None,
    guidance: Guidance | float | None = None,
    path: Path | str | None = None,
) -> Inversion:
    """The noise from which `sampler` draws x [n, *shape]: its own steps with their ends swapped, and back again.

    A swapped step is as accurate as the sampler's order. With `rounds` > 0 each is refined as often to the point whose
    step lands where it came from (a fixed point; samplers without memory alone): then only the last step, which no
    point need lead to, is inexact. x counts as seen at the grid's smallest time, so that the data is never asked.
    """
    model, conditions = prepare(model, len(x), cond, guidance, path)
    scheme, denoise = Scheme.make(model.path, sampler, steps, grid, extent=extent(model)), Bound(model, conditions)
    down = scheme.sampler
    if down.stochastic or not down.calls or (rounds and down.past):
        why = "draws noise" if down.stochastic else "remembers" if down.calls else "chooses its own steps"
        raise PellucidError(f"the sampler {why}, so that it has no exact inverse; take ddim, heun or rk4.")
    up = scheme.times[:-1].flip(0)
    x = x.to(model.device, model.dtype)
    t = up[:1].expand(len(x))
    size = torch.hypot(model.path.alpha(up), model.path.sigma(up))
    state = down.init(along(model.path.alpha(t), x) * x, t)
    there, here = down.prepare(model.path, up), down.prepare(model.path, up.flip(0))[::-1]
    for i, s in enumerate(up[1:]):
        s, goal = s.expand(len(x)), state
        state = down.move(denoise, state, s, there[i], _silent)
        for _ in range(rounds):
            gap = goal.x - down.move(denoise, state, goal.t, here[i], _silent).x
            state = state._replace(x=state.x + float(size[i + 1] / size[i]) * gap)
    index = torch.arange(len(x))
    *_, last = walk(denoise, scheme, down.init(state.x, state.t), 0, index)
    return Inversion(state.x, last.x, (last.x - x).double().flatten(1).square().mean(1).sqrt())


def _silent(draw: int) -> Batch:
    raise AssertionError("a deterministic sampler drew noise")


class Counted(Wrapper):
    """A model that counts: how many samples it has been asked about, `calls`, all told."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.calls = 0

    def __call__(self, x: Batch, t: Times, cond: Mapping[str, Tensor] | None = None) -> Denoised:
        self.calls += len(x)
        return self.model(x, t, cond)


def prepare(
    model: Model,
    n: int,
    cond: Mapping[str, Tensor | int] | None,
    guidance: Guidance | float | None,
    path: Path | str | None,
) -> tuple[Model, dict[str, Tensor]]:
    """The model with path and guidance around it, and its conditions as tensors that lead with n."""
    if not isinstance(n, int) or n < 1:
        raise PellucidError(f"n is {n!r}; expected a whole number, 1 or more.")
    if path is not None:
        model = Repath(model, path)
    if guidance is not None:
        model = (CFG(guidance) if isinstance(guidance, int | float) else guidance)(model)
    if not isinstance(cond, Mapping | None):
        raise PellucidError(f"cond is {cond!r}; expected values by name, such as {{'label': 3}}.")
    return model, {name: _spread(name, value, n).to(model.device) for name, value in (cond or {}).items()}


def _spread(name: str, value: Tensor | int, n: int) -> Tensor:
    """One value of a condition for each of n samples."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise PellucidError(f"condition {name!r} is {value!r}; expected a number, or a tensor of {n}.") from None
    if name == "label" and (tensor.is_floating_point() or tensor.is_complex() or tensor.dim() > 1):
        raise PellucidError(f"condition 'label' is {value!r}; expected a whole number, or one for each of {n} samples.")
    spread = tensor.expand(n) if tensor.dim() == 0 else tensor
    if len(spread) != n:
        raise PellucidError(f"condition {name!r} has {len(tensor)} values, not {n}; give one, or one for each.")
    return spread


def _begin(model: Model, scheme: Scheme, seed: int, index: Tensor) -> State:
    t = float(scheme.times[0])
    times = torch.full((len(index),), t, dtype=torch.float64)
    return scheme.sampler.init(start(seed, index, model.path, t, model), times)
