r"""Paths: how data turns into noise.

    x_t = alpha(t) x0 + sigma(t) eps,    t in [0, 1],    alpha(0) = 1,  sigma(0) = 0

A path is three functions: `alpha`, `sigma` and `time`, the inverse of  lam(t) = log(alpha / sigma)  (half the log
signal-to-noise ratio; DPM-Solver's lambda). All else follows: rates by automatic differentiation, the transition

    x_t | x_s ~ N(alpha_t/alpha_s x_s,  (sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2) I),    s < t

by identity. Everything is float64 and free of cancellation at both ends.

For the variance-preserving family  alpha^2 = exp(-B), sigma^2 = 1 - exp(-B)  with  B(t) = int_0^t beta,  so that
exp(-2 lam) = exp(B) - 1. Discrete schedules (beta_1 ... beta_N) are the same family on a table of knots.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from .errors import PellucidError
from .registry import Count, Offset, Positive, Registry, Share
from .types import Batch, Times, along

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


def _rising(names: str, low: float, high: float) -> None:
    if not low < high:
        raise PellucidError(f"{names} are {low} and {high}; expected the first to be the smaller one.")


class VariancePreserving(Path):
    """alpha^2 + sigma^2 = 1, given by B(t), the integral of beta, and its inverse."""

    @abstractmethod
    def integral(self, t: Times) -> Times:
        """B(t), the integral of beta from 0 to t."""

    @abstractmethod
    def time_at(self, integral: Times) -> Times:
        """The inverse of B."""

    def alpha(self, t: Times) -> Times:
        return torch.exp(-self.integral(t) / 2)

    def sigma(self, t: Times) -> Times:
        return (-torch.expm1(-self.integral(t))).sqrt()

    def time(self, lam: Times) -> Times:
        return self.time_at(torch.nn.functional.softplus(-2 * lam, threshold=700))


class _Linear:
    """B(t) = beta_min t + (beta_max - beta_min) t^2 / 2."""

    beta_min: float
    beta_max: float

    def integral(self, t: Times) -> Times:
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def time_at(self, integral: Times) -> Times:
        per = 1 / integral  # divided through, so that an infinite integral has an infinite time
        root = ((self.beta_min * per) ** 2 + 2 * (self.beta_max - self.beta_min) * per).sqrt()
        return 2 / (self.beta_min * per + root)


@registry.register("vp", "linear", "vp-linear", "ddpm")
@dataclass(frozen=True)
class VP(_Linear, VariancePreserving):
    """beta(t) linear in t (Ho et al. 2020; Song et al. 2021, eq. 32). beta_min, beta_max: N times DDPM's betas."""

    beta_min: Positive = 0.1
    beta_max: Positive = 20.0


@registry.register("scaled-linear", "vp-scaled-linear", "stable-diffusion")
@dataclass(frozen=True)
class ScaledLinear(VariancePreserving):
    """sqrt(beta(t)) linear in t (Stable Diffusion; Rombach et al. 2022)."""

    beta_min: Positive = 0.85
    beta_max: Positive = 12.0

    def __post_init__(self) -> None:
        _rising("beta_min and beta_max", self.beta_min, self.beta_max)

    @property
    def _roots(self) -> tuple[float, float]:
        return math.sqrt(self.beta_min), math.sqrt(self.beta_max) - math.sqrt(self.beta_min)

    def integral(self, t: Times) -> Times:
        a, d = self._roots
        return t * (a * a + a * d * t + d * d * t**2 / 3)

    def time_at(self, integral: Times) -> Times:
        a, d = self._roots
        return a / d * torch.expm1(torch.log1p(3 * d * integral / a**3) / 3)


@registry.register("subvp", "sub-vp")
@dataclass(frozen=True)
class SubVP(_Linear, Path):
    """alpha = exp(-B/2), sigma = 1 - exp(-B), at most VP's (Song et al. 2021, eq. 29); lam = -log(2 sinh(B/2))."""

    beta_min: Positive = 0.1
    beta_max: Positive = 20.0

    def alpha(self, t: Times) -> Times:
        return torch.exp(-self.integral(t) / 2)

    def sigma(self, t: Times) -> Times:
        return -torch.expm1(-self.integral(t))

    def time(self, lam: Times) -> Times:
        return self.time_at(2 * torch.asinh(torch.exp(-lam) / 2))


@registry.register("cosine", "vp-cosine", "squaredcos")
@dataclass(frozen=True)
class Cosine(Path):
    """alpha = cos(u)/cos(u0), u = (t + s)/(1 + s) pi/2, u0 = u(0) (Nichol & Dhariwal 2021, eq. 17); alpha(1) = 0."""

    s: Offset = 0.008

    @property
    def _u0(self) -> float:
        return self.s * self._rise

    @property
    def _rise(self) -> float:
        return math.pi / 2 / (1 + self.s)

    def alpha(self, t: Times) -> Times:
        # cos(u) as the sine of what is left to pi/2: exactly zero at t = 1
        return torch.sin((1 - t) * self._rise) / math.cos(self._u0)

    def sigma(self, t: Times) -> Times:
        # cos^2 u0 - cos^2 u = sin(u - u0) sin(u + u0)
        gone = t * self._rise
        return (torch.sin(gone) * torch.sin(gone + 2 * self._u0)).sqrt() / math.cos(self._u0)

    def time(self, lam: Times) -> Times:
        c0, s0 = math.cos(self._u0), math.sin(self._u0)
        noise, signal = torch.sigmoid(-2 * lam) * c0**2, torch.sigmoid(2 * lam) * c0**2
        u = torch.atan2((s0**2 + noise).sqrt(), signal.sqrt())
        share = torch.where(noise > 0, noise / torch.sin(u + self._u0), 0.0)
        gone = torch.asin(share.clamp(max=1))  # from the end that is near
        return torch.where(lam > 0, gone / self._rise, 1 - torch.asin(signal.sqrt()) / self._rise)


registry.preset("trigonometric", Cosine(0.0), "trig", "gvp")


@registry.register("sigmoid", "vp-sigmoid")
@dataclass(frozen=True)
class Sigmoid(Path):
    """alpha^2 = (S(b) - S(v))/(S(b) - S(a)), v = a + t (b - a), S(v) = 1/(1 + exp(-v/tau)) (Jabri et al. 2023)."""

    start: float = -3.0
    end: float = 3.0
    tau: Positive = 1.0

    def __post_init__(self) -> None:
        _rising("start and end", self.start, self.end)
        if not max(abs(self.start), abs(self.end)) <= 300 * self.tau:
            raise PellucidError(f"start is {self.start} and end {self.end}; expected at most 300 tau from 0.")

    def _gap(self, low: Tensor, rise: Tensor) -> Tensor:
        # S(low + rise) - S(low) without cancellation
        return torch.sinh(rise / 2) / (2 * torch.cosh(low / 2) * torch.cosh((low + rise) / 2))

    def _ends(self) -> tuple[Tensor, Tensor]:
        a, b = torch.tensor([self.start, self.end], dtype=torch.float64) / self.tau
        return a, b

    def alpha(self, t: Times) -> Times:
        a, b = self._ends()
        return (self._gap(b, (t - 1) * (b - a)) / self._gap(b, a - b)).sqrt()

    def sigma(self, t: Times) -> Times:
        a, b = self._ends()
        return (self._gap(a, t * (b - a)) / self._gap(a, b - a)).sqrt()

    def time(self, lam: Times) -> Times:
        a, b = self._ends()
        whole, p, q = self._gap(a, b - a), torch.sigmoid(a), torch.sigmoid(b)
        up, down = torch.sigmoid(-2 * lam) * whole, torch.sigmoid(2 * lam) * whole
        gone = torch.log1p(up / p) - torch.log1p(-up / (1 - p))  # v - a, from the end that is near
        left = torch.log1p(down / (1 - q)) - torch.log1p(-down / q)  # b - v
        return torch.where(lam > 0, gone / (b - a), 1 - left / (b - a))


@registry.register("ve", "variance-exploding")
@dataclass(frozen=True)
class VE(Path):
    """alpha = 1, sigma^2 = sigma_min^2 ((sigma_max/sigma_min)^(2t) - 1): the kernel of Song et al. 2021, eq. 29."""

    sigma_min: Positive = 0.01
    sigma_max: Positive = 50.0

    def __post_init__(self) -> None:
        _rising("sigma_min and sigma_max", self.sigma_min, self.sigma_max)

    @property
    def _growth(self) -> float:
        return 2 * math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Times) -> Times:
        return torch.ones_like(t)

    def sigma(self, t: Times) -> Times:
        return self.sigma_min * torch.expm1(self._growth * t).sqrt()

    def time(self, lam: Times) -> Times:
        return torch.log1p(torch.exp(-2 * lam) / self.sigma_min**2) / self._growth

    def rates(self, t: Times) -> tuple[Times, Times]:
        return torch.zeros_like(t), slope(self.sigma, t)


@registry.register("edm", "karras")
@dataclass(frozen=True)
class EDM(Path):
    """alpha = 1, sigma = sigma_max t^rho: equal steps in t are Karras et al.'s (2022, eq. 5) with sigma_min = 0."""

    sigma_max: Positive = 80.0
    rho: Positive = 7.0

    def alpha(self, t: Times) -> Times:
        return torch.ones_like(t)

    def sigma(self, t: Times) -> Times:
        return self.sigma_max * t**self.rho

    def time(self, lam: Times) -> Times:
        return torch.exp((-lam - math.log(self.sigma_max)) / self.rho)

    def rates(self, t: Times) -> tuple[Times, Times]:
        return torch.zeros_like(t), slope(self.sigma, t)


@registry.register("flow", "rectified-flow", "conditional-ot", "linear-interpolant")
@dataclass(frozen=True)
class Flow(Path):
    """alpha = 1 - t, sigma = t: straight lines (Liu et al. 2022; Lipman et al. 2022, eq. 20 with sigma_min = 0)."""

    def alpha(self, t: Times) -> Times:
        return 1 - t

    def sigma(self, t: Times) -> Times:
        return t

    def time(self, lam: Times) -> Times:
        return torch.sigmoid(-lam)

    def rates(self, t: Times) -> tuple[Times, Times]:
        return -torch.ones_like(t), torch.ones_like(t)


@registry.register("table", "betas")
@dataclass(frozen=True)
class Table(Path):
    """A discrete schedule beta_1 ... beta_N: index i (from 0) sits at t = (i + 1)/N, clean data at t = 0.

    Between knots the angle atan2(sigma, alpha) is linear in t: finite everywhere, exact for zero terminal SNR.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < beta <= 1 for beta in self.betas):
            raise PellucidError("a table's betas are empty or leave (0, 1]; expected one variance for each step.")
        survival = torch.tensor(self.betas, dtype=torch.float64).neg().log1p().cumsum(0)  # log alpha^2
        angles = torch.atan2((-torch.expm1(survival)).sqrt(), torch.exp(survival / 2))
        object.__setattr__(self, "_angles", torch.cat([torch.zeros(1, dtype=torch.float64), angles]))

    @property
    def n(self) -> int:
        """The number of discrete steps."""
        return len(self.betas)

    def _angle(self, t: Times) -> Times:
        angles: Tensor = self._angles  # type: ignore[attr-defined]
        i = (t.detach() * self.n).floor().clamp(0, self.n - 1).long()
        return angles[i] + (angles[i + 1] - angles[i]) * (t * self.n - i)

    def alpha(self, t: Times) -> Times:
        return torch.sin(math.pi / 2 - self._angle(t))

    def sigma(self, t: Times) -> Times:
        return torch.sin(self._angle(t))

    def time(self, lam: Times) -> Times:
        angles: Tensor = self._angles  # type: ignore[attr-defined]
        angle = torch.atan2(torch.ones_like(lam), torch.exp(lam))
        i = (torch.searchsorted(angles, angle.contiguous(), right=True) - 1).clamp(0, self.n - 1)
        return (i + (angle - angles[i]) / (angles[i + 1] - angles[i])) / self.n


@registry.register("linear-table", "ddpm-table")
@dataclass(frozen=True)
class LinearTable(Table):
    """`steps` betas from `first` to `last` with beta^(1/power) equally spaced: DDPM's (Ho et al. 2020, section 4)."""

    betas: tuple[float, ...] = field(init=False, repr=False)
    steps: Count = 1000
    first: Share = 1e-4
    last: Share = 0.02
    power: Positive = 1.0

    def __post_init__(self) -> None:
        roots = [beta ** (1 / self.power) for beta in (self.first, self.last)]
        betas = torch.linspace(roots[0], roots[1], self.steps, dtype=torch.float64) ** self.power
        object.__setattr__(self, "betas", tuple(betas.tolist()))
        super().__post_init__()


registry.preset("scaled-linear-table", LinearTable(first=0.00085, last=0.012, power=2.0), "stable-diffusion-table")


@registry.register("cosine-table", "squaredcos-cap-v2")
@dataclass(frozen=True)
class CosineTable(Table):
    """The cosine schedule as improved DDPM runs it: `steps` betas, none above `cap` (Nichol & Dhariwal 2021)."""

    betas: tuple[float, ...] = field(init=False, repr=False)
    steps: Count = 1000
    cap: Share = 0.999
    s: Offset = 0.008

    def __post_init__(self) -> None:
        u = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        survival = torch.cos((u + self.s) / (1 + self.s) * math.pi / 2) ** 2
        betas = (1 - survival[1:] / survival[:-1]).clamp(max=self.cap)
        object.__setattr__(self, "betas", tuple(betas.tolist()))
        super().__post_init__()


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

    def __init__(self, *, base: Path = Cosine(), degree: Count = 16) -> None:
        nn.Module.__init__(self)
        if degree > 64:
            raise PellucidError(f"degree is {degree}; expected at most 64.")
        self.base, self.degree = base, degree
        self.logits = nn.Parameter(torch.zeros(degree, dtype=torch.float64))

    def clock(self, u: Times) -> Times:
        """v(u)."""
        rises = torch.softmax(self.logits.double(), 0)
        return self._bernstein(torch.cat([torch.zeros(1, dtype=torch.float64), rises.cumsum(0)]), u)

    def density(self, u: Times) -> Times:
        """v'(u), positive; differentiable in the weights."""
        return self._bernstein(self.degree * torch.softmax(self.logits.double(), 0), u)

    @staticmethod
    def _bernstein(c: Tensor, u: Times) -> Times:
        n = len(c) - 1
        k = torch.arange(n + 1, dtype=torch.float64)
        choose = torch.tensor([math.comb(n, i) for i in range(n + 1)], dtype=torch.float64)
        return u[..., None] ** k * (1 - u[..., None]) ** (n - k) @ (choose * c)  # no term is negative: none cancel

    def inner(self, t: Times) -> Times:
        """u, the inverse of v, by Newton's steps or halves where those leave the bracket; the last carries d/dt."""
        with torch.no_grad():
            low, high, u = torch.zeros_like(t), torch.ones_like(t), t.clamp(0, 1)
            for _ in range(60):
                miss = self.clock(u) - t
                low, high = torch.where(miss < 0, u, low), torch.where(miss < 0, high, u)
                step = u - miss / self.density(u)
                step = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
                if bool(((step - u).abs() <= 1e-10 * u).all()):
                    break
                u = step
            u = torch.where(t <= 0, 0.0, torch.where(t >= 1, 1.0, u))
            at, slope_at = self.clock(u), self.density(u)
        return u + (t - at) / slope_at

    def alpha(self, t: Times) -> Times:
        return self.base.alpha(self.inner(t))

    def sigma(self, t: Times) -> Times:
        return self.base.sigma(self.inner(t))

    def time(self, lam: Times) -> Times:
        return self.clock(self.base.time(lam)).detach()


def carry(x: Batch, t: Times, old: Path, new: Path) -> tuple[Batch, Times]:
    """The point of path `new` that has the signal-to-noise ratio of (x, t) on path `old`.

    (x0, eps) do not depend on the path: only the scale of x and the name of the time change. Where the ratio lies
    beyond `new`'s last time, that last time stands in.
    """
    t_new = new.time(old.lam(t)).clamp(max=1)
    scale = torch.hypot(new.alpha(t_new), new.sigma(t_new)) / torch.hypot(old.alpha(t), old.sigma(t))
    return along(scale, x) * x, t_new
