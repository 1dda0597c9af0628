r"""Paths: how data turns into noise.

    x_t = alpha(t) x0 + sigma(t) eps,    t in [0, 1],    alpha(0) = 1,  sigma(0) = 0

A path is three functions: `alpha`, `sigma` and `time`, the inverse of  lam(t) = log(alpha / sigma)  (half the log
signal-to-noise ratio; DPM-Solver's lambda). All else follows: rates by automatic differentiation, the transition

    x_t | x_s ~ N(alpha_t/alpha_s x_s,  (sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2) I),    s < t

by identity. Everything is float64 and free of cancellation at both ends.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch

from ..errors import PellucidError
from ..registry import Registry
from ..types import Batch, Times, along

registry: "Registry[Path]" = Registry("path")


class Path(ABC):
    """alpha, sigma and the inverse of lam = log(alpha/sigma): three functions of float64 tensors of any shape."""

    registry: "ClassVar[Registry[Path]]" = registry

    @abstractmethod
    def alpha(self, t: Times) -> Times:
        """The scale of the data at time t."""

    @abstractmethod
    def sigma(self, t: Times) -> Times:
        """The scale of the noise at time t."""

    @abstractmethod
    def time(self, lam: Times) -> Times:
        """The time at which log(alpha/sigma) = lam."""

    def lam(self, t: Times) -> Times:
        """log(alpha/sigma): +inf at t = 0; -inf where alpha = 0."""
        return self.alpha(t).log() - self.sigma(t).log()

    def rates(self, t: Times) -> tuple[Times, Times]:
        """(alpha', sigma'), the derivatives in t."""
        return slope(self.alpha, t), slope(self.sigma, t)

    def mix(self, x0: Batch, eps: Batch, t: Times) -> Batch:
        """x_t = alpha(t) x0 + sigma(t) eps (Ho et al. 2020, eq. 4, on any path)."""
        return along(self.alpha(t), x0) * x0 + along(self.sigma(t), x0) * eps

    def transition(self, s: Times, t: Times) -> tuple[Times, Times]:
        """(scale, std) of x_t given x_s for s <= t: one forward step, of any length."""
        fresh = torch.where(s > 0, -torch.expm1(2 * (self.lam(t) - self.lam(s))), 1.0)  # 1 - (scale sigma_s/sigma_t)^2
        return self.alpha(t) / self.alpha(s), self.sigma(t) * fresh.clamp(min=0).sqrt()


def slope(f: Callable[[Times], Times], t: Times) -> Times:
    """df/dt, elementwise, by automatic differentiation."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        (rate,) = torch.autograd.grad(f(t).sum(), t)
    return rate


def rising(names: str, low: float, high: float) -> None:
    """Refuse two ends that do not rise."""
    if not low < high:
        raise PellucidError(f"{names} are {low} and {high}; expected the first to be the smaller one.")


def carry(x: Batch, t: Times, old: Path, new: Path) -> tuple[Batch, Times]:
    """The point of path `new` that has the signal-to-noise ratio of (x, t) on path `old`.

    (x0, eps) do not depend on the path: only the scale of x and the name of the time change. Where the ratio lies
    beyond `new`'s last time, that last time stands in.
    """
    t_new = new.time(old.lam(t)).clamp(max=1)
    scale = torch.hypot(new.alpha(t_new), new.sigma(t_new)) / torch.hypot(old.alpha(t), old.sigma(t))
    return along(scale, x) * x, t_new
