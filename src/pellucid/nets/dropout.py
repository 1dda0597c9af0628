r"""Dropout that belongs to the sample: what sample i loses is a function of its own key, not of who is beside it.

    h_ij -> h_ij [u_ij >= share]/(1 - share),      u_ij = mix(mix(j) xor key_i) / 2^32

mix is a one-to-one map of 32-bit numbers that changes half the bits when one changes (two products, with the
constants that Wellons found in 2018). So a batch loses the same in one part or in many, on one device or on eight.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """Drops a share of the numbers in training: those that the samples' keys say, or without keys any."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.keys: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        if not self.training or not self.share:
            return h
        if self.keys is None:
            return F.dropout(h, self.share)
        kept = coins(self.keys.to(h.device), h[0].numel(), self.share).view_as(h)
        return h * kept.to(h.dtype).mul_(1 / (1 - self.share))

    def extra_repr(self) -> str:
        return f"share={self.share}"


@contextmanager
def dropping(net: nn.Module, keys: Callable[[int], Tensor]) -> Iterator[None]:
    """Inside, the n-th dropout of `net` drops by keys(n) [b], 32 random bits for each sample of the batch."""
    layers = [layer for layer in net.modules() if isinstance(layer, Dropout) and layer.share]
    try:
        for n, layer in enumerate(layers):
            layer.keys = keys(n).to(torch.int32)
        yield
    finally:
        for layer in layers:
            layer.keys = None


def coins(keys: Tensor, count: int, share: float) -> Tensor:
    """[b, count] bool, each False with probability `share`; keys [b] int32."""
    place = mix(torch.arange(count, dtype=torch.int32, device=keys.device))
    return mix(place ^ keys[:, None]) >= round(share * 2**32) - 2**31


def mix(bits: Tensor) -> Tensor:
    """int32 numbers, one for one."""
    bits = (bits ^ _right(bits, 16)) * 0x7FEB352D
    bits = (bits ^ _right(bits, 15)) * (0x846CA68B - 2**32)
    return bits ^ _right(bits, 16)


def _right(bits: Tensor, places: int) -> Tensor:
    """Shifted, with zeros for what comes in."""
    return bits >> places & (1 << 32 - places) - 1
