"""`pellucid demo`: from real handwriting to drawn digits in minutes, with figures that say how good they are."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import answer, progress

if TYPE_CHECKING:
    from ..denoiser import Denoiser
    from ..drawing import Drawing

SAMPLES = 500
ACCURACY = 0.97  # at least
COPIES = 0.8, 1.25  # between
MOMENTS = 11  # of the way from noise to data


def demo(
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Train a class-conditional model on the real digits, draw from it, and measure what was drawn."""
    from .. import checkpoint, drawing, metrics
    from ..config import Recipe
    from ..data import decode
    from .train import fit, place

    began = time.perf_counter()
    folder, recipe = place(Recipe.load("digits", ["name=demo"]), runs / "demo", None)
    fit(recipe, folder)
    found = drawing.find(str(folder))
    order, model = drawing.of_run(str(folder), found).changed({"n": SAMPLES}), checkpoint.build(found)
    with progress("drawing") as show:
        x = order.draw(model, lambda done, total: show(done, total, ""))
    few = order.changed({"n": 100})
    few.write(x[: few.n], folder / "digits.png")
    strip(order, model, folder / "trajectory.png")
    real, drawn = recipe.read(), decode(x)
    assert real.train.label is not None and real.test is not None and order.label is not None
    accuracy = metrics.class_accuracy(metrics.judge(real.train.x, real.train.label), drawn, order.label)
    copies = metrics.copy_ratio(drawn, real.train.x, real.test.x)
    good = accuracy.value >= ACCURACY and COPIES[0] <= copies.value <= COPIES[1]
    words = f"""\
{folder / "digits.png"}: drawn digits, a row for each class, guidance {order.guidance:g}
{folder / "trajectory.png"}: one of each on its way from noise
{accuracy.value:.1%} +- {accuracy.error:.1%} of {SAMPLES} are read as what they are meant to be; bar {ACCURACY:.0%}
{copies.value:.2f} +- {copies.error:.2f} is the copy ratio, 1 for fresh handwriting; bar {COPIES[0]} to {COPIES[1]}
{time.perf_counter() - began:.0f} s in all; {"every bar is met" if good else "a bar is missed"}"""
    figures = {"accuracy": accuracy._asdict(), "copies": copies._asdict(), "passed": good, "run": str(folder)}
    answer(words, figures, json)
    raise typer.Exit(0 if good else 1)


def strip(order: "Drawing", model: "Denoiser", path: Path) -> None:
    """One sample of each class as a row, from noise on the left to data on the right, evenly in t."""
    import torch

    from .. import pictures
    from ..data import decode

    few = order.changed({"n": len(order.labels), "steps": 2 * (MOMENTS - 1), "grid": "uniform"})
    way = torch.stack([step.x for step in few.trajectory(model)[::2]], 1)  # [n, moments, *shape]
    pictures.save_png(path, pictures.tile(decode(way.flatten(0, 1)), way.shape[1]))
