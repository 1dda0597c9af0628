r"""The path as curves, and what of the data is left at its end.

Sampling starts in N(0, sigma_1^2), but the forward process ends in q(x_1 | x0) = N(alpha_1 x0, sigma_1^2). The leak is

    E KL(q(x_1 | x0) || N(0, sigma_1^2 I)) = alpha_1^2 E|x0|^2 / (2 sigma_1^2)    nats.

It is the information that x_1 holds of x0 plus KL(q(x_1) || N(0, sigma_1^2 I)), so it bounds both; by Pinsker's
inequality no event has a probability that the wrong start changes by more than sqrt(leak/2).
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..paths import Path
from .chapter import Chapter, Picture
from .mathematics import display, number
from .style import BLUE, FAINT, INK, ORANGE, WIDTH, draw, label
from .subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 401
LOW, HIGH = -6.0, 8.0  # of lam, as shown


class Leak(NamedTuple):
    """In nats; `event` bounds the change of any probability."""

    per_dimension: float
    total: float
    event: float


def leak(path: Path, second_moment: float, dims: int) -> Leak:
    """What x_1 knows of data with E|x0|^2 = `second_moment` in each of `dims` dimensions."""
    one = torch.ones((), dtype=torch.float64)
    nats = float(path.alpha(one) ** 2 * second_moment / (2 * path.sigma(one) ** 2))
    return Leak(nats, nats * dims, min(1.0, math.sqrt(nats * dims / 2)))


def tell(subject: Subject) -> Chapter:
    """alpha, sigma and lam over t, and the leak."""
    path, found = subject.path, leak(subject.path, subject.second_moment, subject.dims)
    words = (
        "<p>How much of the data is left when sampling starts? The leak, averaged over the data, is</p>"
        + display('mean "KL" ( q ( x_1 | x_0 ) || N ( 0 , sigma_1^2 ) ) = {alpha_1^2 mean | x_0 |^2}/{2 sigma_1^2}')
        + f"<p>{verdict(found)}</p>"
    )
    at = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    values = {"t": at, "alpha": path.alpha(at), "sigma": path.sigma(at), "lam": path.lam(at)}
    numbers = {"leak": found._asdict(), "curves": {name: value.tolist() for name, value in values.items()}}
    return Chapter("curves", "How much noise, when", (_picture(subject), words), numbers)


def verdict(found: Leak) -> str:
    """The leak in one sentence."""
    if found.total == 0:
        return "Here it is exactly zero: x at t = 1 is pure noise, which is where sampling starts."
    whole, each = number(found.total, 3), number(found.per_dimension, 2)
    nats = f"Here it is {whole} nats for a whole sample, {each} per dimension: "
    if found.event < 0.05:
        share = number(100 * found.event, 2)
        return (
            nats
            + f"starting in pure noise changes the probability of any event by at most {share} %, too little to matter."
        )
    return nats + (
        "x at t = 1 still knows something of the data, its mean brightness above all, that pure noise does not; "
        "samples may be biased. A path with more noise at its end, such as <code>shifted</code> or "
        "<code>cosine</code>, mends it."
    )


def _picture(subject: Subject) -> Picture:
    path, grid = subject.path, subject.scheme.times[:-1]
    t = torch.sin(torch.linspace(0, math.pi / 2, POINTS, dtype=torch.float64)) ** 2  # dense at both ends
    alpha, sigma, lam = path.alpha(t), path.sigma(t), path.lam(t)

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        left.plot(t, alpha, color=BLUE)
        left.plot(t, sigma, color=ORANGE)
        label(left, 1, float(alpha[-1]), r"$\alpha$", BLUE)
        label(left, 1, float(sigma[-1]), r"$\sigma$", ORANGE)
        left.set(title="scale of the data and of the noise", xlabel="$t$", xlim=(0, 1))
        if sigma[-1] > 10:
            left.set_yscale("log")
            left.set_ylim(bottom=1e-3)
        low, high, asked = max(LOW, float(lam[-1]) - 0.5), HIGH, path.lam(grid)
        seen = asked > low
        right.plot(t[1:], lam[1:].clamp(LOW - 5, HIGH + 5), color=INK)
        for some, marker in ((seen, "o"), (~seen, "v")):
            if bool(some.any()):
                right.plot(grid[some], asked[some].clamp(min=low), marker, color=BLUE, ms=3.5, clip_on=False)
        right.axhline(0, color=FAINT, lw=0.6, zorder=0)
        right.text(0.02, -0.3, "as much noise\nas data", va="top", color=FAINT, size=9)
        right.set(title=r"$\lambda = \log(\alpha/\sigma)$, and the sampler’s times", xlabel="$t$", xlim=(0, 1))
        right.set_ylim(low, high)

    return draw(
        "curves",
        (WIDTH, 2.7),
        paint,
        alt="alpha falls and sigma rises with t; beside them, lambda falls, with the sampler's times marked on it.",
        caption=f"Dots: the {len(grid)} times at which a step begins; a triangle lies below the frame.",
    )
