r"""Scales: a step that is as right as it can be for details of every size.

Of data N(mu, s^2 I), whatever its mean, everything is known. With r = sigma/alpha and rho = sqrt(s^2 + r^2)

    x/alpha = mu + rho u,    x0 = mu + s^2/rho u,    eps = r/rho u

on the whole way, u standing still. Real data is not one Gaussian but has details of many sizes s: clusters, edges,
textures. A step from r to r' is the re-mix and a mean of what has been seen, right in mu whatever the weights are:

    x_s = alpha_s (x0 + r' eps + sum_k w_k (x0 - x0_k) + w eps),    k over the past

What is missing for details of size s, relative to s, is known too,

    m(s) = s (r - r')^2 / (rho (rho rho' + s^2 + r r'))  -  sum_k w_k (X - X_k)  -  w E,    X = s/rho,  E = r/(s rho)

and the weights are those of least squares over all sizes alike, and above all over those of the data's directions, of
which a share p_j of the variance has the std S_j (covariance.py; where it is not known, all have the data's std):

    min_w  int m(s)^2 ds/s + W sum_j p_j (m(S_j)^2 + A (1 - std/S_j)^4 n(S_j)^2)

Directions far wider than the data's std are those in which clusters lie apart. Where it is decided on one of them, x0
turns sooner than a Gaussian's does, Y = s^2/(s^2 + r^2); as x/(alpha r) changes by -x0 dr/r^2, there is missing of it

    n(s) = (1 - Y)(1 - r'/r) - r'/s (atan r/s - atan r'/s)  -  sum_k w_k (Y - Y_k)  -  w E

Short steps make them those of Adams' polynomials, so that the order is the number of values; long steps make them
careful. Data of one size is solved by every step, and what a few values cannot solve is shared out as its variance is.

When x0 at x_s is known it becomes one more of the values, and x_s moves to where the step would have led with it, as
UniPC corrects (Zhao et al. 2023, algorithm 1) and without a call:

    x_s <- x_s' + g x0(x_s)
"""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ..errors import PellucidError
from ..paths import Path
from ..types import ONE, Denoise, Extent, Noise, State, Times, combine
from .base import Number, Sampler, at, registry

LEAST, MOST = 0.12, 4.5  # sizes of details, in the data's std and in its width
WEIGHT = 60.0  # of the data's own directions, against a factor e of sizes
APART = 0.15  # A: of clusters that lie apart, against Gaussians as wide
FAR = 1e8  # stands for an infinite level: all sizes are as nothing beside it
_ROOTS, _SHARES = (torch.from_numpy(row) for row in leggauss(32))


@registry.register("scales", "least-squares")
@dataclass(frozen=True)
class Scales(Sampler):
    """Least squares over details of every size, from `order` values of x0, with a corrector."""

    order: int = 4
    extent: Extent = field(default=ONE, init=False)

    def __post_init__(self) -> None:
        if self.order not in (2, 3, 4):
            raise PellucidError(f"order is {self.order}; expected 2, 3 or 4 values of x0.")

    @property
    def past(self) -> int:
        return self.order

    def of(self, extent: Extent) -> Sampler:
        fitting = copy(self)
        object.__setattr__(fitting, "extent", extent)
        return fitting

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        known = past > -torch.inf
        before = torch.where(known, past, 1.0)
        r, new, *levels = (level(path, time) for time in (t, s, *before.unbind(-1)))
        seen = list(zip(levels, known.unbind(-1), strict=True))
        first, yes = seen[0][1], torch.ones_like(known[..., 0])
        # the weights of the value to come, of the past ones and of eps: for x_t again, and for x_s later and now
        again, *_ = weights(levels[0], r, [(r, yes), *seen[1:-1]], self.extent)
        later, *others, e_later = weights(r, new, [(new, yes), *seen[:-2]], self.extent)
        *now, e_now = weights(r, new, seen[:-1], self.extent)
        alpha, sigma = path.alpha(s), path.sigma(s)
        push = torch.where(first, -path.alpha(t) * again, 0.0)
        back = torch.where(first, 1 / path.sigma(t), 0.0)
        zero = torch.zeros_like(t)
        rows = []
        for come, older, noise in ((zero, now, e_now), (later, [*others, zero], e_later)):
            keep = sigma + alpha * noise
            whole = alpha * (1 + come + sum(older)) + keep * back * push
            rows.append(torch.stack([whole, keep, keep * back, *(-alpha * w for w in older)]))
        return t, *rows[0], *(rows[1] - rows[0])

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, memory = state
        past, (gap, *history) = memory[: self.past], memory[self.past :]
        mark, step, rest = c[0], c[1 : 3 + self.order], c[3 + self.order :]
        d = denoise(x, t)
        seen = (d.x0, d.eps, gap, *history)
        x, gap = (combine(*zip(row, seen, strict=True)) for row in (step, rest))
        return State(x, s, (at(mark, t), *past[:-1], gap, d.x0, *history[:-1]))


def level(path: Path, t: Times) -> Times:
    """r = sigma/alpha."""
    return torch.exp(-path.lam(t)).clamp(max=FAR)


def weights(r: Times, new: Times, others: Sequence[tuple[Times, Times]], extent: Extent) -> list[Times]:
    """w_k of each other level, 0 where it is not known, and w, of the step from r to `new`."""
    least, most = math.log(LEAST * extent.std), math.log(MOST * extent.width)
    sizes, bands = torch.exp(least + (most - least) * (1 + _ROOTS) / 2), torch.tensor(extent.bands, dtype=r.dtype)
    wide, own = bands[:, 0], WEIGHT * bands[:, 1]
    s, apart = torch.cat([sizes, wide]), APART * (1 - extent.std / wide).clamp(min=0) ** 4
    share = torch.cat([(most - least) / 2 * _SHARES, own, apart * own]).sqrt()
    r, new = r[..., None], new[..., None]  # beside [b, sizes]
    turned = turn(s, wide, r)
    columns = [torch.where(known[..., None], turned - turn(s, wide, other[..., None]), 0.0) for other, known in others]
    sizes = torch.cat([s, wide])
    table = torch.stack([*columns, r / (sizes * torch.hypot(sizes, r))], -1) * share[:, None]  # [b, sizes, weights]
    return least_squares(table, missing(s, wide, r, new) * share)


def turn(s: Tensor, wide: Tensor, r: Times) -> Tensor:
    """X of Gaussians of sizes s, and Y of clusters `wide` apart: what is seen of them in x0 at level r."""
    return torch.cat([s / torch.hypot(s, r), 1 / (1 + (r / wide) ** 2)], -1)


def missing(s: Tensor, wide: Tensor, r: Times, new: Times) -> Tensor:
    """What the re-mix misses of both in the step from r to `new`: m and n without their weights."""
    rho, rho_new, y = torch.hypot(s, r), torch.hypot(s, new), 1 / (1 + (r / wide) ** 2)
    angle = torch.atan(wide * (r - new) / (wide**2 + r * new))
    m = s * (r - new) ** 2 / (rho * (rho * rho_new + s**2 + r * new))
    return torch.cat([m, (1 - y) * (1 - new / r) - new / wide * angle], -1)


def least_squares(table: Times, goal: Times) -> list[Times]:
    """w with the least |table w - goal|^2, and 0 for a column of zeros."""
    size = table.norm(dim=-2, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    q, upper = torch.linalg.qr(torch.cat([table / size, 1e-13 * _eye(table)], -2))
    seen = (q[..., : goal.shape[-1], :] * goal[..., None]).sum(-2)
    found = torch.linalg.solve_triangular(upper, seen[..., None], upper=True)[..., 0] / size[..., 0, :]
    return list(found.unbind(-1))


def _eye(table: Times) -> Times:
    n = table.shape[-1]
    return torch.eye(n, dtype=table.dtype).expand(*table.shape[:-2], n, n)
