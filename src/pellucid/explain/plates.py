"""How samples are shown: pictures as they are, points in the plane as a cloud over the density they come from.

x_t is shown divided by sqrt(alpha^2 + sigma^2), so that noise of any path fits the page.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import pictures
from ..data.dataset import decode
from ..types import Batch
from .subject import Subject

GAP = 2  # white pixels around a picture
SIDE = 320  # pixels of a cloud
FINEST = 0.05  # blur of the data itself
DISC = torch.exp(
    -(((torch.linspace(-2, 2, 5).square() + torch.linspace(-2, 2, 5)[:, None].square()) / 3) ** 2)
).double()
PAPER, DENSE, DOT = (torch.tensor(c).double()[:, None, None] for c in ((255, 255, 255), (126, 178, 216), (24, 44, 76)))


def look(subject: Subject, x: Batch, t: float, count: int) -> Tensor:
    """x at time t as plates, uint8 [k, c, h, w]: the first `count` pictures, or one cloud of all points."""
    x = x / scale(subject, t)
    if subject.data.pictures:
        zoom = -(-pictures.LEGIBLE // max(x.shape[2:]))
        plates = decode(x[:count]).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
        return F.pad(plates, (GAP,) * 4, value=255)
    return cloud(plane(x), ground(subject, t), reach(subject))[None]


def strip(subject: Subject, columns: list[tuple[Batch, float]], count: int) -> np.ndarray:
    """A sheet with a column for each (x, t), and a row for each plate."""
    plates = torch.stack([look(subject, x, t, count) for x, t in columns], 1)
    return pictures.tile(plates.flatten(0, 1), len(columns))


def scale(subject: Subject, t: float) -> float:
    """sqrt(alpha^2 + sigma^2)."""
    time = torch.tensor(t, dtype=torch.float64)
    return float(torch.hypot(subject.path.alpha(time), subject.path.sigma(time)))


def plane(x: Batch) -> Tensor:
    """The first two numbers of each sample, [n, 2]."""
    flat = x.flatten(1).double()
    return F.pad(flat, (0, max(0, 2 - flat.shape[1])))[:, :2]


def reach(subject: Subject) -> float:
    """Half the side of the square that a cloud shows."""
    return max(2.6, 1.15 * float(plane(subject.draw_batch(2000)[0]).abs().quantile(0.995)))


@lru_cache(maxsize=64)
def ground(subject: Subject, t: float) -> Tensor:
    """The density of x_t, [side, side] in 0 .. 1, y up: the data shrunk by alpha and blurred by sigma."""
    time, size = torch.tensor(t, dtype=torch.float64), scale(subject, t)
    points = plane(subject.draw_batch(20_000)[0]) * float(subject.path.alpha(time)) / size
    blur = max(float(subject.path.sigma(time)) / size, FINEST) / reach(subject) * SIDE / 2  # pixels
    i = torch.arange(SIDE, dtype=torch.float64)
    kernel = torch.exp(-(((i[:, None] - i) / blur) ** 2) / 2)
    density = kernel @ counts(points, reach(subject)) @ kernel
    return (density / density.max()) ** 0.6


def counts(points: Tensor, reach: float) -> Tensor:
    """How many points [n, 2] lie in each pixel, [side, side], y up."""
    places = torch.stack([-points[:, 1], points[:, 0]], 1)
    return torch.histogramdd(places, [SIDE, SIDE], range=[-reach, reach, -reach, reach]).hist


def cloud(points: Tensor, ground: Tensor, reach: float) -> Tensor:
    """Points [n, 2] as dots on a density [side, side], uint8 [3, side, side]."""
    dots = F.conv2d(counts(points, reach)[None, None], DISC[None, None], padding=2)[0, 0]
    under = PAPER + (DENSE - PAPER) * ground
    return (under + (DOT - under) * (1 - torch.exp(-0.9 * dots))).round().to(torch.uint8)
