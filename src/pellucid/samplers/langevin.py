r"""Langevin: predict the next level, then let x settle there.

    x <- x + e score + sqrt(2 e) z,    e = 2 (snr sigma)^2,    so   x <- x - 2 snr^2 sigma eps + 2 snr sigma z

(Song et al. 2021, algorithms 1 and 4, with e = 2 (snr |z|/|score|)^2; here |score| is its expectation over noise,
|z|/sigma, so that a sample's step depends on no norm and on no neighbour). The predictor is the re-mix with
kappa = exp(-rho h): rho = 1 the ancestral one, 0 the probability flow's, and rho = -1 none at all, x/alpha stays:
annealed Langevin dynamics (Song & Ermon 2019, algorithm 1, whose alpha_i = 4 (snr sigma_i)^2).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Denoise, Noise, State, Times, combine
from .base import Number, Sampler, registry, remix, some


@registry.register("langevin")
@dataclass(frozen=True)
class Langevin(Sampler):
    """A first-order predictor of noise `rho`, then `steps` Langevin steps at signal-to-noise ratio `snr`."""

    rho: float = 1.0
    steps: int = 1
    snr: float = 0.16
    order: ClassVar[int] = 1  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not self.rho >= -1 or not 1 <= self.steps <= 90 or not 0 < self.snr < 0.5:
            raise PellucidError(
                f"rho is {self.rho}, steps {self.steps}, snr {self.snr}; expected -1 or more, 1 to 90, 0 to 0.5."
            )

    @property
    def calls(self) -> int:  # type: ignore[override]
        return 1 + self.steps

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def weak(self) -> int:
        return 1 if self.rho >= 0 else 0  # without a predictor, what is not yet settled when sigma is small stays

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        alpha, sigma, h = path.alpha(s), path.sigma(s), path.lam(s) - path.lam(t)
        kappa = torch.where(h.isfinite(), torch.exp(-self.rho * h), float(self.rho == 0))
        fresh = (1 - kappa**2).clamp(min=0).sqrt()
        return alpha, sigma * kappa, sigma * fresh, -2 * self.snr**2 * sigma, 2 * self.snr * sigma

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        signal, kept, fresh, pull, kick = c
        x = remix(denoise(state.x, state.t), signal, kept, fresh, noise)
        if some(kick):
            for draw in range(2, 2 + self.steps):  # 0 and 1 are the predictor's
                x = combine((1.0, x), (pull, denoise(x, s).eps), (kick, noise(draw)))
        return State(x, s)
