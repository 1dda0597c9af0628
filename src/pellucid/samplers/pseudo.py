r"""Pseudo numerical methods: the first-order step with a better eps (Liu et al. 2022).

    x_s = alpha_s x0 + sigma_s eps_t + (sigma_s - alpha_s sigma_t/alpha_t) (eps' - eps_t)

puts eps' in the place of eps_t in DDIM's step (their eq. 11). eps' is Adams and Bashforth's mean of the present and the
past eps with the weights of equal steps, whatever the steps are (their eq. 12, 4 values):

    1;   3/2 -1/2;   23/12 -16/12 5/12;   55/24 -59/24 37/24 -9/24

so that on unequal steps the order is 2. While fewer than `steps` values are known, the start decides:

    lower         the mean of fewer values: iPNDM (Zhang & Chen 2023)
    heun          once, with none: eps' = (eps_t + eps_s)/2, PLMS of latent diffusion
    runge-kutta   eps' = (e_1 + 2 e_2 + 2 e_3 + e_4)/6, each from the step by the last, to t, m, m, s, m = (t + s)/2
                  (their eq. 13): PNDM

Of two values, eps' = gamma eps_t + (1 - gamma) eps_1: gamma = 3/2 is Adams and Bashforth's; gamma = 2 is gradient
estimation (Permenter & Yuan 2024), of first order. On unequal steps second order wants gamma = 1 + h_t/(2 h_1) in
sigma/alpha: that is Multistep(order=2, variable="eps", clock="sigma").
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Batch, Denoise, Denoised, Noise, State, Times, combine
from .base import Number, Sampler, at, finite, registry, some
from .form import is_noise

BASHFORTH = (1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24)


@registry.register("pseudo")
@dataclass(frozen=True)
class Pseudo(Sampler):
    """Fixed weights of up to `steps` values of eps; `gamma` is the first of two."""

    steps: int = 4
    start: Literal["lower", "heun", "runge-kutta"] = "lower"
    gamma: float = 1.5

    def __post_init__(self) -> None:
        if self.steps not in (1, 2, 3, 4):
            raise PellucidError(f"steps is {self.steps}; expected 1 to 4 values of eps.")
        if self.gamma != 1.5 and self.steps != 2:
            raise PellucidError(f"gamma weighs two values of eps, not {self.steps}; expected steps = 2.")

    @property
    def order(self) -> int:  # type: ignore[override]
        return 1 if self.steps == 1 or self.gamma != 1.5 else 2

    @property
    def past(self) -> int:
        return self.steps - 1

    @property
    def universal(self) -> bool:
        return self.start != "runge-kutta"

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        known = (past > -torch.inf).sum(-1)
        usual = torch.tensor([row + (0.0,) * (4 - len(row)) for row in self.rows()], dtype=t.dtype)[known]
        enough = {"lower": 0, "heun": min(1, self.past), "runge-kutta": self.past}[self.start]
        going = (known >= enough) | is_noise(path, t) | (path.sigma(s) == 0)
        inner, outer = (self.leap(path, t, torch.where(going, t, u)) for u in ((t + s) / 2, s))
        usual *= torch.where(going, self.leap(path, t, s)[-1], 0.0)[..., None]
        others = usual[..., 1 : self.steps].movedim(-1, 0)
        return path.alpha(s), path.sigma(s) - sum(others, torch.zeros_like(t)), *inner, *outer, *others

    def leap(self, path: Path, t: Times, u: Times) -> tuple[Times, ...]:
        """u, and the weights of x0, of eps_t and of eps' - eps_t in the step to it."""
        alpha, sigma = path.alpha(u), path.sigma(u)
        gain = finite(sigma - alpha * path.sigma(t) / path.alpha(t))
        return u, alpha, sigma, torch.where(u != t, gain, 0.0)

    def rows(self) -> tuple[tuple[float, ...], ...]:
        """The weights of eps, newest first, for each number of past values."""
        if self.steps == 2:
            return BASHFORTH[0], (self.gamma, 1 - self.gamma)
        return BASHFORTH[: self.steps]

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, memory = state
        past, (signal, kept), inner, outer, shares = self.steps - 1, c[:2], c[2:6], c[6:10], c[10:]
        d, times, seen = denoise(x, t), memory[:past], memory[past:]
        terms = [(signal, d.x0), (kept, d.eps), *zip(shares, seen, strict=True)]
        if some(outer[-1]):
            terms.append((outer[-1], self.begin(denoise, d, t, inner, outer)))
        out = combine(*terms)
        return State(out, s, (t, *times[:-1], d.eps, *seen[:-1]) if past else ())

    def begin(
        self, denoise: Denoise, d: Denoised, t: Times, inner: tuple[Number, ...], outer: tuple[Number, ...]
    ) -> Batch:
        """eps' - eps_t by the start's method."""

        def change(leap: tuple[Number, ...], by: Batch | None = None) -> Batch:
            u, signal, kept, gain = leap
            x = combine((signal, d.x0), (kept, d.eps), *([(gain, by)] if by is not None else []))
            return denoise(x, at(u, t)).eps - d.eps

        if self.start == "heun":
            return change(outer) / 2
        first = change(inner)
        second = change(inner, first)
        return combine((1 / 3, first), (1 / 3, second), (1 / 6, change(outer, second)))
