r"""The forward process, two ways: one step at a time, and in one shot.

    step by step    x_k = a_k x_(k-1) + b_k z_k            (path.transition; Ho et al. 2020, eq. 2)
    in one shot     x_t = alpha(t) x0 + sigma(t) eps       (eq. 4)

Sums of Gaussians are Gaussian, so both have one law if the coefficients agree:  prod a_k = alpha  and
b_k^2 + a_k^2 (b_(k-1)^2 + ...) = sigma^2. The residuals  (x - alpha x0)/sigma  of both are compared as well: by the
Kolmogorov-Smirnov distance D of their distribution functions, with p = 2 sum_j (-1)^(j-1) exp(-2 j^2 D^2 n/2).
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..paths import Path
from ..types import Batch, Times
from .chapter import Chapter
from .mathematics import display, number
from .plates import strip
from .style import WIDTH, draw, sheet
from .subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 200
SHOWN = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
DRAWS = 2_000_000  # normal numbers that the comparison may cost


class Both(NamedTuple):
    """x_t [n, *shape], reached in two ways."""

    t: float
    steps: Batch
    shot: Batch


class Agreement(NamedTuple):
    """At time t: the largest error of the composed coefficients, and D and p of the residuals."""

    t: float
    coefficients: float
    distance: float
    p: float


def compose(path: Path, times: Times) -> tuple[Tensor, Tensor]:
    """(scale, std) [n] of x at each time given x at the first, by composing the transitions between neighbours."""
    scale, variance = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    scales, variances = [scale], [variance]
    for a, b in steps(path, times):
        scale, variance = a * scale, a**2 * variance + b**2
        scales.append(scale)
        variances.append(variance)
    return torch.stack(scales), torch.stack(variances).sqrt()


def steps(path: Path, times: Times) -> Iterator[tuple[Tensor, Tensor]]:
    """(a, b) of the transition from each time to the next."""
    return zip(*path.transition(times[:-1], times[1:]), strict=True)


def both(subject: Subject, chosen: Sequence[float] = SHOWN, n: int | None = None) -> list[Both]:
    """n samples of the data at the chosen times: step by step, and in one shot with other noise."""
    n = n or max(2, min(1000, DRAWS // (STEPS * subject.dims)))
    x0 = subject.draw_batch(n)[0].double()
    times = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    wanted, x = {round(t * STEPS): t for t in chosen}, x0
    out = [Both(0.0, x0, x0)]
    for k, (a, b) in enumerate(steps(subject.path, times), 1):
        x = a * x + b * subject.noise(len(x), k)
        if k in wanted:
            shot = subject.path.mix(x0, subject.noise(len(x), STEPS + k).double(), times[k].expand(len(x)))
            out.append(Both(wanted[k], x, shot))
    return out


def agreement(subject: Subject, pairs: Sequence[Both]) -> list[Agreement]:
    """How well the two ways agree, at each time after the first."""
    times = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    alpha, sigma = subject.path.alpha(times), subject.path.sigma(times)
    scale, std = compose(subject.path, times)
    errors = torch.maximum((scale - alpha).abs(), (std - sigma).abs() / sigma.clamp(min=1))
    rows = []
    for t, x, shot in pairs[1:]:
        k = round(t * STEPS)
        residuals = [(y - alpha[k] * pairs[0].steps) / sigma[k] for y in (x, shot)]
        rows.append(Agreement(t, float(errors[k]), *two_sample(*residuals)))
    return rows


def two_sample(x: Tensor, y: Tensor) -> tuple[float, float]:
    """(D, p) of the Kolmogorov-Smirnov test of two equally large samples of independent numbers."""
    x, y = x.flatten().sort().values, y.flatten().sort().values
    everywhere = torch.cat([x, y])
    below = [torch.searchsorted(z, everywhere, right=True) / len(z) for z in (x, y)]
    distance = float((below[0] - below[1]).abs().max())
    root = distance * math.sqrt(len(x) / 2)
    terms = [(-1) ** (j - 1) * math.exp(-2 * (j * root) ** 2) for j in range(1, 101)]
    return distance, min(1.0, max(0.0, 2 * sum(terms))) if root > 0.2 else 1.0


def tell(subject: Subject) -> Chapter:
    """The strip and the proof that both ways are one."""
    pairs = both(subject)
    rows = agreement(subject, pairs)
    count = 2 if subject.data.pictures else 1
    pictures = [(b.steps.float(), b.t) for b in pairs], [(b.shot.float(), b.t) for b in pairs]
    above, below = (strip(subject, columns, count) for columns in pictures)
    picture = np.concatenate([above, np.full_like(above[: above.shape[1] // 60], 255), below])

    def paint(figure: "Figure") -> None:
        names = [f"step by step\n({STEPS} steps)", "in one shot"]
        sheet(figure.subplots(), picture, [f"$t$ = {t:g}" for t in SHOWN], names)

    shape = picture.shape[0] / picture.shape[1]
    shown = draw(
        "forward",
        (WIDTH, 0.35 + (WIDTH - 1) * shape),
        paint,
        alt="The same data at rising times, in two rows that look alike: step by step, and in one shot.",
        caption="Data dissolving into noise: above, one small step after another; below, at once, with other noise.",
    )
    worst, least = max(r.coefficients for r in rows), min(r.p for r in rows)
    verdict = "no difference can be seen" if least > 0.01 / len(rows) else "they differ"
    words = (
        "<p>Noise is added a little at a time,</p>"
        + display("x_t = {alpha_t}/{alpha_s} x_s + sqrt{sigma_t^2 - ( {alpha_t}/{alpha_s} )^2 sigma_s^2} z , s < t")
        + "<p>and because sums of Gaussians are Gaussian, all steps up to t are one:</p>"
        + display("x_t = alpha_t x_0 + sigma_t eps")
    )
    proof = (
        f"<p>Composing {STEPS} steps gives the coefficients of the one shot to {number(worst, 2)}. Of "
        f"{pairs[0].steps.numel():,} numbers drawn each way, the distribution functions differ by at most "
        f"{number(max(r.distance for r in rows), 2)} (Kolmogorov–Smirnov; smallest p of {len(rows)} times: "
        f"{number(least, 2)}): {verdict}.</p>"
    )
    numbers = {"steps": STEPS, "numbers": pairs[0].steps.numel(), "agreement": [row._asdict() for row in rows]}
    return Chapter("forward", "From data to noise", (words, shown, proof), numbers)
