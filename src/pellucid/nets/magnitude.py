r"""Layers that preserve magnitude: unit variance in, unit variance out, whatever training does (Karras et al. 2024).

    Layer     y_k = g sum_j w_kj x_j / |w_k|     every output weighs its inputs by a vector of length one   (eq. 47, 66)
    silu      silu(a)/c,    c^2 = E silu(a)^2 for a ~ N(0, 1)                                               (eq. 81)
    mix       ((1 - t) a + t b)/sqrt((1 - t)^2 + t^2)                                                       (eq. 88)
    join      [u a, v b]  of N_a and N_b channels,  u : v = (1 - t)/sqrt(N_a) : t/sqrt(N_b),
              u^2 N_a + v^2 N_b = N_a + N_b                                                                 (eq. 103)
    unit      a/sqrt(mean a^2)                                                                              (eq. 30)

A gradient of w is at right angles to it, so that its length would only grow, and it would learn ever more slowly.
Before each step of training `forced` sets the length back to that of fresh weights, sqrt(N) for N inputs (sec. 2.3).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import CONVOLVE

TINY = 1e-4  # beside a length


def unit(a: Tensor, dim: int = 1) -> Tensor:
    """a/sqrt(mean a^2) along `dim`."""
    length = torch.linalg.vector_norm(a, dim=dim, keepdim=True, dtype=torch.promote_types(a.dtype, torch.float32))
    return a / (length / math.sqrt(a.shape[dim]) + TINY).to(a.dtype)


def silu(a: Tensor) -> Tensor:
    """silu(a) at unit variance."""
    return F.silu(a) / 0.596469


def mix(a: Tensor, b: Tensor, t: float) -> Tensor:
    """A share t of b and the rest of a, at unit variance where they are independent."""
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def join(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """a and b, channel by channel; what comes after hears them as 1 - t : t, however many channels each has."""
    n, m = a.shape[1], b.shape[1]
    scale = math.sqrt((n + m) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale * (1 - t) / math.sqrt(n)), b * (scale * t / math.sqrt(m))], dim=1)


class Layer(nn.Module):
    """A linear map of the last axis, or with a `size` a convolution of `dims` axes with filters so wide; no bias."""

    def __init__(self, start: int, end: int, size: int = 0, dims: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(end, start, *(size,) * dims))

    def forward(self, h: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        weight = (self.weight * (gain / lengths(self.weight))).to(h.dtype)
        dims = weight.dim() - 2
        return CONVOLVE[dims](h, weight, padding=weight.shape[-1] // 2) if dims else F.linear(h, weight)


def lengths(weight: Tensor) -> Tensor:
    """[end, 1, ...] |w_k|."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True).clamp(min=TINY)


@torch.no_grad()
def forced(net: nn.Module) -> None:
    """Give the weights of every layer within `net` the length of fresh ones; what the layers compute stays the same."""
    for layer in net.modules():
        if isinstance(layer, Layer):
            weight = layer.weight.data  # not a change that a backward step under way need know of
            weight.mul_(math.sqrt(weight[0].numel()) / lengths(weight))
