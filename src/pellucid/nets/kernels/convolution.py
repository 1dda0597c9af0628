r"""3 x 3 convolutions with 16 products where the definition has 36 (Lavin & Gray 2016, sec. 4.1).

A tile of 2 x 2 outputs y of a map, from 4 x 4 inputs d, is Winograd's F(2 x 2, 3 x 3), summed over channels:

    y = A^T [(G w G^T) * (B^T d B)] A                                    (their eq. 8)
    dw = G^T [sum over tiles (B^T d B) * (A dy A^T)] G

The gradient for the inputs is the convolution of dy with the transposed weights, turned about.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from .compiled import LAST, call, operator, plain, room, scratch

BLOCK, FEW, MANY, CACHED = 32, 64, 256, 2**14
"""Channels come in blocks; of few pixels there is nothing to gain, nor of not many if the weights fill the cache."""


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """torch's function of the same name, by Winograd's way where that is the faster one."""
    if stride == padding == 1 and suits(x, weight, bias):
        y: Tensor = Convolution.apply(x, weight, bias)
        return y
    return F.conv2d(x, weight, bias, stride, padding)


def suits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether this is a large enough 3 x 3 convolution of float32 on a CPU; the batch does not count."""
    if x.dim() != 4 or weight.shape[2:] != (3, 3):
        return False
    (out, into), pixels = weight.shape[:2], x.shape[2] * x.shape[3]
    fits = x.shape[1] == into and out % BLOCK == into % BLOCK == 0 < min(len(x), into, out)
    if not fits or pixels < (FEW if into * out <= CACHED else MANY):
        return False
    return plain(x, weight) if bias is None else bias.shape == (out,) and plain(x, weight, bias)


class Conv2d(nn.Conv2d):
    """torch's layer, with the function above and what it knows."""

    def __init__(self, into: int, out: int, size: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(into, out, size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, int(self.stride[0]), int(self.padding[0]))


class Convolution(Function):
    """The convolution; what is to be differentiated again goes back torch's way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        y: Tensor = torch.ops.pellucid.convolve(x, weight, bias, False)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad)
        if torch.is_grad_enabled():
            ones, sizes = [1, 1], [len(weight)] if wanted[2] else None
            back = torch.ops.aten.convolution_backward
            return tuple(back(g, x, weight, sizes, ones, ones, ones, False, [0, 0], 1, wanted))
        ops = torch.ops.pellucid
        return (
            ops.convolve(g, weight, None, True) if wanted[0] else None,
            ops.gradient(x, g) if wanted[1] else None,
            g.sum((0, 2, 3)) if wanted[2] else None,
        )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, turned: bool) -> Tensor:
    """y [n, out, h, w] of x [n, in, h, w]; `turned`: with the transposed weights, turned about."""
    (n, into, h, w), out = x.shape, weight.shape[1 if turned else 0]
    x, weight = x.contiguous(memory_format=LAST), weight.contiguous(memory_format=LAST)
    y = room(n, out, h, w)
    bias = x.new_zeros(out) if bias is None else bias.contiguous()
    memory = scratch.of(call("convolve_memory", into, out))
    call("convolve", x, weight, bias, y, memory, n, h, w, into, out, int(turned))
    return y


def gradient(x: Tensor, g: Tensor) -> Tensor:
    """dw [out, in, 3, 3] of x [n, in, h, w] and the gradient g [n, out, h, w] of what was made of it."""
    (n, into, h, w), out = x.shape, g.shape[1]
    x, g = x.contiguous(memory_format=LAST), g.contiguous(memory_format=LAST)
    dw = room(out, into, 3, 3)
    call("gradient", x, g, dw, scratch.of(call("gradient_memory", into, out)), n, h, w, into, out)
    return dw


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, turned: bool) -> Tensor:
    """The shape of `convolve`."""
    return room(x.shape[0], weight.shape[1 if turned else 0], *x.shape[2:])


operator("convolve(Tensor x, Tensor weight, Tensor? bias, bool turned) -> Tensor", convolve, convolved)
operator("gradient(Tensor x, Tensor g) -> Tensor", gradient, lambda x, g: room(g.shape[1], x.shape[1], 3, 3))


@register_flop_formula(torch.ops.pellucid.convolve)
def _(x: Sequence[int], weight: Sequence[int], *rest: Any, **more: Any) -> int:
    """What the definition takes, as it is counted everywhere."""
    return 2 * math.prod(weight) * x[0] * x[2] * x[3]


@register_flop_formula(torch.ops.pellucid.gradient)
def _(x: Sequence[int], g: Sequence[int], *rest: Any, **more: Any) -> int:
    return 2 * 9 * math.prod(x) * g[1]
