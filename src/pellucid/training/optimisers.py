r"""Optimisers: what a gradient g does to a weight.

    adamw   m, v <- averages of g, g^2;   theta <- theta - lr (m / sqrt v + decay theta)    (Loshchilov & Hutter 2019)
    adam    the same with g + decay theta in place of g                                     (Kingma & Ba 2015)
    muon    M <- mu M + g;   theta <- theta - lr (rms sqrt(max(rows, columns)) U V' + decay theta),   mu M + g = U S V'

Muon (Jordan et al. 2024) is for the matrices of linear layers; U V' comes from a few of Newton's and Schulz's steps.
The root mean square of its step's numbers is `rms`: 1, as AdamW's at first, so that one rate serves both; Liu et al.
(2025) take 0.2, as AdamW's have it later. All else is AdamW's. Only matrices and kernels decay: that norms, biases and
gains should has no reason.

All are torch's own, fused where it fuses. To add one, write a frozen dataclass and register it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PellucidError
from ..nets.magnitude import Layer
from ..registry import Count, Positive, Registry, Share

registry: "Registry[Optimiser]" = Registry("optimiser")


class Optimiser(ABC):
    """A way to follow gradients, made for a model."""

    @abstractmethod
    def make(self, model: nn.Module, lr: float, betas: tuple[float, float], decay: float) -> torch.optim.Optimizer:
        """Torch's optimiser of the model's parameters; each group's rate is set before each step."""


def groups(parameters: Iterable[Tensor], decay: float) -> list[dict[str, Any]]:
    """The parameters that decay, and those that do not: vectors and numbers. Without decay all are one group."""
    own = list(parameters)
    if not decay:
        return [{"params": own, "weight_decay": 0.0}]
    parted = [p for p in own if p.dim() > 1], [p for p in own if p.dim() <= 1]
    return [{"params": some, "weight_decay": d} for some, d in zip(parted, (decay, 0.0), strict=True) if some]


@registry.register("adamw")
@dataclass(frozen=True)
class AdamW(Optimiser):
    """Adam whose decay is apart from the gradient's scale."""

    def make(self, model: nn.Module, lr: float, betas: tuple[float, float], decay: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups(model.parameters(), decay), lr, betas, fused=True)


@registry.register("adam")
@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam as it was: a decay goes through the gradient."""

    def make(self, model: nn.Module, lr: float, betas: tuple[float, float], decay: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups(model.parameters(), decay), lr, betas, fused=True)


@registry.register("muon")
@dataclass(frozen=True)
class Muon(Optimiser):
    """Momentum made orthogonal for the matrices of linear layers, AdamW for the rest: for transformers above all."""

    momentum: Share = 0.95
    steps: Count = 5
    rms: Positive = 1.0

    def make(self, model: nn.Module, lr: float, betas: tuple[float, float], decay: float) -> torch.optim.Optimizer:
        linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear | Layer)]
        matrices = [w for w in linear if w.dim() == 2 and min(w.shape) > 1]
        if not matrices:
            raise PellucidError(
                "muon is for the matrices of linear layers, and this model has no matrices; take adamw."
            )
        theirs = {id(p) for p in matrices}
        rest = torch.optim.AdamW(
            groups((p for p in model.parameters() if id(p) not in theirs), decay), lr, betas, fused=True
        )
        scale = self.rms / 0.2  # torch's own
        shrink = decay / scale  # which multiplies it again
        settings: dict[str, Any] = {"lr": lr, "weight_decay": shrink, "momentum": self.momentum, "ns_steps": self.steps}
        return Both((torch.optim.Muon(matrices, **settings, adjust_lr_fn="match_rms_adamw"), scale), (rest, 1.0))


class Both(torch.optim.Optimizer):
    """Optimisers of different parameters as one, each with a factor of the rate: groups and states are its own."""

    def __init__(self, *parts: tuple[torch.optim.Optimizer, float]) -> None:
        self.parts = parts
        super().__init__([group for part, _ in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        done = 0
        for part, _ in self.parts:
            part.param_groups = self.param_groups[done : done + len(part.param_groups)]
            part.state = self.state
            done += len(part.param_groups)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all parameters."""
        for part, scale in self.parts:
            rates = [group["lr"] for group in part.param_groups]
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = scale * rate
            part.step()
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the state that `state_dict` gave."""
        super().load_state_dict(dict(state_dict))
        self._share()
