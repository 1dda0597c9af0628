"""One look for every picture: thin ink on nothing, one serif, colours that the colour-blind can tell apart.

A picture is drawn once and kept twice: as SVG, whose ink and colours turn with the reader's light or dark page, and as
PNG on white.
"""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import PellucidError
from .chapter import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#1f2328", "#8a9099"
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#b0558f", "#3f9fd8"  # after Okabe & Ito 2008
DARK = {BLUE: "#5cb3e4", ORANGE: "#f08c4a", GREEN: "#3cc79e", PURPLE: "#dd94c0", SKY: "#8fd0f5"}  # on a dark page
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY)
WIDTH = 7.2  # inches: a column of the report

RC: Any = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 11,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.visible": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "image.interpolation": "none",
    "svg.hashsalt": "pellucid",  # the same picture is the same file
    "figure.dpi": 100,
}


def need() -> None:
    """A sentence where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise PellucidError("pictures need matplotlib; run pip install 'pellucid[demo]'.") from None


def draw(
    name: str,
    size: tuple[float, float],
    paint: "Callable[[Figure], None]",
    alt: str,
    caption: str,
    kinds: tuple[str, ...] = ("svg", "png"),
) -> Picture:
    """A picture of `size` inches, painted by `paint`, as SVG and PNG or as one of them."""
    need()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(RC):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        files = {kind: SAVED[kind](figure) for kind in kinds}
    return Picture(name, files, alt, caption)


def _svg(figure: "Figure") -> bytes:
    vector = io.BytesIO()
    figure.savefig(vector, format="svg", transparent=True, metadata={"Date": None})
    return _turning(vector.getvalue().decode())


def _png(figure: "Figure") -> bytes:
    raster = io.BytesIO()
    figure.savefig(raster, format="png", dpi=200, facecolor="white")
    return small(raster)


SAVED = {"svg": _svg, "png": _png}


def frames(
    size: tuple[float, float], paint: "Callable[[Figure], Callable[[int], None]]", count: int
) -> list[np.ndarray]:
    """Pictures, uint8 [h, w, 3], from one figure: `paint` prepares it and returns what changes it to frame i."""
    need()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(RC):
        figure = Figure(figsize=size, dpi=100)
        canvas, turn, out = FigureCanvasAgg(figure), paint(figure), []
        for i in range(count):
            turn(i)
            canvas.draw()
            out.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return out


def small(raster: io.BytesIO) -> bytes:
    """The same PNG in at most 256 colours."""
    out = io.BytesIO()
    with Image.open(raster) as image:
        white(image.convert("RGB").quantize(256, dither=Image.Dither.NONE)).save(out, "PNG", optimize=True)
    return out.getvalue()


def white(image: Image.Image) -> Image.Image:
    """A picture with a palette whose paper is white again: reducing the colours had averaged it with its edges."""
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    palette[(palette >= 250).all(1)] = 255
    image.putpalette(palette.tobytes())
    return image


def _turning(svg: str) -> bytes:
    """An SVG that follows the page: its ink is the reader's, its colours lighten in the dark."""
    svg = re.sub(r"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    dark = "".join(
        f'[style*="{what}: {light}"]{{{what}:{bright}!important}}'
        for light, bright in DARK.items()
        for what in ("stroke", "fill")
    )
    turn = f"<style>svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:#dfe3e8}}{dark}}}</style>"
    svg = re.sub(r"(<svg\b[^>]*>)", lambda m: m[1] + turn, svg, count=1)
    return svg.replace(INK, "currentColor").replace("svg{color:currentColor}", f"svg{{color:{INK}}}", 1).encode()


def label(axes: "Axes", x: float, y: float, text: str, colour: str, **options: Any) -> None:
    """A line's name beside it, in its colour."""
    axes.annotate(text, (x, y), (4, 0), textcoords="offset points", color=colour, va="center", **options)


def sheet(axes: "Axes", picture: np.ndarray, columns: list[str], rows: list[str]) -> None:
    """A sheet of pictures with a word above each column and beside each row."""
    height, width = picture.shape[:2]
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([(i + 0.5) * width / len(columns) for i in range(len(columns))], columns)
    axes.set_yticks([(i + 0.5) * height / len(rows) for i in range(len(rows))], rows)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
