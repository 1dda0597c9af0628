r"""Renoise: a deterministic step beyond the goal, and back to it with fresh noise.

    t -> d  by `base`,  then  x_s = alpha_s/alpha_d x_d + sigma_s sqrt(1 - kappa^2) z,  kappa = r_d/r_s, r = sigma/alpha

Both halves keep the law of x, the first as far as the base solves its ODE: the base's order is the order in law.
With eta, d is where DDIM's share of the
posterior's noise is left out, kappa^2 = 1 - eta^2 (1 - exp(-2 h)): k-diffusion's ancestral samplers, sigma_d its
sigma_down. With gamma, d -> (1 - gamma) d: the strategic stochastic sampling of TCD (Zheng et al. 2024, eq. 13), of
which gamma = 1, all the way to the data and back, is the multistep sampling of consistency models (Song et al. 2023,
algorithm 1) and of LCM. Those steps stay long however many there are, so that their law is right for models that
leap along the ODE (consistency models) and for no others.
"""

from dataclasses import dataclass

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Batch, Denoise, Noise, State, Times, combine
from .base import Number, Sampler, at, registry, some
from .multistep import Multistep


@registry.register("renoise")
@dataclass(frozen=True)
class Renoise(Sampler):
    """`base`, with the share `eta` of the posterior's noise drawn anew, and the last `gamma` of the time left twice."""

    base: Sampler = Multistep(1)
    eta: float = 1.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1 or not 0 <= self.gamma <= 1:
            raise PellucidError(f"eta is {self.eta} and gamma is {self.gamma}; expected numbers from 0 to 1.")
        if self.base.stochastic:
            raise PellucidError(
                "the base of renoise draws noise of its own; take a deterministic one, such as midpoint."
            )

    @property
    def order(self) -> int:  # type: ignore[override]
        return self.base.order

    @property
    def calls(self) -> int:  # type: ignore[override]
        return self.base.calls

    @property
    def stochastic(self) -> bool:
        return self.eta > 0 or self.gamma > 0

    @property
    def weak(self) -> int:
        if self.gamma > 0:
            return 0
        return 1 if self.base.past else self.base.order  # between remembered values fresh noise has come

    @property
    def universal(self) -> bool:
        return self.base.universal and self.gamma in (0, 1)

    @property
    def past(self) -> int:
        return self.base.past

    def init(self, x: Batch, t: Times) -> State:
        return self.base.init(x, t)

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        lam, alpha, sigma = path.lam(s), path.alpha(s), path.sigma(s)
        left = 1 + self.eta**2 * torch.expm1(2 * (path.lam(t) - lam))  # kappa^2
        inner = (left > 0) & (left < 1) & lam.isfinite()
        down = torch.where(
            inner, path.time(torch.where(inner, lam - left.log() / 2, 0.0)), torch.where(left > 0, s, 0.0)
        )
        if self.gamma > 0:
            down = (1 - self.gamma) * down
            left = torch.where(down > 0, torch.exp(2 * (lam - path.lam(down))), 0.0)
        back = alpha / path.alpha(down)
        return down, back, sigma * (1 - left).clamp(min=0).sqrt(), *self.base.coefficients(path, t, down, past)

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        down, back, fresh, *numbers = c
        after = self.base.move(denoise, state, at(down, state.t), tuple(numbers), noise)
        terms = [(back, after.x), (fresh, noise(0))] if some(fresh) else [(back, after.x)]
        return State(combine(*terms), s, after.memory)
