"""Points in the plane whose density is known exactly: what a model has learnt can be compared with what is true.

Most toys are a curve seen through Gaussian noise,

    x = c(u) + noise z,    u uniform on [0, 1],    z standard normal,
    p(x) = integral over u of N(x; c(u), noise^2 I) du,

with c made of `pieces` equal smooth parts. The integral is taken by Gauss-Legendre quadrature, 12 nodes on panels no
longer than three noises: log p is exact to 1e-6 within ten noises of the curve, and to rounding on it. So p is a
mixture of many narrow Gaussians, which `skeleton` returns. Every toy is centred and has a variance of about one.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import PellucidError
from ..registry import Registry


class Toy(Protocol):
    """A distribution in the plane."""

    def sample(self, n: int, seed: int) -> Tensor:
        """n exact samples, [n, 2] float32. The first n of more samples of one seed are the same."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log density, in nats, at x [n, 2]: float64 [n]."""
        ...


registry: Registry[Toy] = Registry("toy")


@dataclass(frozen=True)
class Curve(ABC):
    """A curve seen through Gaussian noise of standard deviation `noise`."""

    noise: float = 0.1
    pieces: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 1e-3 <= self.noise < math.inf:
            raise PellucidError(f"noise is {self.noise}; expected 0.001 or more, for a bare curve has no density.")

    @abstractmethod
    def at(self, u: Tensor) -> Tensor:
        """c(u): [n] in [0, 1) to [n, 2], float64; smooth within each of the equal pieces of [0, 1]."""

    def sample(self, n: int, seed: int) -> Tensor:
        """n exact samples, [n, 2] float32. The first n of more samples of one seed are the same."""
        u, z = (np.random.default_rng((seed, stream)) for stream in (0, 1))
        x = self.at(torch.from_numpy(u.random(n))) + self.noise * torch.from_numpy(z.standard_normal((n, 2)))
        return x.float()

    def skeleton(self) -> tuple[Tensor, Tensor]:
        """Centres [k, 2] and weights [k] of the narrow Gaussians, all of width `noise`, that p is the sum of."""
        u = (torch.arange(64 * self.pieces, dtype=torch.float64) + 0.5) / (64 * self.pieces)
        length = self.at(u).reshape(self.pieces, 64, 2).diff(dim=1).norm(dim=-1).sum(1)
        panels = (length / (3 * self.noise)).ceil().clamp(min=1).long()  # of each piece
        piece = torch.arange(self.pieces).repeat_interleave(panels)
        rank = torch.arange(len(piece)) - (panels.cumsum(0) - panels)[piece]  # of a panel within its piece
        nodes, weights = (torch.from_numpy(a) / 2 for a in np.polynomial.legendre.leggauss(12))
        share = 1.0 / panels[piece].double().unsqueeze(1)  # [panels, 1]
        u = (piece.unsqueeze(1) + (rank.unsqueeze(1) + 0.5 + nodes) * share) / self.pieces  # [panels, 12]
        return self.at(u.flatten()), (weights * share / self.pieces).flatten()

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log density, in nats, at x [n, 2]: float64 [n]."""
        centres, weights = self.skeleton()
        normaliser = math.log(2 * math.pi * self.noise**2)
        centres = centres / self.noise
        offset = weights.log() - centres.square().sum(1) / 2

        def part(x: Tensor) -> Tensor:
            return torch.logsumexp(x @ centres.T + offset, dim=1) - x.square().sum(1) / 2 - normaliser

        return torch.cat([part(some) for some in (x.double() / self.noise).split(4096)])


@registry.register("mixture", "8gaussians", "gaussians")
@dataclass(frozen=True)
class Mixture(Curve):
    """Eight Gaussians on a circle: the curve stands still in each of its pieces."""

    radius: float = 2**0.5
    pieces: ClassVar[int] = 8

    def at(self, u: Tensor) -> Tensor:
        angle = 2 * math.pi * (u * self.pieces).floor() / self.pieces
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)


@registry.register("moons", "two-moons")
@dataclass(frozen=True)
class Moons(Curve):
    """Two half circles, each reaching into the other."""

    pieces: ClassVar[int] = 2

    def at(self, u: Tensor) -> Tensor:
        angle = 2 * math.pi * u  # the upper moon is 0 .. pi; the lower, pi .. 2 pi, hangs one right and half below
        lower = (u >= 0.5).double()
        x, y = angle.cos() + lower - 0.5, angle.sin() + lower / 2 - 0.25
        return 2**0.5 * torch.stack([x, y], dim=1)


@registry.register("swissroll", "swiss-roll", "spiral")
@dataclass(frozen=True)
class SwissRoll(Curve):
    """The spiral t (cos t, sin t), one turn and a half of it."""

    def at(self, u: Tensor) -> Tensor:
        t = 1.5 * math.pi * (1 + 2 * u)
        centre = torch.tensor(complex(2, 2 / (3 * math.pi)), dtype=torch.complex128)  # E t cos t, E t sin t
        return torch.view_as_real((torch.polar(t, t) - centre) / 6.8)


@registry.register("tree", "fractal")
@dataclass(frozen=True)
class Tree(Curve):
    """A branching tree: each branch ends in two, shorter by `shrink` and turned by `angle`; generations weigh alike."""

    noise: float = 0.05
    generations: ClassVar[int] = 6
    pieces: ClassVar[int] = generations * 2 ** (generations - 1)  # the finest division that fits every generation
    shrink: float = 0.75
    angle: float = 0.6

    def at(self, u: Tensor) -> Tensor:
        generation = (u * self.generations).long()
        place = (u * self.generations - generation) * 2**generation  # branch number + fraction of its length
        branch, fraction = place.long(), place - place.floor()
        foot, limb = self._branches()
        index = 2**generation - 1 + branch
        return torch.view_as_real(foot[index] + fraction * limb[index])

    def _branches(self) -> tuple[Tensor, Tensor]:
        """Foot and limb of every branch as complex numbers, generation after generation."""
        turn = self.shrink * torch.exp(1j * self.angle * torch.tensor([1.0, -1.0], dtype=torch.float64))
        foot, limb = [torch.tensor([-2.3j], dtype=torch.complex128)], [torch.tensor([1.3j], dtype=torch.complex128)]
        for _ in range(self.generations - 1):
            foot.append((foot[-1] + limb[-1]).repeat_interleave(2))
            limb.append((limb[-1].unsqueeze(1) * turn).flatten())
        return torch.cat(foot), torch.cat(limb)


@registry.register("checkerboard", "checker")
@dataclass(frozen=True)
class Checkerboard:
    """Uniform on the dark squares of a board of `cells` x `cells`; no noise, so the density has edges."""

    cells: int = 4
    half_width: float = 3**0.5  # of the board: a uniform law on it has variance one

    def __post_init__(self) -> None:
        if self.cells < 1 or not 0 < self.half_width < math.inf:
            raise PellucidError(f"{self} has no area; expected cells >= 1 and a positive half_width.")

    def sample(self, n: int, seed: int) -> Tensor:
        """n exact samples, [n, 2] float32. The first n of more samples of one seed are the same."""
        u = torch.from_numpy(np.random.default_rng((seed, 0)).random((n, 3)))
        dark = torch.tensor([(i, j) for i in range(self.cells) for j in range(self.cells) if (i + j) % 2 == 0])
        corner = dark[(u[:, 0] * len(dark)).long()]
        return ((corner + u[:, 1:]) * (2 * self.half_width / self.cells) - self.half_width).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log density, in nats, at x [n, 2]: float64 [n], -inf off the dark squares."""
        cell = ((x.double() + self.half_width) * (self.cells / (2 * self.half_width))).floor()
        on = ((cell >= 0) & (cell < self.cells)).all(1) & (cell.sum(1) % 2 == 0)
        dark = (self.cells**2 + 1) // 2
        log_area = math.log(dark * (2 * self.half_width / self.cells) ** 2)
        return torch.where(on, -log_area, -math.inf).double()
