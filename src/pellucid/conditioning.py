"""Conditions: from what is asked (a label) to what a network hears (a context).

    vec = E[label],  or E[null] where the label is withheld: by the mask `drop`, or because there is none

One mask serves label dropout in training and the unconditional half of guidance (Ho & Salimans 2022, alg. 1 and 2).
"""

import torch
from torch import Tensor, nn

from .errors import PellucidError
from .registry import Registry
from .types import Cond, Context

registry: "Registry[nn.Module]" = Registry("conditioner")


def drop(cond: Cond, mask: Tensor) -> Cond:
    """`cond` with the conditions of the samples in `mask` (bool [b]) withheld, beside those withheld already."""
    return {**cond, "drop": mask | cond["drop"] if "drop" in cond else mask}


def null(cond: Cond) -> Cond:
    """`cond` with all conditions of all samples withheld."""
    if not cond:
        return {}
    first = next(iter(cond.values()))
    return drop(cond, torch.ones(len(first), dtype=torch.bool, device=first.device))


@registry.register("none", "unconditional")
class Unconditional(nn.Module):
    """No conditions: an empty context."""

    width = 0

    def __init__(self) -> None:
        super().__init__()

    def forward(self, cond: Cond | None, b: int, device: torch.device, dtype: torch.dtype) -> Context:
        """An empty context, whatever is asked."""
        return Context()


@registry.register("label", "class")
class Label(nn.Module):
    """A learned vector of `width` for each of `classes` labels, and a last one for a withheld label."""

    def __init__(self, *, classes: int, width: int = 128) -> None:
        super().__init__()
        if classes < 1 or width < 1:
            raise PellucidError(f"label has classes = {classes} and width = {width}; expected 1 or more of each.")
        self.classes, self.width = classes, width
        self.embedding = nn.Embedding(classes + 1, width)

    def forward(self, cond: Cond | None, b: int, device: torch.device, dtype: torch.dtype) -> Context:
        """vec [b, width] from cond["label"] (int64 [b]) and cond["drop"]. Labels on a GPU go unchecked: no waiting."""
        rows = torch.full((b,), self.classes, device=device)
        if cond and "label" in cond:
            self._check(cond["label"])
            withheld = cond.get("drop", torch.zeros(b, dtype=torch.bool))
            rows = torch.where(withheld.to(device), rows, cond["label"].to(device))
        return Context(vec=self.embedding(rows).to(dtype))

    def _check(self, label: Tensor) -> None:
        if label.device.type == "cpu":
            wrong = label[(label < 0) | (label >= self.classes)]
            if len(wrong):
                raise PellucidError(f"label is {int(wrong[0])}; expected a class from 0 to {self.classes - 1}.")
