"""An evaluation as a page: figures beside their floors, samples beside data and beside what they may repeat."""

import html
import io
import json
import math
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from .. import pictures
from ..data import decode
from ..evaluation import Evaluation, Row
from ..evaluation.record import Span
from ..metrics.sets import spaced
from ..metrics.spectral import bands
from .chapter import Block, Chapter, Picture, Table
from .mathematics import number
from .report import document
from .style import BLUE, INK, WIDTH, draw, need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 64  # samples on a sheet
WORDS = {"less": "less is better", "more": "more is better", "near": "as real data score"}


def evaluated(found: Evaluation, name: str) -> str:
    """The HTML of an evaluation."""
    need()
    record, row = found.record, found.record.rows[0]
    sub = (
        f"{row.samples.n.samples:,} samples against {row.samples.n.real:,} held-out samples of "
        f"{html.escape(row.real.name)}, none of which the model or the eyes have seen."
    )
    chapters = [_figures(found), _sheets(found), _copies(found), _spectra(found)]
    about = (
        f"<details><summary>The samples</summary><pre>{html.escape(json.dumps(record.about, indent=1))}</pre></details>"
    )
    return document(f"{name}, evaluated", sub, [c for c in chapters if c], about if record.about else "")


def _figures(found: Evaluation) -> Chapter:
    rows = found.record.rows
    eyes = {row.eyes.name: row.eyes for row in rows}
    seen = "; ".join(
        f"{html.escape(e.name)}{f' (sha256 {e.sha256[:16]})' if e.sha256 else ''}, resized: {html.escape(e.resize)}"
        for e in eyes.values()
    )
    words = (
        "<p>Each figure stands beside the floor: what real data score in the samples’ place. The floor of a distance "
        "takes as many training samples, so that both lie equally far off for want of n. The bars are intervals "
        "at 95 %, by resampling the very sets that were compared.</p>"
    )
    cells = [
        (html.escape(row.label), _span(row.samples), _span(row.floor), _sizes(row), WORDS[row.better]) for row in rows
    ]
    real, seeds = rows[0].real, rows[0].seeds
    drawn = "" if seeds.samples is None else f"{seeds.samples} of the samples, "
    caption = (
        "In brackets, the interval at 95 %; n, samples against real data, and for the floor where that differs. "
        f"Eyes: {seen}. Split: {real.split} of {html.escape(real.name)} (sha256 {real.sha256[:16]}), resized: "
        f"{real.resize}. Seeds: {drawn}{seeds.figures} of the figures."
    )
    table = Table(("figure", "samples", "real data", "n", ""), tuple(cells), caption)
    return Chapter("figures", "Figures", (words, _bars(rows), table), {})


def _span(span: Span) -> str:
    return f"{number(span.value, 3)} [{number(span.low, 3)}, {number(span.high, 3)}]"


def _sizes(row: Row) -> str:
    own, floor = row.samples.n, row.floor.n
    same = (own.samples, own.real) == (floor.samples, floor.real)
    return f"{own.samples}/{own.real}" + ("" if same else f"; {floor.samples}/{floor.real}")


def _bars(rows: tuple[Row, ...]) -> Picture:
    def paint(figure: "Figure") -> None:
        figure.set_layout_engine(None)  # so many panes are laid out in no time by hand
        figure.subplots_adjust(left=0.03, right=0.97, bottom=0.04, top=0.965, wspace=0.1, hspace=1.1)
        grid = figure.subplots(math.ceil(len(rows) / 2), 2, squeeze=False)
        for axes, row in zip(grid.flat, rows, strict=False):
            _bar(axes, row)
        for axes in grid.flat[len(rows) :]:
            axes.set_axis_off()

    caption = "Blue: the samples. Black: real data in their place. Lines are intervals at 95 %."
    size = (WIDTH, 0.62 * math.ceil(len(rows) / 2) + 0.2)
    alt = "Each figure of the samples with its interval, above that of real data."
    return draw("figures", size, paint, alt, caption, ("svg",))


def _bar(axes: "Axes", row: Row) -> None:
    for y, span, colour in ((1, row.samples, BLUE), (0, row.floor, INK)):
        axes.plot([span.low, span.high], [y, y], color=colour, lw=1.4)
        axes.plot([span.value], [y], "o", color=colour, ms=4)
    axes.set_ylim(-0.7, 1.7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(row.label, fontsize=9, pad=2)
    axes.tick_params(labelsize=7.5, pad=1)
    axes.locator_params(axis="x", nbins=5)


def _png(name: str, picture: pictures.Picture, alt: str, caption: str) -> Picture:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", optimize=True)
    return Picture(name, {"png": out.getvalue()}, alt, caption)


def _shown(x: Tensor) -> bool:
    return x.dim() == 4 and x.shape[1] in (1, 3)


def _sheets(found: Evaluation) -> Chapter | None:
    """Samples and data, as they come and under no names that would tell them apart but their captions."""
    samples, real = found.case.samples.x, found.case.real.x
    if _shown(samples):
        sheets = [pictures.tile(decode(_spread(x)), legible=32) for x in (samples, real)]
    elif samples[0].numel() == 2:
        reach = 1.1 * float(real.abs().quantile(0.999))
        sheets = [pictures.scatter(x.flatten(1), reach=reach) for x in (samples, real)]
    else:
        return None
    blocks: list[Block] = [
        _png(name, sheet, f"A sheet of {words}.", f"{words.capitalize()}, evenly spaced among all.")
        for name, sheet, words in zip(("samples", "real"), sheets, ("samples", "held-out real data"), strict=True)
    ]
    return Chapter("sheets", "Samples and data", tuple(blocks), {})


def _spread(x: Tensor) -> Tensor:
    return x[spaced(len(x), SHOWN)]


def _copies(found: Evaluation) -> Chapter:
    record = found.record
    row = record.row("copies")
    verdict = "The model memorises: more" if record.memorises else "No more"
    words = (
        f"<p>{verdict} of the samples are copies of training data than of fresh data can be: "
        f"{_span(row.samples)} of the samples, {_span(row.floor)} of held-out data. A copy lies three times nearer to "
        "one training sample than to every other.</p>"
    )
    blocks: list[Block] = [words]
    if _shown(found.case.samples.x):
        index = torch.tensor([pair.sample for pair in record.pairs])
        own, theirs = decode(found.case.samples.x[index]), decode(found.case.train[found.origin.place[index]])
        sheet = pictures.tile(torch.cat([own, theirs]), len(index), legible=40)
        caption = "Above, the samples most like copies, the likeliest first; below each, the nearest training sample."
        blocks.append(_png("pairs", sheet, "Samples above the training samples nearest to them.", caption))
    return Chapter("copies", "Copies", tuple(blocks), {})


def _spectra(found: Evaluation) -> Chapter | None:
    x, y = found.case.samples.x, found.case.real.x
    if x.dim() < 3:
        return None

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        for part, colour, label in ((y, INK, "real data"), (x, BLUE, "samples")):
            power = bands(part)
            mean, error = power.mean(0)[1:], 1.96 * power.std(0)[1:] / len(power) ** 0.5
            f = torch.arange(1, len(mean) + 1)
            left.loglog(f, mean, color=colour, label=label)
            left.fill_between(f, (mean - error).clamp(min=1e-12), mean + error, color=colour, alpha=0.2, lw=0)
            decibels = 10 * torch.log10(mean / bands(y).mean(0)[1:])
            width = 10 / math.log(10) * error / mean
            right.plot(f, decibels, color=colour)
            right.fill_between(f, decibels - width, decibels + width, color=colour, alpha=0.2, lw=0)
        left.set(title="power", xlabel="frequency, cycles per picture")
        ticks = [2**i for i in range(12) if 2**i <= len(f)]
        left.set_xticks(ticks, [str(tick) for tick in ticks])
        left.minorticks_off()
        left.legend(frameon=False, fontsize=9)
        right.set(title="power against that of real data, in decibels", xlabel="frequency, cycles per picture")

    alt = "Radial power spectra of samples and of real data, and their ratio in decibels."
    caption = "How much of the pictures lies at each frequency; the bands are intervals at 95 %."
    return Chapter("spectra", "Frequencies", (draw("spectra", (WIDTH, 2.8), paint, alt, caption, ("svg",)),), {})
