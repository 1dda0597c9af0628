"""The exponential moving average of a model's weights: the ones that are sampled (Song et al. 2021, app. H.1).

    ema <- ema + (1 - d_n) (theta - ema),    d_n = min(decay, (1 + n)/(10 + n)),    n = 0, 1, 2 ... updates so far

The warm-up lets the average forget where it started: d_0 = 0.1, and a decay of 0.999 is reached after 9000 updates.
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .errors import PellucidError


class EMA:
    """A copy of every tensor of `module`: parameters averaged, buffers as they are."""

    def __init__(self, module: nn.Module, decay: float = 0.9999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise PellucidError(f"ema is {decay}; expected a decay from 0 (none) to below 1, such as 0.999.")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move a step towards the weights of `module`."""
        n = self.updates
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        learnt = dict(module.named_parameters(remove_duplicate=False))
        torch._foreach_lerp_([self.tensors[name] for name in learnt], list(learnt.values()), 1 - decay)
        for name, value in module.state_dict().items():
            if name not in learnt:
                self.tensors[name].copy_(value)
        self.updates += 1

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Inside, `module` has the averaged weights; after, its own again."""
        own = {name: value.detach().clone() for name, value in module.state_dict().items()}
        try:
            module.load_state_dict(self.tensors)
            yield
        finally:
            module.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors, by their names in the module: a state dict of the module itself."""
        return dict(self.tensors)

    def load_state_dict(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take averaged tensors, and the number of updates that made them."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])
        self.updates = updates
