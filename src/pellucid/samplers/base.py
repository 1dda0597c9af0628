r"""What a sampler is, and the step that all of them share.

A first-order step is a re-mix of the pair at the new time, on every path (identity 4 of the design):

    x_s = alpha_s x0 + sigma_s (kappa eps + sqrt(1 - kappa^2) z)

kappa = 1 is DDIM = flow Euler = DPM-Solver-1. kappa = exp(-h), h = lam_s - lam_t, is the exact posterior
q(x_s | x_t, x0): ancestral DDPM.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from ..paths import Path
from ..registry import Registry
from ..types import Batch, Denoise, Denoised, Noise, State, Times, along

registry: "Registry[Sampler]" = Registry("sampler")


class Sampler(ABC):
    """One step of one algorithm. `order` and `stochastic` are promises that the tests keep."""

    registry: "ClassVar[Registry[Sampler]]" = registry
    calls: ClassVar[int] = 1  # of the network, each step
    order: int

    @property
    def stochastic(self) -> bool:
        """Whether a step draws noise."""
        return False

    def init(self, x: Batch, t: Times) -> State:
        """The state in which sampling starts: x at times t, nothing remembered."""
        return State(x, t)

    @abstractmethod
    def step(self, denoise: Denoise, state: State, s: Times, noise: Noise) -> State:
        """The state at times s < t."""


def remix(path: Path, d: Denoised, s: Times, kappa: Times, fresh: Times, noise: Noise) -> Batch:
    """x_s = alpha_s x0 + sigma_s (kappa eps + fresh z), fresh = sqrt(1 - kappa^2); no noise is drawn if all are 0."""
    alpha, sigma = path.alpha(s), path.sigma(s)
    x = along(alpha, d.x0) * d.x0 + along(sigma * kappa, d.eps) * d.eps
    return x + along(sigma * fresh, x) * noise(0) if bool(fresh.any()) else x


def finite(weight: Times) -> Times:
    """A weight, or 0 where the signal-to-noise ratio runs to infinity and the correction it multiplies vanishes."""
    return torch.nan_to_num(weight, nan=0.0, posinf=0.0, neginf=0.0)
