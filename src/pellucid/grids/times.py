"""Grids stated in t: with u_i = i/N,  t_i = a falling function of u_i from 1 to 0.

    uniform            high - (high - low) u, usually 1 - u
    beta               the quantile of Beta(a, b) at 1 - u
    shifted            s t/(1 + (s - 1) t) of another grid's t
    linear-quadratic   1 minus a line that bends into a parabola half way

"Fitted" is no rule but the times themselves.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..errors import PellucidError
from ..paths import Path
from ..registry import Offset, Positive, Rule, Share
from ..types import Times
from .base import Grid, registry

Shape = Annotated[float, Rule("a number from 0.1 to 20", lambda value: 0.1 <= value <= 20)]


def _falling(steps: int) -> Tensor:
    """1, 1 - 1/N, ..., 1/N."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]


@registry.register("uniform", "linear", "simple", "sgm_uniform", "sgm uniform")
@dataclass(frozen=True)
class Uniform(Grid):
    """t = 1, 1 - 1/N, ..., 1/N. On a table of N' steps this is diffusers' `trailing` without its rounding.

    In general N + skip times in equal steps from `high` to `low`, the last `skip` of which are not asked.
    """

    high: Share = 1.0
    low: Offset = 0.0
    skip: Literal[0, 1] = 1

    def __post_init__(self) -> None:
        if not self.low < self.high or not self.low + self.skip:
            raise PellucidError(
                f"high is {self.high}, low {self.low}, skip {self.skip}; "
                "expected low < high, and skip = 1 where low is 0, the grid's end."
            )

    def times(self, path: Path, steps: int) -> Times:
        return torch.linspace(self.high, self.low, steps + self.skip, dtype=torch.float64)[:steps]


@registry.register("beta")
@dataclass(frozen=True)
class Beta(Grid):
    """t = the quantile of Beta(alpha, beta) at 1 - i/N: dense at both ends where both are below 1 (Lee et al. 2024)."""

    alpha: Shape = 0.6
    beta: Shape = 0.6

    def times(self, path: Path, steps: int) -> Times:
        return beta_quantile(_falling(steps), self.alpha, self.beta)


def beta_quantile(share: Tensor, a: float, b: float) -> Tensor:
    """x with I_x(a, b) = share.

    By Newton's method on log I in y = logit x, from the tail that is nearer. It is concave there, so that after the
    first step all others go one way.
    """
    low = share <= 0.5
    near, far = (torch.where(low, torch.full_like(share, v), torch.full_like(share, w)) for v, w in ((a, b), (b, a)))
    tail = torch.where(low, share, 1 - share)
    log_b = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    y = (tail.log() + near.log() + log_b) / near  # x^a / (a B(a, b)) = share
    for _ in range(30):
        mass = beta_mass(y, near, far)
        slope = torch.exp(-near * torch.nn.functional.softplus(-y) - far * torch.nn.functional.softplus(y) - log_b)
        step = torch.where(tail > 0, (mass.log() - tail.log()) * mass / slope, 0.0)
        y = y - step
        if bool((step.abs() < 1e-9).all()):  # what is left is of the order of its square
            break
    return torch.sigmoid(torch.where(low, y, -y))


def beta_mass(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """I_x(a, b), the mass of Beta(a, b) below x = sigmoid(y).

    x^a (1 - x)^b / (a B(a, b)) sum_n (a + b)_n / (a + 1)_n x^n (DLMF 8.17.8) for x <= 1/2, and for the rest
    I_x(a, b) = 1 - I_{1-x}(b, a).
    """
    left, x = y <= 0, torch.sigmoid(-y.abs())
    a, b = torch.where(left, a, b), torch.where(left, b, a)
    n = torch.arange(60 + int(4 * (a + b).max())).reshape(-1, *(1,) * x.dim())
    total = 1 + (x * (a + b + n) / (a + 1 + n)).cumprod(0).sum(0)
    log_b = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    mass = torch.exp(a * x.log() + b * torch.log1p(-x) - log_b) / a * total
    return torch.where(left, mass, 1 - mass)


@registry.register("shifted", "shift", "resolution")
@dataclass(frozen=True)
class Shifted(Grid):
    """t -> s t/(1 + (s - 1) t) of the base's times: more of them at high noise (Esser et al. 2024, eq. 23).

    On a flow it lowers lam by log s everywhere. For pictures of another size than those of the base, s = side/side of
    the base's. FLUX's mu, or diffusers' exponential dynamic shift, is s = e^mu.
    """

    shift: Positive = 3.0
    base: Grid = Uniform()

    def __post_init__(self) -> None:
        if self.base.rises:
            raise PellucidError(f"the base is {type(self.base).__name__}, which rises; expected a grid that falls.")

    def times(self, path: Path, steps: int) -> Times:
        t = self.base(path, steps)[:-1]
        return self.shift * t / (1 + (self.shift - 1) * t)


@registry.register("linear-quadratic", "linear_quadratic")
@dataclass(frozen=True)
class LinearQuadratic(Grid):
    """1 - t = c i/m + (1 - c N/m) ((i - m)+/(N - m))^2, m = N // 2: half of the calls in the first c of the way.

    Polyak et al. 2024 (Movie Gen), as Mochi, LTX and ComfyUI have it.
    """

    threshold: Share = 0.025

    def times(self, path: Path, steps: int) -> Times:
        i, m = torch.arange(steps, dtype=torch.float64), steps // 2
        slope = self.threshold / max(m, 1)
        return 1 - slope * i - (1 - slope * steps) * ((i - m).clamp(min=0) / (steps - m)) ** 2


@registry.register("fitted", "times")
@dataclass(frozen=True)
class Fitted(Grid):
    """The times `at` themselves, without the last 0: fitted to one model and one sampler, for one number of steps."""

    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.at:
            raise PellucidError(
                "grid 'fitted' needs times that were fitted to a run; fit them: pellucid tune RUN --nfe 8."
            )
        if not all(1 >= t > s for t, s in zip(self.at, (*self.at[1:], 0.0), strict=True)):
            raise PellucidError(f"a grid's times are {list(self.at)}; expected them to fall, in (0, 1].")

    def times(self, path: Path, steps: int) -> Times:
        if steps != len(self.at):
            raise PellucidError(
                f"steps is {steps}, but this grid was fitted for {len(self.at)}; take as many, or fit another."
            )
        return torch.tensor(self.at, dtype=torch.float64)
