"""What every network is: y = net(x, clock, ctx), with exactly y = 0 before training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import PellucidError
from ..registry import Registry
from ..types import Batch, Context

registry: "Registry[nn.Module]" = Registry("network")
Layer = TypeVar("Layer", bound=nn.Module)


class Network(nn.Module, ABC):
    """Built for samples of `shape` and context vectors of width `context` (0: it hears none), then its options.

    To add one, subclass this and register it. Its last layer starts at `zero`.
    """

    options: dict[str, Any]
    """The keyword options it was built with, recorded by the registry."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    @abstractmethod
    def forward(self, x: Batch, clock: Tensor, ctx: Context) -> Batch:
        """y [b, out, *shape[1:]] from x [b, *shape] and a clock [b] of the same dtype."""


def once(block: nn.Module, *given: Any) -> Tensor:
    """block(*given), with all that its backward step needs kept."""
    h: Tensor = block(*given)
    return h


def again(block: nn.Module, *given: Any) -> Tensor:
    """block(*given), computed a second time when its backward step comes: nothing within it is kept."""
    h: Tensor = checkpoint(block, *given, use_reentrant=False) if torch.is_grad_enabled() else block(*given)
    return h


RUN = {False: once, True: again}
"""How a block is run, by the option `recompute`."""


def zero(layer: Layer) -> Layer:
    """The same layer with all weights zero: a residual branch that starts silent."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def joined(x: Batch, ctx: Context, channels: int = 0) -> Batch:
    """[x, ctx.channels], for a network that was built for so many extra channels."""
    got = 0 if ctx.channels is None else ctx.channels.shape[1]
    if got != channels:
        raise PellucidError(f"ctx.channels has {got} channels; this network was built for {channels}.")
    return x if ctx.channels is None else torch.cat([x, ctx.channels], dim=1)


def at_least(low: int, options: Mapping[str, int]) -> None:
    """Refuse options below `low`."""
    for name, value in options.items():
        if value < low:
            raise PellucidError(f"{name} is {value}; expected {low} or more.")


def drops(dropout: float) -> None:
    """Refuse a dropout that leaves nothing."""
    if not 0 <= dropout < 1:
        raise PellucidError(f"dropout is {dropout}; expected a share from 0 (none) to below 1.")
