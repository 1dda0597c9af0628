r"""Guidance that is linear in two predictions.

    x0 = u + w (c - u)       c: with the condition, u: without; w = 1 is c, w = 0 is u     (Ho & Salimans 2022, eq. 6
                                                                                            with w = 1 + their w)
eps follows the same line, since x is the same for both.
"""

from dataclasses import dataclass

import torch

from ..errors import PellucidError
from ..types import Batch, Cond, Denoised, Model, Times, Wrapper, along


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance. `CFG(2.0)(model)` is a model.

    `interval`: the times t in which it acts; elsewhere the scale is 1 (Kynkaanniemi et al. 2024).
    `rescale`: how far the standard deviation of the guided x0 is brought back to that of the conditional one
    (Lin et al. 2023, eq. 15-16).
    """

    scale: float
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, int | float) or not abs(self.scale) <= 1000:
            raise PellucidError(f"the guidance scale is {self.scale!r}; expected a number from -1000 to 1000.")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise PellucidError(f"the guidance interval is {self.interval}; expected two rising times in [0, 1].")
        if not 0 <= self.rescale <= 1:
            raise PellucidError(f"the guidance rescale is {self.rescale}; expected a number from 0 to 1.")

    def __call__(self, model: Model) -> Model:
        return Guided(model, self)


class Guided(Wrapper):
    """A model under classifier-free guidance: both halves in one call of the network."""

    def __init__(self, model: Model, rule: CFG) -> None:
        super().__init__(model)
        self.rule = rule

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        low, high = self.rule.interval
        scale = torch.where((t >= low) & (t <= high), torch.full_like(t, self.rule.scale), 1.0)
        if not cond or bool((scale == 1).all()):
            return self.model(x, t, cond)
        dropped = torch.ones(len(x), dtype=torch.bool, device=x.device)
        kept = cond.get("drop", ~dropped)
        both = {name: torch.cat([value, value]) for name, value in cond.items()}
        d = self.model(torch.cat([x, x]), torch.cat([t, t]), both | {"drop": torch.cat([kept, dropped])})
        (c0, u0), (c1, u1) = d.x0.chunk(2), d.eps.chunk(2)
        w = along(scale, x)
        guided = Denoised(u0 + w * (c0 - u0), u1 + w * (c1 - u1))
        return self._rescaled(x, t, guided, c0) if self.rule.rescale > 0 else guided

    def _rescaled(self, x: Batch, t: Times, d: Denoised, x0: Batch) -> Denoised:
        """x0 -> (1 - phi) x0 + phi x0 std(conditional)/std(guided); eps keeps alpha x0 + sigma eps = x."""
        axes = tuple(range(1, x.dim()))
        own, std = (v.std(axes, correction=0, keepdim=True) for v in (x0, d.x0))
        ratio = torch.where(std > 0, own / std, 1.0)  # what does not vary, one number say, stays as it is
        new = d.x0 * (1 + self.rule.rescale * (ratio - 1))
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        back = along(torch.where(sigma > 0, alpha / sigma, 0.0), x)
        return Denoised(new, d.eps + back * (d.x0 - new))
