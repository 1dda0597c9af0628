"""Where a bound on log p is lost: what falls on each noise level, and what has been lost so far, from noise to data."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..likelihood import Likelihood
from .chapter import Picture
from .style import BLUE, GREEN, INK, ORANGE, WIDTH, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"discrete": ORANGE, "continuous": BLUE, "flow": GREEN}


def terms(rows: Sequence[Likelihood], kind: str) -> Picture:
    """The terms of the bounds among `rows` against t, and the total of the flow beside theirs, as svg or png."""

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        for row in rows:
            if row.curve is not None:
                _terms(left, row)
                _totals(right, row)
            else:
                right.axhline(row.rate().value, color=COLOURS[row.kind], ls="--", label=row.kind)
        first = min((float(row.curve.times[-1]) for row in rows if row.curve is not None), default=1e-3)
        left.set(title="bits per dimension lost, for each tenfold of $t$")
        right.set(title="lost so far; the dot adds prior and decoder")
        for axes in (left, right):
            axes.set(xlabel="noise  ←  $t$  →  data", xscale="log", xlim=(1.3, first / 1.3), ylim=(0, None))
        right.legend(frameon=False, fontsize=9)

    alt = "The diffusion terms of the bounds against time, and their running total up to the bound."
    return draw("terms", (WIDTH, 3), paint, alt, "Bands: two standard errors over samples.", (kind,))


def _terms(axes: "Axes", row: Likelihood) -> None:
    """What is lost between two times, by the width of their part of the picture."""
    assert row.curve is not None
    width = -row.curve.times.log10().diff() * row.dims * math.log(2)
    value, error = row.curve.nats / width, row.curve.error / width
    middle = (row.curve.times[1:] * row.curve.times[:-1]).sqrt()
    axes.plot(middle, value, color=COLOURS[row.kind], label=row.kind)
    axes.fill_between(middle, value - 2 * error, value + 2 * error, color=COLOURS[row.kind], alpha=0.2, lw=0)


def _totals(axes: "Axes", row: Likelihood) -> None:
    """What has been lost from the noise down to each time, and at the data the whole bound."""
    assert row.curve is not None
    bits = 1 / (row.dims * math.log(2))
    total = torch.cat([torch.zeros(1, dtype=torch.float64), row.curve.nats.cumsum(0)]) * bits
    axes.plot(row.curve.times, total, color=COLOURS[row.kind], label=row.kind)
    rate, last = row.rate(), float(row.curve.times[-1])
    axes.plot([last, last], [float(total[-1]), rate.value], color=COLOURS[row.kind], lw=0.8, ls=":")
    axes.errorbar([last], [rate.value], [2 * rate.error], color=COLOURS[row.kind], ecolor=INK, marker="o", ms=4)
