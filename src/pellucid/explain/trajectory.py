"""From noise to data: x_t and, beside it, the x0 that the model sees in it; a strip, an animation, the result."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import pictures
from ..sampling import Step
from .chapter import Chapter, Picture
from .mathematics import inline
from .plates import look, strip
from .style import FAINT, WIDTH, draw, frames, sheet, white
from .subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, FRAMES = 9, 30
NOISY, CLEAN = inline("x_t"), inline("hat{x}_0")


def tell(subject: Subject) -> Chapter:
    """The animation, the samples beside data, and the strip."""
    walk = subject.walk
    trained = f"the model, trained for {subject.step:,} steps"
    who = trained if subject.step else "the exact denoiser of the training data"
    words = (
        f"<p>Drawn by {who}. Each step asks what clean sample {CLEAN} the noise {NOISY} hides, and moves a "
        "little way there. The answer begins as the mean of all data, and sharpens as the noise falls.</p>"
    )
    if not subject.step:
        words += (
            "<p>Nothing has been trained yet. The exact denoiser is the limit of endless training without "
            "generalisation: what it draws are copies of training data.</p>"
        )
    blocks = (words, animation(subject, walk), samples(subject, walk[-1].x), across(subject, walk))
    return Chapter("trajectory", "From noise to data", blocks, {"times": [step.t for step in walk]})


def chosen(walk: list[Step], count: int) -> list[Step]:
    """`count` steps, evenly spaced, from the first to the last."""
    if len(walk) <= count:
        return walk
    return [walk[i] for i in torch.linspace(0, len(walk) - 1, count).round().int().tolist()]


def estimate(step: Step) -> Tensor:
    """The x0 that is seen from a step; at the end x itself."""
    return step.x if step.x0 is None else step.x0


def across(subject: Subject, walk: list[Step]) -> Picture:
    """The strip: pairs of rows, x_t above its x0 estimate."""
    some, count = chosen(walk, COLUMNS), 2 if subject.data.pictures else 1
    now = strip(subject, [(step.x, step.t) for step in some], count)
    seen = strip(subject, [(estimate(step), 0.0) for step in some], count)
    height = (len(now) - pictures.LINE) // count
    rows = [part[i * height : (i + 1) * height + pictures.LINE] for i in range(count) for part in (now, seen)]
    sheets = np.concatenate(rows)

    def paint(figure: "Figure") -> None:
        sheet(figure.subplots(), sheets, [f"$t$ = {step.t:.2g}" for step in some], ["$x_t$", r"$\hat x_0$"] * count)

    size = WIDTH, 0.35 + (WIDTH - 0.6) * sheets.shape[0] / sheets.shape[1]
    alt = "Noise turning into samples from left to right; below each stage, what the model takes it for."
    return draw("trajectory", size, paint, alt, f"{NOISY}, and below it the {CLEAN} seen in it.")


def samples(subject: Subject, x: Tensor) -> Picture:
    """What was drawn, beside what it was learnt from."""
    real = like(subject, x)
    sheets = [_sheet(subject, each) for each in (x, real)]

    def paint(figure: "Figure") -> None:
        titles = "drawn", "held-out data" if subject.data.test else "training data"
        for axes, picture, title in zip(
            figure.subplots(1, 2, gridspec_kw={"wspace": 0.06}), sheets, titles, strict=True
        ):
            sheet(axes, picture, [title], [""])

    size = WIDTH, 0.3 + 0.485 * WIDTH * sheets[0].shape[0] / sheets[0].shape[1]
    alt = "Samples drawn, beside real data of the same kind."
    return draw("samples", size, paint, alt, "Drawn, and real.")


def like(subject: Subject, x: Tensor) -> Tensor:
    """As many real samples, held-out where there are any, with the labels in the same order."""
    split = subject.data.test or subject.data.train
    index = torch.arange(len(x)) % len(split.x)
    if subject.conditional and split.label is not None:
        wanted, taken = torch.arange(len(x)) % len(subject.data.classes), torch.zeros(len(split.x), dtype=torch.bool)
        for i, label in enumerate(wanted.tolist()):
            free = ((split.label == label) & ~taken).nonzero().flatten()
            index[i] = free[0] if len(free) else index[i]
            taken[index[i]] = True
    return subject.data.batch(index, "test" if subject.data.test else "train")[0]


def animation(subject: Subject, walk: list[Step]) -> Picture:
    """The whole way as a GIF, with its first picture and its last as a still."""
    some = chosen(walk, FRAMES)
    pairs = [(_sheet(subject, step.x, step.t), _sheet(subject, estimate(step))) for step in some]
    ratio = pairs[0][0].shape[0] / pairs[0][0].shape[1]
    height = 3.04 * ratio + 0.5

    def paint(figure: "Figure") -> Callable[[int], None]:
        left, right = (figure.add_axes((x, 0.1 / height, 0.475, 3.04 * ratio / height)) for x in (0.02, 0.505))
        shown = []
        for axes, picture, title in ((left, pairs[0][0], "$x_t$"), (right, pairs[0][1], r"$\hat x_0$ seen in it")):
            shown.append(axes.imshow(picture, cmap="gray", vmin=0, vmax=255))
            axes.set_title(title)
            axes.set_axis_off()
        clock = right.text(1, 1.03, "", transform=right.transAxes, ha="right", va="bottom", color=FAINT)

        def turn(i: int) -> None:
            for image, picture in zip(shown, pairs[i], strict=True):
                image.set_data(picture)
            clock.set_text(f"$t$ = {some[i].t:.2f}")

        return turn

    stills = frames((6.4, height), paint, len(some))
    alt = "Animation: noise turns into samples; beside it, the clean samples that the model sees in the noise."
    caption = f"Left, {NOISY} on its way from noise to data; right, what the model takes it for at that moment."
    return Picture("animation", {"gif": gif(stills)}, alt, caption)


def gif(stills: list[np.ndarray], milliseconds: int = 110) -> bytes:
    """An animation that loops, resting at both ends; one palette for all frames."""
    palette = white(Image.fromarray(np.concatenate(stills[:: max(1, len(stills) // 4)])).quantize(64))
    first, *rest = [Image.fromarray(still).quantize(palette=palette, dither=Image.Dither.NONE) for still in stills]
    out = io.BytesIO()
    times = [600, *[milliseconds] * (len(rest) - 1), 2000]
    first.save(out, "GIF", save_all=True, append_images=rest, duration=times[: len(stills)], loop=0, optimize=True)
    return out.getvalue()


def _sheet(subject: Subject, x: Tensor, t: float = 0.0) -> np.ndarray:
    plates = look(subject, x, t, len(x))
    return pictures.tile(plates, subject.columns if subject.data.pictures else 1)
