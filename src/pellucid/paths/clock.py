"""Paths that are another path on another clock: shifted by a ratio, or learned."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from ..errors import PellucidError
from ..registry import Count, Positive
from ..types import Times
from .base import Path, registry
from .cosine import Cosine

COSINE = Cosine()


@registry.register("shifted", "resolution-shift")
@dataclass(frozen=True)
class Shifted(Path):
    """`base` with lam lowered by log(shift) at each t: more noise for larger pictures.

    On `flow`, t -> shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23); on VP paths, the shifted log-SNR of
    Hoogeboom et al. 2023, eq. 4.
    """

    base: Path
    shift: Positive = 3.0

    def _base_time(self, t: Times) -> Times:
        inner = (t > 0) & (t < 1)
        safe = torch.where(inner, t, 0.5)
        moved = self.base.time(self.base.lam(safe) - math.log(self.shift))
        last = self.base.time(self.base.lam(torch.ones((), dtype=t.dtype)) - math.log(self.shift))
        return torch.where(inner, moved, torch.where(t > 0, last, 0.0 * t))

    def alpha(self, t: Times) -> Times:
        return self.base.alpha(self._base_time(t))

    def sigma(self, t: Times) -> Times:
        return self.base.sigma(self._base_time(t))

    def time(self, lam: Times) -> Times:
        return self.base.time(lam + math.log(self.shift))

    def rates(self, t: Times) -> tuple[Times, Times]:
        # the base's rates at its own time u, times du/dt from tan(angle(u)) = shift tan(angle(t)): finite at both ends
        base, u = self.base, self._base_time(t)
        spread = base.alpha(u) ** 2 + base.sigma(u) ** 2
        stretch = self.shift * spread / (base.alpha(t) ** 2 + (self.shift * base.sigma(t)) ** 2)
        speed = stretch * self._turn(t) / self._turn(u)
        alpha, sigma = base.rates(u)
        return alpha * speed, sigma * speed

    def _turn(self, t: Times) -> Times:
        """alpha sigma' - sigma alpha' of the base: how fast atan2(sigma, alpha) turns, times alpha^2 + sigma^2."""
        alpha, sigma = self.base.rates(t)
        return self.base.alpha(t) * sigma - self.base.sigma(t) * alpha


@registry.register("learned", "vdm")
class Learned(Path, nn.Module):
    """`base` on a clock that is learned (Kingma et al. 2021, section 4.1): t = v(u) at the base's own time u.

    v(u) = sum_k c_k B_(k,n)(u), Bernstein's polynomials with coefficients that rise from 0 to 1: smooth, rising, exact
    at both ends, and the identity before training. v'(u) is the density with which uniform t visit u.
    """

    def __init__(self, *, base: Path = COSINE, degree: Count = 16) -> None:
        nn.Module.__init__(self)
        if degree > 64:
            raise PellucidError(f"degree is {degree}; expected at most 64.")
        self.base, self.degree = base, degree
        self.logits = nn.Parameter(torch.zeros(degree, dtype=torch.float64))

    def clock(self, u: Times) -> Times:
        """v(u)."""
        return self._at(u)[0]

    def density(self, u: Times) -> Times:
        """v'(u), positive; differentiable in the weights."""
        return self._at(u)[1]

    def _at(self, u: Times) -> tuple[Times, Times]:
        """v(u) and v'(u), by Bernstein's polynomials of degree n and n - 1: no term is negative, and none cancel."""
        n, rises = self.degree, torch.softmax(self.logits.double(), 0)
        up, down = _powers(u, n), _powers(1 - u, n)
        height = torch.cat([torch.zeros(1, dtype=torch.float64), rises.cumsum(0)])
        rate = (up[..., :-1] * down[..., :-1].flip(-1)) @ (n * _choose(n - 1) * rises)
        return (up * down.flip(-1)) @ (_choose(n) * height), rate

    def inner(self, t: Times) -> Times:
        """u, the inverse of v, by Newton's steps or halves where those leave the bracket; the last carries d/dt."""
        with torch.no_grad():
            low, high, u = torch.zeros_like(t), torch.ones_like(t), t.clamp(0, 1)
            for _ in range(60):
                here, rate = self._at(u)
                miss = here - t
                low, high = torch.where(miss < 0, u, low), torch.where(miss < 0, high, u)
                step = u - miss / rate
                step = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
                if bool(((step - u).abs() <= 1e-10 * u).all()):
                    break
                u = step
            u = torch.where(t <= 0, 0.0, torch.where(t >= 1, 1.0, u))
            at, rate = self._at(u)
        return u + (t - at) / rate

    def alpha(self, t: Times) -> Times:
        return self.base.alpha(self.inner(t))

    def sigma(self, t: Times) -> Times:
        return self.base.sigma(self.inner(t))

    def time(self, lam: Times) -> Times:
        return self.clock(self.base.time(lam).clamp(0, 1)).detach()  # no clock goes beyond the last time

    def rates(self, t: Times) -> tuple[Times, Times]:
        u = self.inner(t)
        pace = self.density(u)  # dt/du
        alpha, sigma = self.base.rates(u)
        return alpha / pace, sigma / pace


@lru_cache
def _choose(n: int) -> Tensor:
    """[n + 1] the binomial coefficients."""
    return torch.tensor([math.comb(n, i) for i in range(n + 1)], dtype=torch.float64)


def _powers(u: Times, n: int) -> Tensor:
    """[..., n + 1] 1, u, u^2, ... u^n."""
    return torch.cat([torch.ones_like(u)[..., None], u[..., None].expand(*u.shape, n)], -1).cumprod(-1)
