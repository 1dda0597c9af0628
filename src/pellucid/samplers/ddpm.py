r"""DDPM: the posterior's mean, with the variance that the model learned, or one of the two bounds on it.

    x_s ~ N(alpha_s x0 + sigma_s exp(-h) eps,  v),    h = lam_s - lam_t
    small: v = sigma_s^2 (1 - exp(-2 h)), exact for data that is one point (Ho et al. 2020, eq. 7)
    large: v = beta = sigma_t^2 (1 - exp(-2 h)), the forward step's, exact for data that is white noise
    learned: log v = spread log(large) + (1 - spread) log(small), spread in [0, 1]   (Nichol & Dhariwal 2021, eq. 15)

"large" speaks of x, not of x/alpha, so it is the one sampler of first order that differs from path to path.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ..paths import Path
from ..types import Denoise, Noise, State, Times, along
from .base import Number, Sampler, registry, remix


@registry.register("ddpm-variance")
@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling with this variance where the model gives none of its own."""

    variance: Literal["small", "large"] = "large"
    order: ClassVar[int] = 1  # type: ignore[misc]

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def universal(self) -> bool:
        return self.variance == "small"

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        h, sigma = path.lam(s) - path.lam(t), path.sigma(s)
        share = torch.where(sigma > 0, (-torch.expm1(-2 * h)).sqrt(), 0.0)  # the last step is the mean
        return path.alpha(s), sigma * torch.exp(-h), sigma * share, path.sigma(t) * share

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        signal, kept, small, large = c
        d = denoise(state.x, state.t)
        if d.spread is None:
            return State(remix(d, signal, kept, small if self.variance == "small" else large, noise), s)
        x, v = remix(d, signal, kept, 0.0, noise), d.spread
        low, high = (along(torch.as_tensor(std, dtype=torch.float64).expand(len(x)), x) for std in (small, large))
        std = torch.where(high > 0, low ** (1 - v) * high**v, 0.0)  # whatever is learnt, the last step has none
        return State(x + std * noise(0), s)
