r"""The bound on log p that diffusion models are trained on, term by term.

    log p(x0) >= - KL(q(x_1 | x0) || N(0, sigma_1^2)) - sum_t KL(q(x_s | x_t, x0) || p(x_s | x_t)) + E log p(x0 | x_cut)
                   prior                                diffusion                                    decoder

prior: alpha_1^2 |x0|^2 / (2 sigma_1^2), 0 on a path that ends in noise alone.

diffusion: both Gaussians have the variance v = sigma_s^2 (1 - exp(-2 h)), h = lam_s - lam_t, unless the model has its
own, v'. With m = alpha_s dx0 + sigma_s exp(-h) deps the gap of their means, (dx0, deps) the error of the pair, each
dimension gives (log v'/v + (v + m^2)/v' - 1)/2; with equal variances all give

    (SNR_s - SNR_t) |dx0|^2 / 2,  and for T -> infinity  int SNR |dx0|^2 dlam = int |deps|^2 dlam

(Kingma et al. 2021, eq. 13 and 17; their gamma is -2 lam). With the exact denoiser |dx0|^2 falls on average as SNR
rises: the sum lies above the integral, by at most sum (SNR_s - SNR_t) (|dx0_t|^2 - |dx0_s|^2)/2, and with the integral
the bound is log p itself.

decoder: N(x0^, (sigma/alpha)^2) at the smallest noise, or the mass that it has in the bins of quantised data
(grain.py). What it gives away is of order (sigma/alpha)^2 over the variance of the data.

Two things keep digits. Errors are measured along the turn of the pair, e = cos(theta) deps - sin(theta) dx0, for which
|deps| = cos(theta) |e| without a quotient at either end. And of data of variance w the error deps holds g eps, with
g = w/(w + exp(-2 lam)): so g^2 (|eps|^2 - d), whose mean is zero, is taken off |deps|^2.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import grids
from ..conditioning import Conditions
from ..errors import PellucidError
from ..grids import Grid
from ..noise import BOUND, LEVEL, normal, uniform
from ..paths import Path, slope
from ..types import Batch, Cond, Denoised, Model, Times, along
from .draws import Draws, Wiener
from .grain import Dequantise, decode, spots
from .grain import registry as dequantisations
from .value import Curve, Likelihood, door


class Seen(NamedTuple):
    """The errors of the pair at x_t, what of |deps|^2 is the noise's own chance [b], and what the model said."""

    dx0: Tensor  # [b, *shape] float64
    deps: Tensor
    chance: Tensor
    said: Denoised


class Asked(NamedTuple):
    """A model, data of it, and whose noise is drawn."""

    model: Model
    x0: Tensor  # [b, *shape] float64
    cond: Cond
    seed: int
    number: Tensor  # [b] of the samples
    grain: float
    std: float
    spread: Dequantise | None  # points drawn in the bins take the place of the decoder's bins

    def drawn(self, step: int) -> "tuple[Asked, Tensor]":
        """What round `step` asks of, and the -log q [b] of its points."""
        if self.spread is None:
            return self, torch.zeros(len(self.x0), dtype=torch.float64)
        flat = self.x0.flatten(1)
        y, gained = self.spread.draw(flat, self.grain, spots(self.seed, self.number, step, flat.shape[1]))
        return self._replace(x0=y.reshape(self.x0.shape), grain=0.0, spread=None), gained

    def take(self, i: Tensor) -> "Asked":
        """The samples at i."""
        cond = {name: value[i.to(value.device)] for name, value in self.cond.items()}
        return self._replace(x0=self.x0[i], number=self.number[i], cond=cond)

    def see(self, t: Times, step: int) -> Seen:
        """The model at times t [b] in noise number `step`."""
        path = self.model.path
        eps = normal(self.seed, self.number, step, tuple(self.x0.shape[1:]), stream=BOUND, dtype=torch.float64)
        d = self.model(path.mix(self.x0, eps, t).to(self.model.device, self.model.dtype), t, self.cond)
        share = torch.sigmoid(2 * (path.lam(t) + math.log(self.std)))  # g
        chance = share**2 * (eps.square() - 1).flatten(1).sum(1)
        return Seen(self.x0 - d.x0.cpu().double(), eps - d.eps.cpu().double(), chance, d)

    def prior(self, t: Times) -> Tensor:
        """[b] - KL(q(x_t | x0) || N(0, sigma_t^2)), t [] where the noise begins."""
        return -torch.exp(2 * self.model.path.lam(t)) * self.x0.flatten(1).square().sum(1) / 2

    def decoder(self, t: Times, step: int) -> Tensor:
        """[b] log p(x0 | x_t)."""
        seen = self.see(t, step)
        found = decode(self.x0, self.x0 - seen.dx0, torch.exp(-self.model.path.lam(t)), self.grain)
        return found if self.grain else found + seen.chance / 2

    def density(self, t: Times, step: int) -> Tensor:
        """[b] |deps|^2: the diffusion term for each unit of lam."""
        path, seen = self.model.path, self.see(t, step)
        alpha, sigma = path.alpha(t), path.sigma(t)
        cos = alpha / (alpha**2 + sigma**2)  # over r, as e below is r e
        e = along(cos * alpha, seen.deps) * seen.deps - along(cos * sigma, seen.dx0) * seen.dx0
        return e.flatten(1).square().sum(1) - seen.chance

    def divergence(self, t: Times, s: Times, step: int) -> Tensor:
        """[b] KL(q(x_s | x_t, x0) || p(x_s | x_t))."""
        path, seen = self.model.path, self.see(t, step)
        square = missed(path, seen.dx0, seen.deps, t, s)
        if seen.said.spread is None:
            h = path.lam(s) - path.lam(t)
            chance = torch.where(h.isfinite(), torch.expm1(2 * h) * seen.chance, 0.0)
            return (square.flatten(1).sum(1) - chance) / 2
        ratio = widened(path, seen.said.spread, t, s)
        return (ratio + (1 + square) * torch.exp(-ratio) - 1).flatten(1).sum(1) / 2


def missed(path: Path, dx0: Batch, deps: Batch, t: Times, s: Times) -> Tensor:
    """m^2/v [b, *shape] of the step from t to s: how far errors of the pair move its mean."""
    h, sigma = path.lam(s) - path.lam(t), path.sigma(s)
    v = sigma**2 * -torch.expm1(-2 * h)
    m = along(path.alpha(s), dx0) * dx0 + along(sigma * torch.exp(-h), deps) * deps
    return m.square() / along(v, m)


def widened(path: Path, spread: Batch, t: Times, s: Times) -> Tensor:
    """log v'/v [b, *shape] of the step from t to s, float64 on the CPU."""
    spread = spread.cpu().double()
    return 2 * along(torch.log(path.sigma(t) / path.sigma(s)), spread) * spread


class Chain(NamedTuple):
    """The diffusion term as a sum: a KL for each step of a grid but the last, which is the decoder's."""

    times: Times

    @property
    def edges(self) -> Times:
        """The times between which its parts lie, the last one the decoder's."""
        return self.times[:-1]

    def part(self, asked: Asked, k: int, step: int) -> Tensor:
        """[b] the k-th KL."""
        t, s = self.times[k].expand(len(asked.x0)), self.times[k + 1].expand(len(asked.x0))
        return asked.divergence(t, s, step)


class Integral(NamedTuple):
    """The diffusion term as an integral, in parts of equal probability under `draws`; nothing falls below edges[-1]."""

    draws: Draws
    edges: Times

    def part(self, asked: Asked, k: int, step: int) -> Tensor:
        """[b] what falls on the k-th part, seen at one time in it."""
        path, parts = asked.model.path, len(self.edges) - 1
        u = 1 - (k + uniform(asked.seed, asked.number, step, stream=LEVEL)) / parts
        t = self.draws.times(u, path)
        price = slope(path.lam, t).abs() / (parts * self.draws.density(t, path))
        return torch.where((t >= self.edges[-1]) & (t < 1), price * asked.density(t, step), 0.0)  # none on t = 1


@torch.no_grad()
def discrete(
    model: Model,
    x: Batch,
    *,
    cond: Conditions = None,
    grain: float = 0.0,
    dequantise: Dequantise | str | None = None,
    std: float = 0.5,
    steps: int = 100,
    grid: Grid | str = "lam",
    rounds: int = 2,
    seed: int = 0,
    first: int = 0,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Likelihood:
    """The bound of a chain of `steps` steps on x [n, *shape] in model units; `curve` has every KL.

    grain: the step between values of quantised data (2/255 for bytes), 0 for continuous data.
    dequantise: uniform for the density of points drawn in the bins; by default the decoder gives the bins' mass.
    std: about the data's standard deviation; it lowers the errors, and changes no mean.
    grid: the times of the chain, those of any sampler; the last step, to the data, is the decoder.
    rounds: how often the whole chain is gone through, each time in other noise.
    seed, first: sample i is seen in the noise of number first + i. progress: called with (samples finished, n).
    """
    heard = door(model, x, cond, grain, {"steps": steps, "rounds": rounds, "batch": batch})
    chosen = grids.registry.resolve(grid)
    if chosen.rises:
        raise PellucidError("the grid goes back up on its way, and a chain does not; take lam, karras or uniform.")
    chain, asked = Chain(chosen(model.path, steps)), _asked(model, x, heard, grain, dequantise, std, seed, first)
    return _bound("discrete", chain, asked, rounds, batch, progress)


@torch.no_grad()
def continuous(
    model: Model,
    x: Batch,
    *,
    cond: Conditions = None,
    grain: float = 0.0,
    dequantise: Dequantise | str | None = None,
    std: float = 0.5,
    times: Draws | None = None,
    low: float = 1e-3,
    levels: int = 16,
    rounds: int = 2,
    seed: int = 0,
    first: int = 0,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Likelihood:
    """The bound of endlessly many steps on x [n, *shape] in model units, down to sigma/alpha = low.

    times: at which t the integral is looked at, by default those of `Wiener`. Every round has one of them in each of
    `levels` parts of equal probability; `curve` has what falls on each part.
    grain, dequantise, std, rounds, seed, first, progress: as for `discrete`.
    """
    heard = door(model, x, cond, grain, {"levels": levels, "rounds": rounds, "batch": batch})
    if not 0 < low < 1:
        raise PellucidError(f"low is {low}; expected the sigma/alpha of the decoder, such as 1e-3.")
    asked, draws = _asked(model, x, heard, grain, dequantise, std, seed, first), times or Wiener(std, low)
    end = model.path.time(-torch.tensor(low, dtype=torch.float64).log())
    edges = draws.times(torch.linspace(1, 0, levels + 1, dtype=torch.float64), model.path)
    integral = Integral(draws, torch.cat([edges[:-1].clamp(min=end), end[None]]))
    return _bound("continuous", integral, asked, rounds, batch, progress)


def _asked(
    model: Model,
    x: Batch,
    cond: Cond,
    grain: float,
    dequantise: Dequantise | str | None,
    std: float,
    seed: int,
    first: int,
) -> Asked:
    if not 0 < std < math.inf:
        raise PellucidError(f"std is {std}; expected a positive number, about the data's standard deviation.")
    spread = dequantisations.resolve(dequantise) if dequantise else None
    if spread and not grain:
        raise PellucidError("dequantise fills the bins of rounded data, and grain is 0; give it (2/255 for bytes).")
    if spread and spread.level(grain, 0.0):
        raise PellucidError("a bound has noise of its own; take dequantise = uniform, or none for the decoder's bins.")
    return Asked(model, x.double().cpu(), cond, seed, torch.arange(first, first + len(x)), grain, std, spread)


def _bound(
    kind: str,
    diffusion: Chain | Integral,
    asked: Asked,
    rounds: int,
    batch: int,
    progress: Callable[[int, int], None] | None,
) -> Likelihood:
    """Prior, diffusion and decoder of all samples, batch by batch."""
    began, n, edges = time.perf_counter(), len(asked.x0), diffusion.edges
    parts, columns = len(edges) - 1, list[list[Tensor]]()
    for i in torch.arange(n).split(batch):
        some = asked.take(i)
        columns.append([_round(diffusion, *some.drawn(k), k * (parts + 1)) for k in range(rounds)])
        if progress:
            progress(int(i[-1]) + 1, n)
    found = torch.cat([torch.stack(rows, 2) for rows in columns])  # [n, 3 + parts, rounds]
    table = found[:, 3:]
    each = table.mean(2)
    curve = Curve(edges, each.mean(0), each.std(0) / n**0.5) if parts and n > 1 else None
    terms = {"prior": found[:, 0], "diffusion": -table.sum(1), "decoder": found[:, 1]}
    terms |= {"grain": found[:, 2]} if asked.spread else {}
    calls, seconds = rounds * (parts + 1), time.perf_counter() - began
    return Likelihood(kind, terms, asked.x0[0].numel(), True, calls, seconds, curve)


def _round(diffusion: Chain | Integral, asked: Asked, gained: Tensor, step: int) -> Tensor:
    """[b, 3 + parts] once through the bound, in noise number `step` and on: prior, decoder, grain, and each part."""
    edges = diffusion.edges
    parts = [diffusion.part(asked, k, step + k) for k in range(len(edges) - 1)]
    decoder = asked.decoder(edges[-1].expand(len(gained)), step + len(parts))
    return torch.stack([asked.prior(edges[0]), decoder, gained, *parts], 1).double()
