r"""Variation of constants: what an exponential step integrates, and the weight it gives to what it has seen.

The probability-flow ODE is linear but for one function f of the pair. In its own unit psi and variable q

    x_s / psi_s = x_t / psi_t + int_t^s f dq

    variable   psi     q               f
    x0         sigma   alpha/sigma     x0                          (DPM-Solver++: Lu et al. 2022b, eq. 8)
    eps        alpha   sigma/alpha     eps                         (DPM-Solver, DEIS: Lu et al. 2022a, eq. 3.4)
    velocity   1       t               alpha' x0 + sigma' eps      (flow matching: Lipman et al. 2022, eq. 1)

f held still gives the first-order step, for x0 and eps the re-mix. A higher order puts a polynomial in a clock tau
(lam, sigma/alpha or t) through f at several times, and node j weighs

    W_j = psi_s int_t^s l_j(tau) dq,      l_j(tau) = prod_(m != j) (tau - tau_m) / (tau_j - tau_m)

by Gauss and Legendre's rule, exact to rounding in every clock. A node at infinity says nothing (l_j -> 0, and its
factor in the others -> 1), so the order falls by itself where a past is missing or infinitely noisy; where the step
itself is infinite in tau or q all W_j are 0, and the step is first order; likewise where eps is held from pure noise.

Adding the noise of rho times the reverse SDE (x0 in lam only) turns dq into (1 + rho) exp(-(1 + rho)(lam_s - lam)).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from numpy.polynomial.legendre import leggauss

from ..errors import PellucidError
from ..paths import Path
from ..types import Batch, Denoised, Times, combine
from .base import Number, finite

Variable = Literal["x0", "eps", "velocity"]
Clock = Literal["lam", "sigma", "t"]
UNKNOWN = torch.inf
"""The clock's reading at a node that is not there."""
PURE = 1000.0
"""sigma/alpha from where nothing of the data is left: the last index of improved DDPM's table is at 20000."""

_ROOTS, _SHARES = (torch.from_numpy(row) / 2 for row in leggauss(16))


def is_noise(path: Path, t: Times) -> Times:
    """Where x_t is noise: its eps is known to one part in PURE, which the integral of eps to the data would magnify."""
    return path.sigma(t) >= PURE * path.alpha(t)


def value(variable: Variable, d: Denoised, row: Sequence[Number]) -> Batch:
    """f; `row` is asked for by the velocity alone."""
    return combine((row[0], d.x0), (row[1], d.eps)) if row else d.x0 if variable == "x0" else d.eps


@dataclass(frozen=True)
class Form:
    """Which function of the pair is integrated, in which clock its polynomials are, and the share of noise."""

    variable: Variable
    clock: Clock
    rho: float = 0.0

    def __post_init__(self) -> None:
        if self.variable == "velocity" and self.clock != "t":
            raise PellucidError(f"the velocity is integrated in t, not in {self.clock}; take clock = 't'.")
        if self.rho > 0 and (self.variable, self.clock) != ("x0", "lam"):
            raise PellucidError("rho > 0 adds noise to x0 integrated in lam; take variable = 'x0' and clock = 'lam'.")

    @property
    def flat(self) -> bool:
        """Whether the kernel is constant: q is the clock itself, and the method the classical one."""
        return self.variable == "velocity" or (self.variable, self.clock) == ("eps", "sigma")

    def tau(self, path: Path, t: Times) -> Times:
        """The clock's reading at time t; infinite where f is."""
        if self.variable == "velocity":
            return torch.where(sum(path.rates(t)).isfinite(), t, UNKNOWN)  # type: ignore[union-attr]
        if self.clock == "t":
            return t
        lam = path.lam(t)
        return lam if self.clock == "lam" else torch.exp(-lam)

    def time(self, path: Path, tau: Times) -> Times:
        """The time at which the clock reads tau."""
        if self.clock == "t":
            return tau
        return path.time(tau if self.clock == "lam" else -tau.log())

    def row(self, path: Path, t: Times) -> tuple[Times, Times]:
        """(a, b) of f = a x0 + b eps."""
        if self.variable == "velocity":
            alpha, sigma = path.rates(t)
            return finite(alpha), finite(sigma)
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        return (one, zero) if self.variable == "x0" else (zero, one)

    def first(self, path: Path, t: Times, s: Times) -> tuple[Times, Times]:
        """(signal, kept) of the first-order step."""
        if self.variable == "velocity":
            (alpha, sigma), still = self.row(path, t), ~self.regular(path, t, s)  # so the last step lands on x0
            signal, kept = path.alpha(t) + (s - t) * alpha, path.sigma(t) + (s - t) * sigma
            return torch.where(still, path.alpha(s), signal), torch.where(still, path.sigma(s), kept)
        return path.alpha(s), path.sigma(s) * self.decay(path, t, s)

    def decay(self, path: Path, t: Times, s: Times) -> Times:
        """kappa = exp(-rho h): the share of eps that the noise leaves."""
        return torch.exp(self.rho * (path.lam(t) - path.lam(s))) if self.rho > 0 else torch.ones_like(t)

    def carry(self, path: Path, t: Times, s: Times) -> Times:
        """psi_s / psi_t (kappa): what becomes of a change of x_t."""
        if self.variable == "velocity":
            return torch.ones_like(t)
        psi = path.sigma if self.variable == "x0" else path.alpha
        return finite(psi(s) / psi(t)) * self.decay(path, t, s)

    def kernel(self, path: Path, tau: Times, s: Times) -> Times:
        """psi_s dq/dtau = psi_s dq/dlam dlam/dtau: how much of f at tau is in x_s."""
        if self.variable == "velocity":
            return torch.ones_like(tau)
        lam, fall = tau, torch.ones_like(tau)
        if self.clock == "sigma":
            lam, fall = -tau.log(), -1 / tau
        if self.clock == "t":
            alpha, sigma = path.rates(tau)
            lam, fall = path.lam(tau), alpha / path.alpha(tau) - sigma / path.sigma(tau)
        if self.rho > 0:
            return path.alpha(s) * (1 + self.rho) * torch.exp((1 + self.rho) * (lam - path.lam(s)))
        gain = path.sigma(s) * torch.exp(lam) if self.variable == "x0" else -path.alpha(s) * torch.exp(-lam)
        return gain * fall

    def regular(self, path: Path, t: Times, s: Times) -> Times:
        """Whether the step is finite in its clock and in q."""
        if self.variable == "velocity":
            return self.tau(path, t).isfinite() & (path.sigma(s) > 0)
        seen = path.sigma(t) > 0 if self.variable == "x0" else ~is_noise(path, t)
        psi = path.sigma if self.variable == "x0" else path.alpha
        return (self.tau(path, s) - self.tau(path, t)).isfinite() & seen & (psi(s) > 0)

    def weights(self, path: Path, t: Times, s: Times, nodes: Sequence[Times]) -> Sequence[Times]:
        """W_j for the clock's readings at each node, summed in a fixed order: samples never share a sum."""
        start, end = self.tau(path, t), s if self.variable == "velocity" else self.tau(path, s)
        lead = (-1, *(1,) * t.dim())
        tau = start + (end - start) * (0.5 + _ROOTS.reshape(lead))
        basis = (end - start) * self.kernel(path, tau, s) * _SHARES.reshape(lead)
        knots = torch.stack([*nodes])
        known, gaps = knots.isfinite(), knots[:, None] - knots  # [j, m, ...]
        shares = (tau - knots[:, None]) / gaps[:, :, None]
        for share in torch.where((known & (gaps != 0))[:, :, None], shares, 1.0).unbind(1):
            basis = basis * share
        total = finite(basis.cumsum(1)[:, -1])
        return torch.where(self.regular(path, t, s) & known, total, 0.0).unbind(0)
