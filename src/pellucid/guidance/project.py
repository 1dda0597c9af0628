r"""Guidance by projection: of the push, or of the clean estimate itself.

    push  c - u = along c + across c:      x0 = c + (w - 1) (across + eta along)     (adaptive projected guidance,
                                                                                      Sadat et al. 2024, algorithm 1)
    x0 -> clip(x0, -s, s) / s x limit,     s = max(limit, a quantile of |x0|)        (dynamic thresholding,
                                                                                      Saharia et al. 2022, section 2.3)

What lies along c makes a picture brighter and more saturated, what lies across changes it. The estimate of endless
data lies in its convex hull, that of pictures in [-1, 1]: a guided one need not.
"""

import math
from dataclasses import dataclass

import torch

from ..errors import PellucidError
from ..paths import Path
from ..registry import Limit, Positive, Share
from ..types import Batch, Cond, Denoised, Model, Times, Wrapper
from .rule import Rule, inner, registry, seen


@registry.register("apg", "adaptive-projected")
@dataclass(frozen=True)
class APG(Rule):
    """The push across c, `eta` of the push along it, and no push longer than `longest` (its norm over one sample).

    eta = 1 without a limit is classifier-free guidance. Their momentum is left out: a model remembers nothing.
    """

    eta: float = 0.0
    longest: Limit = math.inf

    @property
    def idle(self) -> bool:
        return self.scale == 1

    def combine(self, path: Path, x: Batch, t: Times, c: Denoised, u: Denoised) -> Denoised:
        push = c.x0 - u.x0
        size = inner(push, push).sqrt()
        push = torch.where(size > self.longest, push * (self.longest / size), push)
        square = inner(c.x0, c.x0)
        lengthwise = torch.where(square > 0, inner(push, c.x0) / square, 0.0) * c.x0
        across = push - lengthwise
        return seen(path, x, t, c, c.x0 + (self.scale - 1) * (across + self.eta * lengthwise))


@dataclass(frozen=True)
class Threshold:
    """Clean estimates are kept within `limit`: what the `share` quantile of their sizes exceeds it by, all give up.

    `Threshold()(CFG(5.0)(model))` is a model. share = 1 scales the whole range back; `Clip` only cuts.
    """

    share: Share = 0.995
    limit: Positive = 1.0

    def __post_init__(self) -> None:
        numbers = all(isinstance(value, int | float) for value in (self.share, self.limit))
        if not numbers or not 0 < self.share <= 1 or not self.limit > 0:
            raise PellucidError(
                f"share is {self.share!r} and limit {self.limit!r}; expected a share above 0, at most 1, "
                "and a positive limit."
            )

    def __call__(self, model: Model) -> Model:
        return _Kept(model, self)

    def keep(self, x0: Batch) -> Batch:
        """x0 within the limit."""
        sizes = x0.flatten(1).abs()
        k = max(1, math.ceil(self.share * sizes.shape[1]))
        s = sizes.kthvalue(k, 1).values.clamp(min=self.limit).reshape(-1, *(1,) * (x0.dim() - 1))
        return x0.clamp(-s, s) * (self.limit / s)


@dataclass(frozen=True)
class Clip(Threshold):
    """Clean estimates are cut at +-limit (Ho et al. 2020's clipping); the law that is sampled changes with it."""

    def keep(self, x0: Batch) -> Batch:
        return x0.clamp(-self.limit, self.limit)


class _Kept(Wrapper):
    """A model whose clean estimates are kept within a limit; eps moves along, so that the pair still explains x."""

    def __init__(self, model: Model, rule: Threshold) -> None:
        super().__init__(model)
        self.rule = rule

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        d = self.model(x, t, cond)
        return seen(self.path, x, t, d, self.rule.keep(d.x0))
