"""Inception-v3 as the FID sees with it (Szegedy et al. 2016, table 1; Heusel et al. 2017): 2048 features.

The network of 2015-12-05 differs from the one that was published later in its pools: means leave the padding out of
account, and the last block takes a maximum. Pictures are stretched to 299 x 299 by bilinear interpolation with pixel
centres at halves and without smoothing, as pytorch-fid does it, and seen from -1 to 1. A distance of these features is
called FID only if the file of the weights is the one from which the FIDs in papers come; its SHA-256 is below.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu

from ...errors import PellucidError
from . import unpickled
from .base import Features

CANONICAL = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of pt_inception-2015-12-05-6726825d.pth."""
SIDE = 299
RESIZE = "bilinear to 299 x 299, half-pixel centres, no antialias"


class Conv(nn.Module):
    """relu(norm(W x)), with W k x k or k x l."""

    def __init__(self, a: int, b: int, kernel: int | tuple[int, int], stride: int = 1, pad: int | tuple[int, int] = 0):
        super().__init__()
        self.conv = nn.Conv2d(a, b, kernel, stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(b, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


def row(a: int, b: int, length: int) -> Conv:
    """1 x length."""
    return Conv(a, b, (1, length), 1, (0, length // 2))


def column(a: int, b: int, length: int) -> Conv:
    """length x 1."""
    return Conv(a, b, (length, 1), 1, (length // 2, 0))


def mean(x: Tensor) -> Tensor:
    """The mean of 3 x 3, of those that are in the picture."""
    return avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def most(x: Tensor) -> Tensor:
    """The largest of 3 x 3."""
    return max_pool2d(x, 3, 1, 1)


class A(nn.Module):
    """35 x 35."""

    def __init__(self, a: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(a, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(a, 48, 1), Conv(48, 64, 5, pad=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(a, 64, 1), Conv(64, 96, 3, pad=1)
        self.branch3x3dbl_3, self.branch_pool = Conv(96, 96, 3, pad=1), Conv(a, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(mean(x))], 1)


class B(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, a: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(a, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(a, 64, 1), Conv(64, 96, 3, pad=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, max_pool2d(x, 3, 2)], 1)


class C(nn.Module):
    """17 x 17, in rows and columns of seven."""

    def __init__(self, a: int, c: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(a, 192, 1)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = Conv(a, c, 1), row(c, c, 7), column(c, 192, 7)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(a, c, 1), column(c, c, 7)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = row(c, c, 7), column(c, c, 7)
        self.branch7x7dbl_5, self.branch_pool = row(c, 192, 7), Conv(a, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(mean(x))], 1)


class D(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, a: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(a, 192, 1), Conv(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(a, 192, 1), row(192, 192, 7)
        self.branch7x7x3_3, self.branch7x7x3_4 = column(192, 192, 7), Conv(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, max_pool2d(x, 3, 2)], 1)


class E(nn.Module):
    """8 x 8; `most` in the last block's place of `mean`."""

    def __init__(self, a: int) -> None:
        super().__init__()
        self.branch1x1, self.branch_pool = Conv(a, 320, 1), Conv(a, 192, 1)
        self.branch3x3_1, self.branch3x3_2a, self.branch3x3_2b = (
            Conv(a, 384, 1),
            row(384, 384, 3),
            column(384, 384, 3),
        )
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(a, 448, 1), Conv(448, 384, 3, pad=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = row(384, 384, 3), column(384, 384, 3)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(parts, 1)


class Net(nn.Module):
    """Pictures [b, 3, 299, 299] from -1 to 1 to [b, 2048]; layers under the names of the weights' file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, 2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = (
            Conv(32, 64, 3, pad=1),
            Conv(64, 80, 1),
            Conv(80, 192, 3),
        )
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a = A(192, 32), A(256, 64), A(288, 64), B(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = C(768, 128), C(768, 160), C(768, 160), C(768, 192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = D(768), E(1280), E(2048)

    def forward(self, x: Tensor) -> Tensor:
        x = max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x)))))
        x = self.Mixed_7b(x, mean(x))
        return self.Mixed_7c(x, most(x)).mean((2, 3))


class Inception(Features):
    """The eyes of the FID."""

    resize = RESIZE
    net: Net

    def __init__(self, net: Net, digest: str) -> None:
        self.net, self.digest = net.eval().requires_grad_(False), digest
        self.name = "pt_inception-2015-12-05" if digest == CANONICAL else "inception-v3"

    @property
    def distance(self) -> str:
        """FID, if the weights are those of all FIDs."""
        return "FID" if self.digest == CANONICAL else super().distance

    def see(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise PellucidError(f"Inception sees pictures, not samples of shape {tuple(x.shape[1:])}; take others.")
        x = x.float().expand(-1, 3, -1, -1)
        return self.net(interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False))


def load(path: Path) -> Inception:
    """Inception from its .pth or from a .safetensors with tensors of the same names."""
    data = path.read_bytes()
    try:
        tensors = decode(data) if path.suffix == ".safetensors" else unpickled.tensors(path)
        net = Net()
        held = net.state_dict()
        named = {key: tensors[key] for key in held if not key.endswith("num_batches_tracked")}
        net.load_state_dict({**held, **named})
    except (KeyError, RuntimeError, SafetensorError) as error:
        why = str(error).splitlines()[0].rstrip(".:")
        raise PellucidError(
            f"{path} holds no Inception-v3 ({why}); give pt_inception-2015-12-05-6726825d.pth."
        ) from None
    return Inception(net, hashlib.sha256(data).hexdigest())
