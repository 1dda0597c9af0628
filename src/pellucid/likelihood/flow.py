r"""log p by the probability-flow ODE: sampling, walked the other way.

With (alpha, sigma) = r (cos theta, sin theta) and y = x/r, a model draws its samples along (samplers/adaptive.py)

    dy/dtheta = f(y, theta) = cos(theta) eps - sin(theta) x0

from noise of known density, so that it has a density itself (Chen et al. 2018, eq. 8; Song et al. 2021, eq. 39):

    log p(x) = log N(y_1; 0, sin^2 theta_1) + l_1,    dl/dtheta = div f,    l = 0 at the data

Nothing new solves this. Exchange signal and noise, x0 and eps, t and 1 - t, and the way from data to noise is a path
that leads from noise to data: its mirror. And l is one more coordinate of the sample, with a pair of its own,

    (x0, eps)_l = (cos l - sin l', sin l + cos l'),    which mixes to l and moves as dl/dtheta = l'.

So every deterministic sampler finds log p, to its own order. The start is at sigma/alpha = `low`, where the data stands
for its noisy self; with d/dtheta log p_theta(y) = f . eps / sin(theta) - div f, which vanishes like theta, this leaves
out theta/2 times that: `cut`.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import grids, samplers
from ..conditioning import Conditions
from ..errors import PellucidError
from ..grids import Grid
from ..paths import Path
from ..samplers import Adaptive, Sampler
from ..samplers.base import silent
from ..types import Batch, Bound, Cond, Denoise, Denoised, Model, Times, along
from .divergence import Divergence, Exact, Hutchinson, products
from .divergence import registry as divergences
from .grain import Dequantise, spots
from .grain import registry as dequantisations
from .value import Likelihood, door

SMALL = 16  # dimensions up to which the trace is taken as it is
SOLVER = Adaptive("dopri5", rtol=1e-5, atol=1e-5)


@dataclass(frozen=True)
class Mirror(Path):
    """`base` walked the other way: time 1 - t, signal and noise exchanged."""

    base: Path

    def alpha(self, t: Times) -> Times:
        return self.base.sigma(1 - t)

    def sigma(self, t: Times) -> Times:
        return self.base.alpha(1 - t)

    def time(self, lam: Times) -> Times:
        return 1 - self.base.time(-lam)


class Carrier:
    """A Denoise of the mirror whose samples carry l: [b, d + rounds], r times [y, l]."""

    def __init__(self, denoise: Denoise, model: Model, v: Tensor, fold: Callable[[Tensor], Tensor], keep: bool) -> None:
        self.denoise, self.model, self.v, self.fold, self.keep = denoise, model, v, fold, keep
        self.path = Mirror(denoise.path)
        self.calls = 0
        self.drift: Tensor | None = None  # d/dtheta log p_theta, at the first point that is asked for

    def __call__(self, x: Batch, t: Times) -> Denoised:
        alpha, sigma = self.path.sigma(t), self.path.alpha(t)
        r, d = torch.hypot(alpha, sigma), self.v.shape[-1]
        here, carried = x.split([d, x.shape[1] - d], 1)
        x0, eps, rate = self.field(here, 1 - t, alpha, sigma)
        if self.drift is None:
            f = (along(alpha, x) * eps - along(sigma, x) * x0) / along(r, x)
            self.drift = (f * eps).sum(1) * (r / sigma).to(x) - rate.mean(1)
        own = along(alpha / r**2, x) * carried - along(sigma / r, x) * rate
        other = along(sigma / r**2, x) * carried + along(alpha / r, x) * rate
        return Denoised(torch.cat([eps, other], 1), torch.cat([x0, own], 1))

    def field(self, x: Batch, t: Times, alpha: Times, sigma: Times) -> tuple[Batch, Batch, Tensor]:
        """(x0, eps) [b, d] at x_t [b, d], and div f [b, rounds]; what is kept can be differentiated again."""
        self.calls += len(x)
        with torch.enable_grad():
            x = x if self.keep and x.requires_grad else x.detach().requires_grad_()
            x0, eps = asked(self.denoise, self.model, x, t)
            rate = self.fold(products(along(alpha, x) * eps - along(sigma, x) * x0, x, self.v, self.keep))
        return (x0, eps, rate) if self.keep else (x0.detach(), eps.detach(), rate.detach())


def asked(denoise: Denoise, model: Model, x: Batch, t: Times) -> tuple[Batch, Batch]:
    """(x0, eps) at x [b, d], in the precision of x whatever that of the model."""
    seen = denoise(x.to(model.device, model.dtype).reshape(-1, *model.shape), t)
    return seen.x0.flatten(1).to(x), seen.eps.flatten(1).to(x)


class Way(NamedTuple):
    """From data to noise: log N(y_1) [n], l_1 [n, rounds], what the cut leaves out [n], and calls for each sample."""

    prior: Tensor
    volume: Tensor
    cut: Tensor
    calls: float


class Solver(NamedTuple):
    """Which sampler solves the ODE, in which steps (the adaptive ones choose their own), from which sigma/alpha."""

    sampler: Sampler = SOLVER
    steps: int = 100
    grid: Grid = grids.Lam()
    low: float = 1e-4

    @staticmethod
    def make(sampler: Sampler | str, steps: int, grid: Grid | str, low: float) -> "Solver":
        """From names or objects."""
        solver = Solver(samplers.registry.resolve(sampler), steps, grids.registry.resolve(grid), low)
        if solver.sampler.stochastic:
            raise PellucidError("the sampler draws noise, and so follows no flow; take dopri5, unipc or dpmpp-3m.")
        if solver.grid.rises:
            raise PellucidError("the grid goes back up on its way, and a flow does not; take lam or karras.")
        if not 0 < low < 1:
            raise PellucidError(f"low is {low}; expected the sigma/alpha of the start, such as 1e-4.")
        return solver

    def start(self, path: Path) -> Times:
        """The time at which the data stands for its noisy self, []."""
        return path.time(-torch.tensor(self.low, dtype=torch.float64).log())

    def times(self, path: Path) -> Times:
        """The mirror's times, falling from the start to 0."""
        first = self.start(path)
        if not self.sampler.calls:
            return torch.stack([1 - first, torch.zeros_like(first)])
        up = self.grid(path, self.steps)[:-1].flip(0)
        return 1 - torch.cat([first[None], up[up > first]])

    def way(self, model: Model, y: Batch, cond: Cond | None, v: Tensor, fold: Callable[[Tensor], Tensor]) -> Way:
        """From y [n, d] at the start to the noise."""
        path, times = model.path, self.times(model.path)
        one, denoise = torch.ones(len(y), dtype=torch.float64), Bound(model, cond)
        keep = torch.is_grad_enabled() and asked(denoise, model, y, 0.5 * one)[0].requires_grad
        carrier = Carrier(denoise, model, v, fold, keep)
        rounds = fold(torch.zeros(len(y), len(v))).shape[1]
        z = torch.cat([y, y.new_zeros(len(y), rounds)], 1)
        state = self.sampler.init(along(_size(path, (1 - times[0]) * one), z) * z, times[0] * one)
        for s, numbers in zip(times[1:].tolist(), self.sampler.prepare(carrier.path, times), strict=True):
            state = self.sampler.move(carrier, state, s * one, numbers, silent)
        assert carrier.drift is not None
        y, volume = (state.x / along(_size(path, one), state.x)).split([y.shape[1], rounds], 1)
        sine = (path.sigma(one) / _size(path, one)).to(y)
        prior = -(y / sine[:, None]).square().sum(1) / 2 - y.shape[1] * (sine.log() + math.log(2 * math.pi) / 2)
        return Way(prior, volume, -math.atan(self.low) / 2 * carrier.drift, carrier.calls / len(y))


def _size(path: Path, t: Times) -> Times:
    return torch.hypot(path.alpha(t), path.sigma(t))


def log_prob(
    model: Model,
    x: Batch,
    *,
    cond: Conditions = None,
    divergence: Divergence | str | None = None,
    sampler: Sampler | str = SOLVER,
    steps: int = 100,
    grid: Grid | str = "lam",
    low: float = 1e-4,
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """[n] log density, in nats, of x [n, *shape] in model units: float64, and a function that can be differentiated.

    Gradients flow to whatever asks for them, x or the model's weights.
    Sample i has the probes of number `first + i` of `seed`. All n samples are in memory at once; `flow` takes parts.
    """
    heard = door(model, x, cond, 0.0, {"steps": steps})
    chosen, solver = _divergence(divergence, x), Solver.make(sampler, steps, grid, low)
    v = chosen.vectors(x[0].numel(), seed, torch.arange(first, first + len(x)), 0)
    way = solver.way(model, x.flatten(1).to(model.device).double(), heard, v, chosen.fold)
    return way.prior + way.volume.mean(1)


def _guess(model: Model, solver: Solver, y: Batch, cond: Cond) -> Batch:
    """x0^ at y [b, d], where the solver starts."""
    t = solver.start(model.path).expand(len(y))
    return asked(Bound(model, cond), model, along(_size(model.path, t), y) * y, t)[0].cpu()


def _divergence(chosen: Divergence | str | None, x: Batch) -> Divergence:
    if chosen is None:
        return Exact() if x[0].numel() <= SMALL else Hutchinson()
    return divergences.resolve(chosen)


@torch.no_grad()
def flow(
    model: Model,
    x: Batch,
    *,
    cond: Conditions = None,
    grain: float = 0.0,
    dequantise: Dequantise | str = "noise",
    rounds: int = 1,
    divergence: Divergence | str | None = None,
    sampler: Sampler | str = SOLVER,
    steps: int = 100,
    grid: Grid | str = "lam",
    low: float = 1e-4,
    seed: int = 0,
    first: int = 0,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Likelihood:
    """log p of x [n, *shape] in model units by the probability-flow ODE; see the module.

    grain: the step between values of quantised data (2/255 for bytes); then log P of the values themselves is bounded
    from below, with `rounds` draws of the dequantisation. Continuous data (0) has a density, and no such rounds.
    divergence: exact or hutchinson; by default exact up to 16 dimensions.
    sampler: any deterministic one; `steps` and `grid` are for those with fixed steps.
    dequantise: noise, on the footing of the bounds; uniform or normal within the bins.
    low: the sigma/alpha at which the data stands for its noisy self; dequantisation by noise has its own.
    progress: called with (samples finished, n).
    """
    heard = door(model, x, cond, grain, {"rounds": rounds, "batch": batch, "steps": steps})
    chosen, solver = _divergence(divergence, x), Solver.make(sampler, steps, grid, low)
    spread, dims = dequantisations.resolve(dequantise), x[0].numel()
    solver = solver._replace(low=spread.level(grain, low)) if grain else solver
    if not solver.low < 1:
        raise PellucidError(f"dequantise starts at sigma/alpha = {solver.low:.4g}; expected less than 1: less noise.")
    began, parts, calls = time.perf_counter(), [], 0.0
    for i in torch.arange(len(x)).split(batch):
        index, own = first + i, {name: value[i.to(value.device)] for name, value in heard.items()}
        found = []
        for step in range(rounds if grain else 1):
            y, gained = x[i].flatten(1).double().cpu(), torch.zeros(len(i), dtype=torch.float64)
            if grain:
                value = y
                y, gained = spread.draw(value, grain, spots(seed, index, step, dims))
                gained = gained + spread.told(value, grain, partial(_guess, model, solver, y, own))
            v = chosen.vectors(dims, seed, index, step).to(model.device)
            way = solver.way(model, y.to(model.device), own, v, chosen.fold)
            way = way._replace(cut=way.cut * (solver.low == low))  # a level of its own is no cut
            calls += way.calls * len(i) / len(x)
            found.append(_round(way, gained, bool(grain)))
        parts.append([torch.cat(columns, 1) for columns in zip(*found, strict=True)])
        if progress:
            progress(int(i[-1]) + 1, len(x))
    prior, volume, gained, cut = (torch.cat(rows) for rows in zip(*parts, strict=True))
    terms = {"prior": prior, "volume": volume} | ({"grain": gained} if grain else {})
    drawn, seconds = bool(grain) or not isinstance(chosen, Exact), time.perf_counter() - began
    return Likelihood("flow", terms, dims, drawn, calls, seconds, cut=cut.mean(1))


def _round(way: Way, gained: Tensor, grain: bool) -> tuple[Tensor, ...]:
    """What one way adds to the columns of prior, volume, gained and cut, [n, rounds] each.

    The probes of one way are rounds of their own unless its start was drawn too: then they share that draw.
    """
    volume = way.volume.cpu().mean(1, keepdim=True) if grain else way.volume.cpu()
    return way.prior.cpu()[:, None].expand_as(volume), volume, gained[:, None], way.cut.cpu()[:, None]
