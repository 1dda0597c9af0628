r"""silu(a norm(x) + b) and its gradient, each a single pass over an image, with nothing kept between but x.

    z = a xhat + b,   xhat = (x - mean_g) r_g,   r_g = 1 / sqrt(var_g + eps),   y = z s,   s = 1 / (1 + e^-z)
    dz = dy s (1 + z (1 - s)),   db = sum dz,   da = sum dz xhat        (sums over the pixels of a channel)
    dx = r_g (a dz - mean_g(a dz) - xhat mean_g(a dz xhat))             (means over the pixels and channels of a group)

Group normalisation is Wu & He 2018, eq. 7.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from .compiled import LAST, call, operator, plain, scratch

BLOCK, SIZE = 16, 2**11
"""Channels come in blocks; of fewer numbers there is nothing to gain."""


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether this is a large enough map of float32 on a CPU; the batch does not count."""
    return x.dim() == 4 and x.shape[1] % BLOCK == 0 and x[:1].numel() >= SIZE and plain(x, weight)


def silu(x: Tensor, groups: int, a: Tensor, b: Tensor, eps: float) -> Tensor:
    """silu(a norm(x) + b) of x [n, c, h, w] that suits, with a and b [c] or [n, c]."""
    a, b = (v.expand(x.shape[:2]).contiguous() for v in (a, b))
    y: Tensor = NormSilu.apply(x.contiguous(memory_format=LAST), a, b, groups, eps)
    return y


def definition(x: Tensor, groups: int, a: Tensor, b: Tensor, eps: float) -> Tensor:
    """The same in torch's words."""
    return F.silu(torch.addcmul(b[..., None, None], F.group_norm(x, groups, eps=eps), a[..., None, None]))


class NormSilu(Function):
    """The function; what is to be differentiated again goes back by its definition."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, groups: int, eps: float) -> Tensor:
        y, mean, scale = torch.ops.pellucid.norm(x, a, b, groups, eps)
        ctx.save_for_backward(x, a, b, mean, scale)
        ctx.rest = groups, eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, mean, scale = ctx.saved_tensors
        groups, eps = ctx.rest
        if not torch.is_grad_enabled():
            return *torch.ops.pellucid.norm_gradient(x, g, a, b, mean, scale), None, None
        asked = [v for v, needed in zip((x, a, b), ctx.needs_input_grad[:3], strict=True) if needed]
        found = iter(torch.autograd.grad(definition(x, groups, a, b, eps), asked, g, create_graph=True))
        return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None


def forth(x: Tensor, a: Tensor, b: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y, and of each group [n, groups] the mean and r."""
    n, c, h, w = x.shape
    y, mean, scale = results(x, a, b, groups, eps)
    memory = scratch.of(call("norm_memory", h * w, c, groups))
    call("norm", x, a, b, y, mean, scale, memory, float(eps), n, h * w, c, groups)
    return y, mean, scale


def back(x: Tensor, g: Tensor, a: Tensor, b: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dx, da and db."""
    (n, c, h, w), groups = x.shape, mean.shape[1]
    x, g = (v.contiguous(memory_format=LAST) for v in (x, g))  # x too: it may have been kept elsewhere
    dx, da, db = slopes(x, g, a, b, mean, scale)
    memory = scratch.of(call("norm_memory", h * w, c, groups))
    call("norm_gradient", x, g, a, b, mean, scale, dx, da, db, memory, n, h * w, c, groups)
    return dx, da, db


def results(x: Tensor, a: Tensor, b: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Room for what `forth` gives."""
    return torch.empty_like(x), x.new_empty(len(x), groups), x.new_empty(len(x), groups)


def slopes(x: Tensor, g: Tensor, a: Tensor, b: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for what `back` gives."""
    return torch.empty_like(x), torch.empty_like(a), torch.empty_like(b)


operator("norm(Tensor x, Tensor a, Tensor b, int groups, float eps) -> (Tensor, Tensor, Tensor)", forth, results)
operator(
    "norm_gradient(Tensor x, Tensor g, Tensor a, Tensor b, Tensor mean, Tensor scale) -> (Tensor, Tensor, Tensor)",
    back,
    slopes,
)
