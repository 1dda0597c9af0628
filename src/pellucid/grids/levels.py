"""Grids stated in noise levels: sigma/alpha = exp(-lam), lam, or the angle between them, on every path.

    r_0 > ... > r_{N-1}, then 0;    r = sigma/alpha,    lam = -log r,    phi = atan r

The first call is at the path's own end, whatever the rule says of it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import PellucidError
from ..paths import Path
from ..registry import Positive
from ..types import Times
from .base import Grid, registry


def _falling(low: float, high: float) -> None:
    if not low < high:
        raise PellucidError(f"sigma_min is {low} and sigma_max {high}; expected the first to be the smaller one.")


def _between(path: Path, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The limits of sigma/alpha, no noisier than the path's end."""
    top = end(path).clamp(max=high)
    return torch.minimum(torch.tensor(low, dtype=torch.float64), top / 2), top


def end(path: Path) -> Tensor:
    """sigma/alpha at the path's end; infinite where alpha is 0 there."""
    return torch.exp(-path.lam(torch.ones((), dtype=torch.float64)))


def at(path: Path, sigmas: Tensor) -> Times:
    times = path.time(-sigmas.log())
    return torch.cat([torch.ones(1, dtype=torch.float64), times[1:]])  # the first call is at the path's end


@registry.register("karras")
@dataclass(frozen=True)
class Karras(Grid):
    """sigma = (hi^(1/rho) + i/(N-1) (lo^(1/rho) - hi^(1/rho)))^rho, then 0 (Karras et al. 2022, eq. 5).

    hi is the path's own largest sigma/alpha, or `sigma_max` where that is larger or infinite.
    """

    rho: Positive = 7.0
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0

    def __post_init__(self) -> None:
        _falling(self.sigma_min, self.sigma_max)

    def times(self, path: Path, steps: int) -> Times:
        low, high = (sigma ** (1 / self.rho) for sigma in _between(path, self.sigma_min, self.sigma_max))
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        return at(path, (high + ramp * (low - high)) ** self.rho)


@registry.register("lam", "exponential", "logsnr", "lambdas", "polyexponential")
@dataclass(frozen=True)
class Lam(Grid):
    """log sigma = lo + (1 - i/(N-1))^rho (hi - lo), then 0: equal steps in lam where rho = 1 (Lu et al. 2022, 3.4).

    rho > 1 crowds the calls at low noise: k-diffusion's polyexponential.
    """

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    rho: Positive = 1.0

    def __post_init__(self) -> None:
        _falling(self.sigma_min, self.sigma_max)

    def times(self, path: Path, steps: int) -> Times:
        low, high = (sigma.log() for sigma in _between(path, self.sigma_min, self.sigma_max))
        ramp = torch.linspace(1, 0, steps, dtype=torch.float64) ** self.rho
        return at(path, torch.exp(low + ramp * (high - low)))


@registry.register("kl-optimal", "kl_optimal", "kl optimal", "angle")
@dataclass(frozen=True)
class KL(Grid):
    """Equal steps in phi = atan(sigma/alpha), then 0 (Sabour et al. 2024).

    It minimises their bound on the KL divergence where the data is one isotropic Gaussian.
    """

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0

    def __post_init__(self) -> None:
        _falling(self.sigma_min, self.sigma_max)

    def times(self, path: Path, steps: int) -> Times:
        low, high = (sigma.atan() for sigma in _between(path, self.sigma_min, self.sigma_max))
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        return at(path, torch.tan(high + ramp * (low - high)))


@registry.register("snr-quantile", "logit-normal", "lognormal")
@dataclass(frozen=True)
class Quantile(Grid):
    """lam_i = Q(F + (1 - F) i/N): equal mass between calls under a law of lam, F what lies beyond the path's end.

    On a flow "normal" is the logit-normal density of t (Esser et al. 2024, eq. 19); with mean = 1.2 and scale = 1.2 it
    is EDM's density of log sigma, P_mean = -mean (Karras et al. 2022, table 1).
    """

    law: Literal["normal", "logistic"] = "normal"
    mean: float = 0.0
    scale: Positive = 1.0

    def times(self, path: Path, steps: int) -> Times:
        mass, quantile = _LAWS[self.law]
        beyond = mass((-end(path).log() - self.mean) / self.scale)
        share = beyond + (1 - beyond) * torch.arange(steps, dtype=torch.float64) / steps
        return at(path, torch.exp(-self.mean - self.scale * quantile(share)))


_LAWS = {"normal": (torch.special.ndtr, torch.special.ndtri), "logistic": (torch.sigmoid, torch.logit)}
