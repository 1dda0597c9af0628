r"""What guidances of two predictions share: one call of the network for both, the times in which they act, a registry.

A rule makes one pair of two:  c, with the condition, and u, without it (or a weaker model's, which may well have it).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from ..paths import Path
from ..registry import Registry
from ..registry import Rule as Must
from ..types import Batch, Cond, Denoised, Model, Times, Wrapper, along

registry: "Registry[Any]" = Registry("guidance")

Scale = Annotated[float, Must("a number from -1000 to 1000", lambda value: abs(value) <= 1000)]
Interval = Annotated[
    tuple[float, float],
    Must("two rising times in [0, 1]", lambda pair: len(pair) == 2 and 0 <= pair[0] <= pair[1] <= 1),
]


@dataclass(frozen=True)
class Rule(ABC):
    """A guidance of a scale, acting at the times t within `interval` (Kynkaanniemi et al. 2024); elsewhere c stands.

    `rule(model)` is a model.
    """

    registry: ClassVar[Registry[Any]] = registry
    scale: Scale
    interval: Interval = (0.0, 1.0)

    def __call__(self, model: Model) -> Model:
        return Guided(model, self)

    def acts(self, t: Times) -> Tensor:
        """[b] whether it acts at times t."""
        low, high = self.interval
        return (t >= low) & (t <= high)

    @property
    def idle(self) -> bool:
        """Whether the conditional pair is all that it needs."""
        return False

    @abstractmethod
    def combine(self, path: Path, x: Batch, t: Times, c: Denoised, u: Denoised) -> Denoised:
        """The guided pair at x_t."""


def made(rule: str | Mapping[str, Any], **options: Any) -> Rule:
    """The rule of a name or of a table, with these options."""
    table = {"name": rule} if isinstance(rule, str) else rule
    found: Rule = registry.make({**table, **options})
    return found


class Guided(Wrapper):
    """A model under a rule: with and without the condition, both halves in one call of the network."""

    def __init__(self, model: Model, rule: Rule) -> None:
        super().__init__(model)
        self.rule = rule

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        acts = self.rule.acts(t)
        if not cond or self.rule.idle or not bool(acts.any()):
            return self.model(x, t, cond)
        c, u = self.both(x, t, cond)
        guided, mask = self.rule.combine(self.path, x, t, c, u), along(acts, x) > 0
        return Denoised(torch.where(mask, guided.x0, c.x0), torch.where(mask, guided.eps, c.eps), c.spread)

    def both(self, x: Batch, t: Times, cond: Cond) -> tuple[Denoised, Denoised]:
        """(c, u): all samples as they are, and all of them with their conditions withheld."""
        dropped = torch.ones(len(x), dtype=torch.bool, device=x.device)
        kept = cond.get("drop", ~dropped)
        twice = {name: torch.cat([value, value]) for name, value in cond.items()}
        d = self.model(torch.cat([x, x]), torch.cat([t, t]), twice | {"drop": torch.cat([kept, dropped])})
        c, u = zip(*((None, None) if part is None else part.chunk(2) for part in d), strict=True)
        return Denoised(*c), Denoised(*u)


def seen(path: Path, x: Batch, t: Times, d: Denoised, x0: Batch) -> Denoised:
    """The pair whose clean half is x0 and which still explains x: eps moves by alpha/sigma (old x0 - x0)."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    back = along(torch.where(sigma > 0, alpha / sigma, 0.0), x)
    return Denoised(x0, d.eps + back * (d.x0 - x0), d.spread)


def inner(a: Batch, b: Batch) -> Batch:
    """<a, b> of each sample, [b, 1, ...]."""
    return (a * b).flatten(1).sum(1).reshape(-1, *(1,) * (a.dim() - 1))
