"""Where grids put their calls, on an axis of lam, under the density that the local errors ask for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .. import grids
from ..fitting import Exact, Fit, called, density
from .chapter import Picture
from .style import BLUE, FAINT, INK, ORANGE, WIDTH
from .style import draw as drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STOCK = "karras", "lam", "uniform"


def draw(exact: Exact, fits: Sequence[Fit]) -> Picture:
    """The times of each fit, of the stock grid that comes nearest to it, and of the usual ones."""
    lam, share = density(exact.way)
    low, high = float(lam[0]) - 1, float(lam[-1]) + 0.5
    rows = [(f"{called(fit.made)}, {fit.nfe} calls", grids.Fitted(fit.at)(exact.path, fit.steps), BLUE) for fit in fits]
    steps = max(fits, key=lambda fit: fit.nfe).steps
    usual = dict.fromkeys([*(fit.best for fit in fits), *STOCK])
    rows += [(name, grids.registry.make(name)(exact.path, steps, exact.extent), ORANGE) for name in usual]

    def paint(figure: "Figure") -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 0.28 * len(rows)))
        top.fill_between(lam, share, color=FAINT, alpha=0.25, lw=0)
        top.plot(lam, share, color=INK, lw=1)
        top.set(title="how densely the local errors ask for calls", yticks=[], xlim=(low, high), ylim=(0, None))
        for i, (_, times, colour) in enumerate(rows):
            at = exact.path.lam(times[:-1])
            bottom.axhline(i, color=FAINT, lw=0.4, zorder=0)
            for seen, marker in ((at > low, "o"), (at <= low, "<")):
                here = at[seen].clamp(low, high)
                bottom.plot(here, torch.full_like(here, i), marker, color=colour, ms=4, clip_on=False)
        bottom.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        bottom.set(
            xlabel=r"$\lambda = \log(\alpha/\sigma)$: noise on the left, data on the right",
            ylim=(-0.6, len(rows) - 0.4),
        )
        bottom.invert_yaxis()
        bottom.tick_params(length=0)

    return drawn(
        "points",
        (WIDTH, 2 + 0.28 * len(rows)),
        paint,
        alt="A curve over lambda, and below it rows of dots: the times of the fitted grids and of stock grids.",
        caption="Dots: the times of the calls; a triangle lies beyond the frame, as t = 1 may.",
    )
