r"""Adaptive: as many calls as a tolerance asks for, between any two times.

On every path the point y = x/r and the angle theta, (alpha, sigma) = r (cos theta, sin theta), obey

    dy/dtheta = -sin(theta) x0 + cos(theta) eps,      0 <= theta <= pi/2

the probability-flow ODE without a singular end. It is stepped by an embedded pair: Dormand & Prince's 5(4) (1980) or
Bogacki & Shampine's 3(2) (1989). The difference E of the two solutions, measured by

    |E| = rms of E_i / (atol + rtol max(|y_i|, |y_i'|))      over one sample,

accepts the step where it is at most 1, and h <- h min(4, max(0.2, 0.8 |E|^(-1/p))), p = 5 or 3. Each sample has its own
steps and its own error: strangers share calls and nothing else. Below sigma/alpha = `low` the rest of the way to the
data is the first-order re-mix, whose error there is of order low^2; the network is never asked at t = 0.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import PellucidError
from ..paths import Path
from ..types import Batch, Denoise, Denoised, Noise, State, Times, along, combine
from .base import Number, Sampler, at, registry


class Pair(NamedTuple):
    """Order, the share of each stage, the rows that make it (the last one is the solution), and E's weights."""

    order: int
    shares: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]


PAIRS = {
    "dopri5": Pair(
        5,
        (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        (
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
    "bosh3": Pair(
        3,
        (1 / 2, 3 / 4, 1.0),
        ((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        (-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    ),
}


@registry.register("adaptive")
@dataclass(frozen=True)
class Adaptive(Sampler):
    """An embedded pair with tolerances in the data's units; a grid says only where it must stop (take 1 step).

    No step is shorter than `least` (an angle; the whole way is pi/2): a network too rough for its tolerance ends too.
    The state remembers each sample's step and, in `memory[1]`, how often it was asked for.
    """

    pair: Literal["dopri5", "bosh3"] = "dopri5"
    rtol: float = 1e-4
    atol: float = 1e-4
    low: float = 1e-3
    least: float = 1e-4
    calls = 0

    def __post_init__(self) -> None:
        if not (self.rtol >= 0 and self.atol > 0 and 0 < self.low < 1 and self.least > 0):
            raise PellucidError(
                f"rtol is {self.rtol}, atol {self.atol}, low {self.low}, least {self.least}; "
                "expected positive numbers, and low below 1."
            )

    @property
    def order(self) -> int:  # type: ignore[override]
        return PAIRS[self.pair].order

    def init(self, x: Batch, t: Times) -> State:
        return State(x, t, (torch.full_like(t, 0.1), torch.zeros_like(t)))

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        return torch.atan2(path.sigma(t), path.alpha(t)), torch.atan2(path.sigma(s), path.alpha(s))

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        path, pair, (x, t, (h, calls)) = denoise.path, PAIRS[self.pair], state
        now, end = (at(number, t) for number in c)
        y, stop = x / along(torch.hypot(path.alpha(t), path.sigma(t)), x), end.clamp(min=math.atan(self.low))
        going = now > stop
        if going.any():
            first, calls = turn(denoise, y, now), calls + going
        while going.any():
            step = torch.where(going, torch.minimum(h, now - stop), 0.0)
            seen = [first]
            for share, row in zip(pair.shares, pair.rows, strict=True):
                new = combine((1.0, y), *((-step * a, k) for a, k in zip(row, seen, strict=True) if a))
                there = torch.where(share * step == now - stop, stop, now - share * step)
                seen.append(turn(denoise, new, there))
            size = self.size(combine(*((step * e, k) for e, k in zip(pair.error, seen, strict=True) if e)), y, new)
            taken = going & ((size <= 1) | (step <= self.least))
            calls = calls + len(pair.shares) * going
            better = step * (0.8 * size.clamp(min=1e-9) ** (-1 / pair.order)).clamp(0.2, 4)
            h = torch.where(taken & (step < h), torch.maximum(h, better), torch.where(going, better, h))
            h = h.clamp(min=self.least)
            y, first = choose(taken, new, y), choose(taken, seen[-1], first)
            now = torch.where(taken, there, now)
            going = now > stop
        left = now > end  # the rest of the way to the data
        x = along(torch.hypot(path.alpha(s), path.sigma(s)), y) * y
        if left.any():
            d = asked(denoise, y, now)
            x = choose(left, combine((path.alpha(s), d.x0), (path.sigma(s), d.eps)), x)
        return State(x, s, (h, calls + left))

    def size(self, wrong: Batch, old: Batch, new: Batch) -> Times:
        """|E| of each sample."""
        wrong = wrong / (self.atol + self.rtol * torch.maximum(old.abs(), new.abs()))
        return wrong.detach().double().flatten(1).square().mean(1).sqrt().cpu()  # steps are no function of x


def asked(denoise: Denoise, y: Batch, angle: Times) -> Denoised:
    """What the model believes at y r and the time at which the path has this angle."""
    path = denoise.path
    t = path.time(-torch.tan(angle).log()).clamp(max=1)
    return denoise(along(torch.hypot(path.alpha(t), path.sigma(t)), y) * y, t)


def turn(denoise: Denoise, y: Batch, angle: Times) -> Batch:
    """dy/dtheta."""
    d = asked(denoise, y, angle)
    return combine((-torch.sin(angle), d.x0), (torch.cos(angle), d.eps))


def choose(which: Tensor, new: Batch, old: Batch) -> Batch:
    """`new` for some of the samples, `old` for the others."""
    return torch.where(which.to(new.device).reshape(-1, *(1,) * (new.dim() - 1)), new, old)


registry.preset("dopri5", Adaptive("dopri5"), "rk45", "ode45", "dormand-prince")
registry.preset("rk23", Adaptive("bosh3"), "dpm adaptive", "dpm_adaptive", "sample_dpm_adaptive", "adaptive-bosh3")
