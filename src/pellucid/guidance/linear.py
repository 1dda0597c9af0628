r"""Guidance that is linear in two predictions.

    x0 = u + w (c - u)       c: with the condition, u: without; w = 1 is c, w = 0 is u     (Ho & Salimans 2022, eq. 6
                                                                                            with w = 1 + their w)
eps follows the same line, since x is the same for both. In CFG++ it does not: the re-mix takes the eps that belongs to
no condition, so that w in [0, 1] moves between two clean pictures and never beyond (Chung et al. 2024, algorithm 2).

Autoguidance takes u from a weaker model of the same condition: what is extrapolated is quality (Karras et al. 2024).
"""

from dataclasses import dataclass

import torch

from ..errors import PellucidError
from ..paths import Path
from ..types import Batch, Cond, Denoised, Model, Times
from .rule import Guided, Rule, registry, seen


@registry.register("cfg", "classifier-free")
@dataclass(frozen=True)
class CFG(Rule):
    """Classifier-free guidance. `CFG(2.0)(model)` is a model.

    `rescale`: how far the standard deviation of the guided x0 is brought back to that of the conditional one
    (Lin et al. 2023, eq. 15-16).
    """

    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rescale <= 1:
            raise PellucidError(f"the guidance rescale is {self.rescale}; expected a number from 0 to 1.")

    @property
    def idle(self) -> bool:
        return self.scale == 1

    def combine(self, path: Path, x: Batch, t: Times, c: Denoised, u: Denoised) -> Denoised:
        d = line(c, u, self.scale)
        if self.rescale == 0:
            return d
        axes = tuple(range(1, x.dim()))
        own, std = (part.std(axes, correction=0, keepdim=True) for part in (c.x0, d.x0))
        ratio = torch.where(std > 0, own / std, 1.0)  # what does not vary, one number say, stays as it is
        return seen(path, x, t, d, d.x0 * (1 + self.rescale * (ratio - 1)))


@registry.register("cfg++", "cfgpp", "cfg-plus-plus")
@dataclass(frozen=True)
class CFGPlusPlus(Rule):
    """x0 = u + w (c - u) beside the eps of u; w from 0 to 1, made for first-order steps (Chung et al. 2024)."""

    def combine(self, path: Path, x: Batch, t: Times, c: Denoised, u: Denoised) -> Denoised:
        return Denoised(line(c, u, self.scale).x0, u.eps)


@dataclass(frozen=True, eq=False)
class Autoguidance:
    """x0 = u + w (c - u) with u from `weak`, a smaller or less trained model of the same data (Karras et al. 2024)."""

    weak: Model
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __call__(self, model: Model) -> Model:
        if (self.weak.shape, self.weak.path) != (model.shape, model.path):
            theirs, own = (f"{m.shape} on {m.path}" for m in (self.weak, model))
            raise PellucidError(f"the weak model draws {theirs}, the model {own}; expected the same: see Repath.")
        return _Beside(model, CFG(self.scale, self.interval), self.weak)


class _Beside(Guided):
    """A model guided away from another one."""

    def __init__(self, model: Model, rule: Rule, weak: Model) -> None:
        super().__init__(model, rule)
        self.weak = weak

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        if cond:
            return super().__call__(x, t, cond)
        held = {"drop": torch.ones(len(x), dtype=torch.bool, device=x.device)}  # any condition: nothing is withheld
        return super().__call__(x, t, held)

    def both(self, x: Batch, t: Times, cond: Cond) -> tuple[Denoised, Denoised]:
        asked = None if set(cond) == {"drop"} else cond
        return self.model(x, t, asked), self.weak(x, t, asked)


def line(c: Denoised, u: Denoised, w: float) -> Denoised:
    """u + w (c - u), both halves."""
    return Denoised(u.x0 + w * (c.x0 - u.x0), u.eps + w * (c.eps - u.eps))
