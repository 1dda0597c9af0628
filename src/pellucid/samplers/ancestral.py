"""Ancestral sampling: DDIM's family, from no fresh noise to DDPM's.

    kappa^2 = 1 - eta^2 (1 - exp(-2 h)),   h = lam_s - lam_t

eta = 1 is the exact posterior q(x_s | x_t, x0), so DDPM with its small variance (Ho et al. 2020, eq. 7) on every path;
eta = 0 is DDIM (Song et al. 2021, eq. 12 and 16). k-diffusion's euler_ancestral(eta) is the same step.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Denoise, Noise, State, Times
from .base import Number, Sampler, registry, remix


@registry.register("ancestral")
@dataclass(frozen=True)
class Ancestral(Sampler):
    """First order, with eta in [0, 1] of the posterior's standard deviation drawn anew."""

    eta: float = 1.0
    order: ClassVar[int] = 1  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise PellucidError(f"eta is {self.eta}; expected a number from 0 (DDIM) to 1 (DDPM).")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        sigma = path.sigma(s)
        fresh = self.eta * (-torch.expm1(2 * (path.lam(t) - path.lam(s)))).clamp(min=0).sqrt()
        return path.alpha(s), sigma * (1 - fresh**2).sqrt(), sigma * fresh

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        signal, kept, fresh = c
        return State(remix(denoise(state.x, state.t), signal, kept, fresh, noise), s)
