r"""Polishing: the times themselves as unknowns, the end as it truly is.

    least  sum_i |r_i|,     r_i(t_0 ... t_{N-1}) = x_N - x(0) for sample i

by Gauss and Newton's method with Levenberg and Marquardt's damping mu; |r| is |r|^2/|r|, the divisor held still
(iteratively reweighted least squares), so that samples which end elsewhere altogether do not rule the rest:

    (A + mu diag A) d = -g,     A = sum_i J_i^T J_i / |r_i|,     g = sum_i J_i^T r_i / |r_i|,     J_k = dr/dt_k

A column of J is a difference: t_k is moved a little towards the data, and the sampler goes on from the state before.
Where that comes to rest, the time that is missed least is taken away and put into the gap where it does most, and the
polishing goes on as long as this helps: two times that have run into each other are set free.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..samplers import Sampler
from ..types import Times
from .exact import Part, distance, end, onward, rms

MOVE = 0.05  # of the smaller gap beside t_k
ROUNDS = 20
EXCHANGES = 4
NEAR = 0.002  # of t_k: the smallest gap that it leaves
TRIES = 6  # of the damping in a round
ENOUGH = 0.003  # less is gained in a round: it is done


class Normal(NamedTuple):
    """The mean error, and the normal equations A d = -g."""

    error: float
    a: Tensor
    g: Tensor


def polish(
    parts: Sequence[Part], sampler: Sampler, times: Times, loose: bool, go_on: Callable[[float], bool]
) -> tuple[Times, float]:
    """Falling times [N + 1] with a mean end error that is no larger, and that error.

    loose: whether the first time may leave 1 too. go_on: asked with the error after each round.
    """
    best, least = descend(parts, sampler, times, loose, go_on)
    for _ in range(EXCHANGES if len(times) > 2 else 0):
        if not go_on(least):
            break
        times, error = descend(parts, sampler, exchanged(parts, sampler, best, loose), loose, go_on)
        if error > (1 - ENOUGH) * least:
            return min((best, least), (times, error), key=lambda each: each[1])
        best, least = times, error
    return best, least


def exchanged(parts: Sequence[Part], sampler: Sampler, times: Times, loose: bool) -> Times:
    """The times without the one that is missed least, and with the middle of a gap, that which helps most."""
    error = partial(mean_error, parts, sampler)
    dropped = [torch.cat([times[:k], times[k + 1 :]]) for k in range(0 if loose else 1, len(times) - 1)]
    fewer = min(dropped, key=error)
    edges = torch.cat([torch.ones(1, dtype=torch.float64), fewer]) if fewer[0] < 1 else fewer
    middles = (edges[1:] + edges[:-1]) / 2
    return min((torch.cat([fewer, new[None]]).sort(descending=True).values for new in middles), key=error)


def descend(
    parts: Sequence[Part], sampler: Sampler, times: Times, loose: bool, go_on: Callable[[float], bool]
) -> tuple[Times, float]:
    """Gauss and Newton's rounds until they gain little."""
    damping, normal = 1e-2, equations(parts, sampler, times, loose)
    for _ in range(ROUNDS):
        if not go_on(normal.error):
            break
        before = normal.error
        for _ in range(TRIES):
            tried = moved(times, normal, damping, loose)
            if tried is not None and (error := mean_error(parts, sampler, tried)) < before:
                times, damping = tried, damping / 5
                break
            damping *= 4
        else:
            break
        if error > (1 - ENOUGH) * before:
            return times, error
        normal = equations(parts, sampler, times, loose)
    return times, normal.error


def moved(times: Times, normal: Normal, damping: float, loose: bool) -> Times | None:
    """The times after one damped step; None where two of them meet. The first one stops at 1."""
    a = normal.a + damping * torch.diag(normal.a.diagonal())
    free = torch.ones(len(times) - 1, dtype=torch.bool)
    free[0] = loose
    for _ in range(2):
        step = torch.zeros(len(free), dtype=torch.float64)
        step[free] = torch.linalg.lstsq(a[free][:, free], -normal.g[free]).solution
        if times[0] + step[0] <= 1:
            break
        free[0] = False
    new = torch.cat([times[:-1] + step, times[-1:]])
    least = torch.minimum(-times.diff(), NEAR * new[:-1])
    return new if bool((-new.diff() >= least).all()) else None


def mean_error(parts: Sequence[Part], sampler: Sampler, times: Times) -> float:
    """The mean of |r_i|, the root mean square of each sample; infinite where one of them is not finite."""
    return float(distance(parts, sampler, times).mean().nan_to_num(nan=torch.inf))


def equations(parts: Sequence[Part], sampler: Sampler, times: Times, loose: bool) -> Normal:
    """The normal equations at these times; those of a first time that is held are left 0."""
    n = len(times) - 1
    a, g, found = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64), list[Tensor]()
    for part in parts:
        state = part.begin(sampler, times)
        states = [state, *onward(part.denoise, sampler, times, state)]
        r = part.gap(states[-1])
        columns = []
        for k in range(0 if loose else 1, n):
            by = -MOVE * min(float(times[max(k - 1, 0)] - times[max(k, 1)]), float(times[k] - times[k + 1]))
            near = times.clone()
            near[k] += by
            last = part.begin(sampler, near) if k == 0 else states[k - 1]
            columns.append((part.gap(end(part.denoise, sampler, near, last, max(k - 1, 0))) - r) / by)
        jacobian, size = torch.stack(columns, -1), rms(r)
        weight = 1 / size.clamp(min=1e-12)
        low = n - jacobian.shape[-1]
        a[low:, low:] += torch.einsum("n,ndk,ndl->kl", weight, jacobian, jacobian).cpu()
        g[low:] += torch.einsum("n,ndk,nd->k", weight, jacobian, r).cpu()
        found.append(size.cpu())
    return Normal(float(torch.cat(found).mean()), a, g)
