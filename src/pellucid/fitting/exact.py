r"""The exact way: where each sample ends, what the model says of it on its way there, and what becomes of an error.

The probability-flow ODE from the noise of each sample, by many small steps of third order. On the way the pair
(x0, eps) is kept at some of the times; x(t) = alpha x0 + sigma eps. A small error dx at t_j grows or shrinks to

    a_j |dx|,     a_j = |x(0; x_j + dx) - x(0; x_j)| / |dx|,     dx along the change of x0, as the errors of steps are
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import samplers
from ..errors import PellucidError
from ..grids import Lam
from ..noise import START, normal
from ..paths import Path
from ..samplers import Sampler
from ..samplers.base import silent
from ..sampling import Guidance, extent, prepare
from ..types import ONE, Batch, Bound, Denoise, Denoised, Extent, Model, State, Times, along

Progress = Callable[[int, int], None]
FINE = 200  # steps of the exact way
NODES = 66  # times of it that are kept
WATCHED = 32  # samples whose way is kept
PUSH = 0.02  # of |x|: the error that is followed
SOLVER = "dpmpp-3m"


class Part(NamedTuple):
    """A batch of samples: the model with their conditions, their noise, and where they end."""

    denoise: Denoise
    eps: Batch
    goal: Batch

    def begin(self, sampler: Sampler, times: Times) -> State:
        """The state in which sampling starts."""
        t = times[:1].expand(len(self.eps))
        return sampler.init(along(self.denoise.path.sigma(t), self.eps) * self.eps, t)

    def gap(self, state: State) -> Tensor:
        """x - x(0), [b, d]."""
        return (state.x - self.goal).flatten(1).double()

    def distance(self, sampler: Sampler, times: Times) -> Tensor:
        """[b] root mean square of x - x(0) where a sampler with these times ends, for each sample."""
        return rms(self.gap(end(self.denoise, sampler, times, self.begin(sampler, times))))


class Way(NamedTuple):
    """The pair at falling times, the last of them 0: x0, eps [m, n, *shape]; the noise; a [m]."""

    path: Path
    times: Times
    x0: Tensor
    eps: Tensor
    noise: Batch
    gain: Tensor


class Exact(NamedTuple):
    """What is known of some samples: those to fit on, those to measure on, and the way of the first ones."""

    path: Path
    fit: list[Part]
    held: list[Part]
    way: Way
    fine: int
    extent: Extent = ONE


def distance(parts: Sequence[Part], sampler: Sampler, times: Times) -> Tensor:
    """[n] how far each sample of all parts ends from where it should."""
    return torch.cat([part.distance(sampler, times) for part in parts]).cpu()


def rms(x: Tensor) -> Tensor:
    """[n, d] -> [n]."""
    return x.square().mean(1).sqrt()


def onward(denoise: Denoise, sampler: Sampler, times: Times, state: State, first: int = 0) -> Iterator[State]:
    """The states after step number `first` and all later ones, `state` being that before it."""
    numbers = sampler.prepare(denoise.path, times)
    for s, c in zip(times[first + 1 :].tolist(), numbers[first:], strict=True):
        state = sampler.move(denoise, state, torch.full_like(state.t, s), c, silent)
        yield state


def end(denoise: Denoise, sampler: Sampler, times: Times, state: State, first: int = 0) -> State:
    """The last of them."""
    return deque(onward(denoise, sampler, times, state, first), maxlen=1).pop()


@torch.no_grad()
def follow(
    model: Model,
    n: int = 64,
    *,
    seed: int = 0,
    cond: Mapping[str, Tensor | int] | None = None,
    guidance: Guidance | float | None = None,
    batch: int = 64,
    fine: int = FINE,
    progress: Progress | None = None,
) -> Exact:
    """Follow n samples of `seed` and as many of `seed + 1` in `fine` steps. cond, guidance: as for `sample`.

    progress: called with (calls of the network so far, all of them), one for a batch.
    """
    check(fine)
    if n == 1:
        raise PellucidError("n is 1; expected 2 samples or more, so that the error of their mean is known.")
    model, conditions = prepare(model, n, cond, guidance, None)
    solver, times = samplers.registry.make(SOLVER), Lam()(model.path, fine)
    lows = range(0, n, batch)
    done, whole = 0, 2 * len(lows) * fine

    def count() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, whole)

    def part(low: int, seed: int) -> tuple[Part, Recorder]:
        index = torch.arange(low, min(low + batch, n))
        own = {name: value[low : low + batch] for name, value in conditions.items()}
        eps = normal(seed, index, 0, model.shape, stream=START, dtype=model.dtype).to(model.device)
        heard = Recorder(Bound(model, own), fine, WATCHED if low == 0 else 0, count)
        state = Part(heard, eps, eps).begin(solver, times)
        return Part(heard.denoise, eps, end(heard, solver, times, state).x), heard

    (first, heard), *rest = [part(low, seed) for low in lows]
    held = [part(low, seed + 1)[0] for low in lows]
    few = {name: value[:WATCHED] for name, value in conditions.items()}
    way = heard.way(first.eps, first.goal)
    way = way._replace(gain=gains(Bound(model, few), way))
    return Exact(model.path, [first, *(part for part, _ in rest)], held, way, fine, extent(model))


def check(fine: int) -> None:
    """Refuse a way of too few steps."""
    if not 2 * NODES <= fine <= 100_000:
        raise PellucidError(f"fine is {fine}; expected {2 * NODES} steps of the exact way or more, such as {FINE}.")


class Recorder:
    """A Denoise that keeps what it said of the first samples, at every so many of its calls."""

    def __init__(self, denoise: Denoise, calls: int, watched: int, count: Callable[[], None]) -> None:
        self.denoise, self.watched, self.count = denoise, watched, count
        self.stride, self.heard, self.pairs = calls // NODES, 0, list[tuple[float, Batch, Batch]]()

    @property
    def path(self) -> Path:
        return self.denoise.path

    def __call__(self, x: Batch, t: Times) -> Denoised:
        d = self.denoise(x, t)
        if self.watched and (self.heard == 0 or self.heard % self.stride == 1):
            self.pairs.append((float(t[0]), d.x0[: self.watched], d.eps[: self.watched]))
        self.heard += 1
        self.count()
        return d

    def way(self, noise: Batch, goal: Batch) -> Way:
        """What was heard, and the data at the end."""
        data = goal[: self.watched]
        times, x0, eps = zip(*self.pairs, (0.0, data, torch.zeros_like(data)), strict=True)
        t = torch.tensor(times, dtype=torch.float64)
        return Way(self.path, t, torch.stack(x0), torch.stack(eps), noise[: self.watched], torch.ones_like(t))


def gains(denoise: Denoise, way: Way, apart: int = 8) -> Tensor:
    """[m] a_j: measured at every `apart`-th time by pushing x a little, log-linear between them, 1 at the data."""
    last = len(way.times) - 1
    nodes, logs = [*range(1, last - 2, apart), last], list[float]()
    solver = samplers.registry.make("dpmpp-2m")
    for j in nodes[:-1]:
        times = torch.cat([way.times[j:last:4], way.times[-1:]])
        t = times[:1].expand(way.x0.shape[1])
        x = way.path.mix(way.x0[j], way.eps[j], t)
        along_x0 = way.x0[j + 1] - way.x0[j]
        reach = PUSH * norm(x) / norm(along_x0).clamp(min=1e-30)
        push = along(reach, x) * along_x0
        ends = [end(denoise, solver, times, solver.init(y, t)).x for y in (x, x + push)]
        ratio = norm(ends[1] - ends[0]) / norm(push).clamp(min=1e-30)
        logs.append(float(ratio.square().mean().clamp(min=1e-12).log() / 2))
    return interpolate(torch.arange(last + 1), nodes, [*logs, 0.0]).exp()


def norm(x: Batch) -> Tensor:
    """[n, *shape] -> [n]."""
    return x.flatten(1).double().norm(dim=1)


def interpolate(at: Tensor, nodes: list[int], values: list[float]) -> Tensor:
    """The straight lines through (nodes, values), level outside."""
    x, y = (torch.tensor(v, dtype=torch.float64) for v in (nodes, values))
    i = torch.searchsorted(x, at.double()).clamp(1, len(nodes) - 1)
    share = ((at - x[i - 1]) / (x[i] - x[i - 1])).clamp(0, 1)
    return y[i - 1] + share * (y[i] - y[i - 1])
