r"""Local errors: what one step makes of the exact way, for all steps at once and without a call of the network.

A step of a deterministic sampler is linear in what it has heard and where it stood:

    x_j = sum_l c_l v_l,    v: the pairs (x0, eps) at t_p, t_i and at its inner stages

so a sampler asked with answers that are unit vectors says its own c, for each of the triples (p, i, j) in one batch.
With the pairs of the exact way for v, and G = v v^T their products,  |e_pij|^2 = c^T G c,  where c has -alpha_j and
-sigma_j for x(t_j) too. Stages lie between the times that were kept; there the pair is interpolated.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..paths import Path
from ..samplers import Sampler
from ..samplers.base import silent
from ..types import Batch, Denoised, State, Times
from .exact import Way

WIDTH = 32  # axes: two for each answer
ROWS = 8192  # triples at a time


class Local(NamedTuple):
    """Root mean square of errors: `begin` [m] of starting at t_i; `first` [m, m] of a step with no past; `later`
    [m, m, m] of one that remembers t_p, or [m, m] where nothing is remembered. Infinite where times do not fall."""

    begin: Tensor
    first: Tensor
    later: Tensor


class Probe:
    """A Denoise whose k-th answer is the unit vectors number 2k and 2k + 1."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, list[Times]()

    def __call__(self, x: Batch, t: Times) -> Denoised:
        k = 2 * len(self.asked)
        self.asked.append(t)
        axes = torch.zeros(2, len(t), WIDTH, dtype=torch.float64)
        axes[0, :, k], axes[1, :, k + 1] = 1, 1
        return Denoised(axes[0], axes[1])

    def exact(self, t: Times) -> Batch:
        """The exact x(t) in the axes of the next answer: alpha x0 + sigma eps."""
        x, k = torch.zeros(len(t), WIDTH, dtype=torch.float64), 2 * len(self.asked)
        x[:, k], x[:, k + 1] = self.path.alpha(t), self.path.sigma(t)
        return x


def errors(way: Way, sampler: Sampler) -> Local:
    """The local errors of a deterministic sampler on all steps between the times of the way."""
    gram, m, nodes = products(way), len(way.times), torch.arange(len(way.times))
    forgets = not sampler.init(torch.zeros(1, 1), torch.ones(1, dtype=torch.float64)).memory
    i, j = torch.combinations(nodes).unbind(1)
    first = torch.full((m, m), torch.inf, dtype=torch.float64)
    first[i, j] = sizes(way, gram, sampler, i, j)
    if forgets:
        return Local(begin(way, gram), first, first)
    p, i, j = torch.combinations(nodes, 3).unbind(1)
    later = torch.full((m, m, m), torch.inf, dtype=torch.float64)
    later[p, i, j] = torch.cat(
        [sizes(way, gram, sampler, *rows) for rows in zip(*(v.split(ROWS) for v in (i, j, p)), strict=True)]
    )
    return Local(begin(way, gram), first, later)


def products(way: Way) -> Tensor:
    """G [2 m + 1, 2 m + 1]: mean products of x0 at each time, then eps, then the noise."""
    total = torch.zeros((), dtype=torch.float64)
    n, size = way.noise.shape[0], way.noise[0].numel()
    for k in range(n):
        v = torch.cat([way.x0[:, k], way.eps[:, k], way.noise[k : k + 1]]).flatten(1).double().cpu()
        total = total + v @ v.T
    return total / (n * size)


def begin(way: Way, gram: Tensor) -> Tensor:
    """[m] |sigma_i noise - x(t_i)|: zero at the first time."""
    m, nodes = len(way.times), torch.arange(len(way.times))
    alpha, sigma = way.path.alpha(way.times), way.path.sigma(way.times)
    where = torch.stack([nodes, nodes + m, torch.full_like(nodes, 2 * m)], 1)
    error = square(gram, where, torch.stack([-alpha, -sigma, sigma], 1))
    error[0] = 0
    return error.sqrt()


def sizes(way: Way, gram: Tensor, sampler: Sampler, i: Tensor, j: Tensor, p: Tensor | None = None) -> Tensor:
    """[b] |e| of the steps t_i -> t_j, after one t_p -> t_i if there is a p."""
    t, m, probe = way.times, len(way.times), Probe(way.path)
    if p is None:
        state = sampler.init(probe.exact(t[i]), t[i])
    else:
        state = sampler.step(probe, sampler.init(probe.exact(t[p]), t[p]), t[i], silent)
        state = State(probe.exact(t[i]), t[i], state.memory)
    landed = sampler.step(probe, state, t[j], silent).x
    where, weights = [j, j + m], [-way.path.alpha(t[j]), -way.path.sigma(t[j])]
    for k, asked in enumerate(probe.asked):
        x0, eps = landed[:, 2 * k], landed[:, 2 * k + 1]
        for node, share in between(t, asked):
            where += [node, node + m]
            weights += [share * x0, share * eps]
    return square(gram, torch.stack(where, 1), torch.stack(weights, 1)).sqrt().nan_to_num(nan=torch.inf)


def between(times: Times, t: Times) -> list[tuple[Tensor, Tensor]]:
    """The nodes around t and their shares of it; one node where all t are nodes."""
    below = torch.searchsorted(-times, -t).clamp(1, len(times) - 1)
    share = ((times[below - 1] - t) / (times[below - 1] - times[below])).clamp(0, 1)
    nearest = torch.where(share > 0.5, below, below - 1)
    if torch.equal(times[nearest], t):
        return [(nearest, torch.ones_like(t))]
    return [(below - 1, 1 - share), (below, share)]


def density(way: Way) -> tuple[Tensor, Tensor]:
    """lam, and how many calls for each unit of it a method of first order wants there, in shares that sum to 1.

    Its step of length h in lam errs by alpha |dx0/dlam| h^2/2, and so by a times that in the end; the sum over N steps
    is least where their density is the square root of what stands before h^2.
    """
    lam, gram = way.path.lam(way.times[1:-1]), products(way)
    nodes = torch.arange(1, len(way.times) - 2)
    change = square(
        gram, torch.stack([nodes, nodes + 1], 1), torch.tensor([-1.0, 1.0], dtype=torch.float64).expand(len(nodes), 2)
    )
    rate = (change.sqrt() / lam.diff() * (way.gain * way.path.alpha(way.times))[2:-1]).sqrt()
    return (lam[1:] + lam[:-1]) / 2, rate / (rate * lam.diff()).sum()


def square(gram: Tensor, where: Tensor, weights: Tensor) -> Tensor:
    """[b] |sum_l weights[b, l] v[where[b, l]]|^2."""
    return torch.einsum("bk,bkl,bl->b", weights, gram[where[:, :, None], where[:, None, :]], weights).clamp(min=0)
