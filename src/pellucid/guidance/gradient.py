r"""Guidance by a gradient: a classifier of noisy samples says which way its class lies.

    log p(x_t | y) = log p(x_t) + log p(y | x_t) - log p(y)

    eps -> eps - w sigma g,    x0 -> x0 + w sigma^2/alpha g,    g = grad_x log p(y | x_t)

so that alpha x0 + sigma eps stays x (Song et al. 2021, eq. 14; Dhariwal & Nichol 2021, algorithm 2). With w = 1 and the
true classifier this is the conditional model; w > 1 sharpens p(y | x_t)^w. Where alpha = 0 the sample says nothing of
its class, g = 0, and x0 stays.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PellucidError
from ..types import Batch, Cond, Denoised, Model, Times, Wrapper, along

LogProb = Callable[[Batch, Times, Cond], Tensor]
"""[b] log p(y | x_t) of each sample's own condition y, differentiable in x."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """Classifier guidance of `scale`: `Classifier(log_prob, 2.0)(model)` is a model.

    The model itself is asked without the condition, unless it `hears` it too (Dhariwal & Nichol 2021, section 4.3).
    """

    log_prob: LogProb
    scale: float = 1.0
    hears: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.scale, int | float) or not abs(self.scale) <= 1000:
            raise PellucidError(f"the guidance scale is {self.scale!r}; expected a number from -1000 to 1000.")

    def __call__(self, model: Model) -> Model:
        return _Led(model, self)


class _Led(Wrapper):
    """A model led by a classifier; samples whose condition is dropped are not."""

    def __init__(self, model: Model, rule: Classifier) -> None:
        super().__init__(model)
        self.rule = rule

    @property
    def hears(self) -> frozenset[str] | None:
        """Whatever the classifier reads, which does not say."""
        return None

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        d = self.model(x, t, cond if self.rule.hears else None)
        if not cond:
            return d
        g = uphill(self.rule.log_prob, x, t, cond)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        lift = self.rule.scale * torch.where(alpha > 0, sigma**2 / alpha, 0.0)
        turn = self.rule.scale * torch.where(alpha > 0, sigma, 0.0)
        return Denoised(d.x0 + along(lift, x) * g, d.eps - along(turn, x) * g, d.spread)


def uphill(log_prob: LogProb, x: Batch, t: Times, cond: Cond) -> Batch:
    """grad_x log p(y | x_t), 0 for samples whose condition is dropped."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = log_prob(leaf, t, {name: part for name, part in cond.items() if name != "drop"})
        (g,) = torch.autograd.grad(value.sum(), leaf)
    return torch.where(cond["drop"].reshape(-1, *(1,) * (x.dim() - 1)), 0.0, g) if "drop" in cond else g
