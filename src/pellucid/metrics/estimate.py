"""A number and how well it is known, from the samples that gave it.

    bootstrap   T(x*), x* drawn from the samples x with replacement (Efron 1979), along the influences I of T:
                T(x*) ~ T(x) + mean_i I(x*_i),    I(x_i) = d/de T((1 - e) F + e delta_i)  at e = 0, F the samples' law
    halves      T(x*), x* one half of x, drawn without replacement: n/2 of n have for the mean of x the bootstrap's
                variance s^2/n exactly (Bickel, Goetze & van Zwet 1997, sec. 4). No sample is there twice, which would
                deceive whatever looks for neighbours
    share       Wilson's interval (1927) for hits among n; the wider of this and halves, where what is hit is drawn too,
                as halves alone are sure of a share that is 0 or 1 in all of them

The first costs one evaluation of T, however large the samples. Where both laws are equal a squared distance has no
slope, and both resamplings then err on the wide side: what they say is the spread of its square.
"""

from collections.abc import Callable
from math import inf, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

LEVEL = 0.95
Z = 1.959963984540054  # the normal deviate of that level
REALS, POSITIVE, SHARES = (-inf, inf), (0.0, inf), (0.0, 1.0)
"""What a figure can be."""


class Estimate(NamedTuple):
    """An estimate and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.error:.2g}"


class Figure(NamedTuple):
    """An estimate, its standard error, and the interval that holds the truth in 95 cases of 100."""

    value: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"

    def spanning(self, other: "Figure") -> "Figure":
        """The same value with the wider of two intervals on either side, and the larger error."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Figure(self.value, max(self.error, other.error), low, high)

    @staticmethod
    def of(value: float, error: float, within: tuple[float, float] = REALS) -> "Figure":
        """With the interval of a normal error, as far as it lies within what is possible."""
        return Figure(value, error, max(within[0], value - Z * error), min(within[1], value + Z * error))


def bootstrap(
    value: float, *influences: Tensor, within: tuple[float, float] = REALS, rounds: int = 1000, seed: int = 0
) -> Figure:
    """A statistic of one or more sets, each redrawn by itself, by the influences [n] of the samples of each."""
    rng = torch.Generator().manual_seed(seed)
    moved = torch.zeros(rounds, dtype=torch.float64)
    for influence in influences:
        centred = (influence - influence.mean()).double().cpu()
        n = len(centred)
        for part in moved.split(max(1, 2**22 // n)):
            part += centred[torch.randint(n, (len(part), n), generator=rng)].mean(1)
    low, high = moved.quantile(torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    return Figure(value, moved.std().item(), max(within[0], value + low), min(within[1], value + high))


def halved(
    value: float,
    statistic: Callable[..., float],
    *sizes: int,
    within: tuple[float, float] = REALS,
    rounds: int = 100,
    seed: int = 0,
) -> Figure:
    """The statistic's spread over halves: `statistic` gets the places [n/2] of a half of each set of these sizes."""
    rng = torch.Generator().manual_seed(seed)
    found = [statistic(*(torch.randperm(n, generator=rng)[: n // 2] for n in sizes)) for _ in range(rounds)]
    return Figure.of(value, torch.tensor(found, dtype=torch.float64).std().item(), within)


def share(hits: Tensor) -> Figure:
    """The share of true among hits [n], n > 0."""
    n, p = len(hits), hits.double().mean().item()
    middle, half = p + Z**2 / (2 * n), Z * sqrt(p * (1 - p) / n + (Z / (2 * n)) ** 2)
    low, high = ((middle + side * half) / (1 + Z**2 / n) for side in (-1, 1))
    return Figure(p, sqrt(p * (1 - p) / n), low if p > 0 else 0.0, high if p < 1 else 1.0)
