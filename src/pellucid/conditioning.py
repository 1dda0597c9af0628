"""Conditions: from what is asked (a label) to what a network hears (a context).

    vec = E[label],  or E[null] where the label is withheld: by the mask `drop`, or because there is none
    vec + W c                              where the picture was changed by an augmentation that says c

One mask serves label dropout in training and the unconditional half of guidance (Ho & Salimans 2022, alg. 1 and 2).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .errors import PellucidError
from .registry import Registry
from .types import Cond, Context, Model

registry: "Registry[nn.Module]" = Registry("conditioner")

Conditions = Mapping[str, Tensor | int] | None
"""What may be asked of a model: for each name a tensor [n], or one value for all."""


def drop(cond: Cond, mask: Tensor) -> Cond:
    """`cond` with the conditions of the samples in `mask` (bool [b]) withheld, beside those withheld already."""
    return {**cond, "drop": mask | cond["drop"] if "drop" in cond else mask}


def asked(model: Model, cond: Conditions, n: int) -> dict[str, Tensor]:
    """Conditions of n samples where the model lives; one that it does not hear is refused.

    A model says by `hears` which names it hears; one that does not say is asked anything.
    """
    found, hears = spread(cond, n), getattr(model, "hears", None)
    if hears is not None and (strange := sorted(found.keys() - hears - {"drop"})):
        names = ", ".join(sorted(hears)) or "none"
        raise PellucidError(f"unknown condition {strange[0]!r}; this model hears: {names}.")
    return {name: value.to(model.device) for name, value in found.items()}


def spread(cond: Conditions, n: int) -> dict[str, Tensor]:
    """Conditions of n samples: one value of each for all, or one for each, as tensors that lead with n."""
    if not isinstance(cond, Mapping | None):
        raise PellucidError(f"cond is {cond!r}; expected values by name, such as {{'label': 3}}.")
    return {name: _spread(name, value, n) for name, value in (cond or {}).items()}


def _spread(name: str, value: Tensor | int, n: int) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise PellucidError(f"condition {name!r} is {value!r}; expected a number, or a tensor of {n}.") from None
    if name == "label" and (tensor.is_floating_point() or tensor.is_complex() or tensor.dim() > 1):
        raise PellucidError(f"condition 'label' is {value!r}; expected a whole number, or one for each of {n} samples.")
    spread = tensor.expand(n) if tensor.dim() == 0 else tensor
    if len(spread) != n:
        raise PellucidError(f"condition {name!r} has {len(tensor)} values, not {n}; give one, or one for each.")
    return spread


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
    hears = frozenset[str]()

    def __init__(self) -> None:
        super().__init__()

    def forward(self, cond: Cond | None, b: int, device: torch.device, dtype: torch.dtype) -> Context:
        """An empty context, whatever is asked."""
        return Context()


@registry.register("label", "class")
class Label(nn.Module):
    """A learned vector of `width` for each of `classes` labels, and a last one for a withheld label."""

    hears = frozenset({"label"})

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


def is_labelled(conditioner: nn.Module) -> bool:
    """Whether a conditioner hears labels."""
    hears: frozenset[str] = getattr(conditioner, "hears", frozenset())
    return "label" in hears


@registry.register("augmented")
class Augmented(nn.Module):
    """What `base` hears, and `features` numbers that say how a picture was augmented: 0 for one that was not.

    Karras et al. (2022, app. F.2). They are in cond["augment"]; without it, as in sampling, the picture is as it was.
    """

    def __init__(self, *, base: str | dict[str, Any] = "none", features: int = 9) -> None:
        super().__init__()
        if features < 1:
            raise PellucidError(f"augmented has features = {features}; expected 1 or more.")
        made: Any = registry.make(base)
        self.base, self.width = made, int(made.width) or 128
        self.hears = getattr(made, "hears", frozenset[str]()) | {"augment"}
        self.hear = nn.Linear(features, int(made.width) or 128, bias=False)

    def forward(self, cond: Cond | None, b: int, device: torch.device, dtype: torch.dtype) -> Context:
        """The context of `base`, with W c added to its vector."""
        heard: Context = self.base(cond, b, device, dtype)
        said = cond["augment"] if cond and "augment" in cond else torch.zeros(b, self.hear.in_features)
        told = self.hear(said.to(device, self.hear.weight.dtype)).to(dtype)
        return heard._replace(vec=told if heard.vec is None else heard.vec + told)
