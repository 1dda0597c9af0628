"""A row: what one system made of the budget, and how good its samples are.

Distances are those of features: of a small classifier that has learnt the training data's classes, where it has any, or
of the values themselves. Every metric of the registry gives its figures, with their intervals. Real data are a row too.
What has a flow has bits per dimension: those of held-out data, by that flow's own density.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from ..data import Dataset, decode, encode
from ..drawing import is_shown
from ..errors import PellucidError
from ..explain.chapter import Picture
from ..files import whole
from ..likelihood import flow
from ..metrics import Case, Figure, View, features, judge, registry
from ..metrics.classes import told
from ..metrics.sets import spaced
from ..pictures import save_png, scatter, tile
from ..types import Model
from .entrant import Drawn, Entrant

FORMAT = 1
REAL = "real data"
MOST = 10_000  # real samples of a split that are looked at
SURE = 100  # held-out samples whose probability is asked for


class Row(NamedTuple):
    """One system: steps and seconds of training, calls of the network for each sample, seconds for a hundred."""

    system: str
    what: str
    steps: int
    seconds: float
    calls: float
    drawing: float
    figures: dict[str, Figure]


def measure(data: Dataset, x: Tensor, label: Tensor | None, seed: int = 0) -> dict[str, Figure]:
    """The figures of samples x [n, *shape], in model units and of these labels, against the held-out data."""
    case = _case(data, x, label, seed)
    metrics = [registry.make(name) for name in registry.names()]
    return _merged(metric(case.spread(metric.most)) for metric in metrics)


def floor(data: Dataset, n: int, seed: int = 0) -> dict[str, Figure]:
    """The figures of real data in the place of n samples: what a perfect system would score."""
    x, cond = data.batch(spaced(len(data.train.x), n))
    case = _case(data, x, cond.get("label"), seed)
    metrics = [registry.make(name) for name in registry.names()]
    return _merged(metric(metric.floor(case.spread(metric.most))) for metric in metrics)


def bits(model: Model, data: Dataset, seed: int = 0) -> dict[str, Figure]:
    """Bits per dimension of held-out data, each sample in its class, by the density of the model's flow."""
    x, label = _split(data, "test", SURE)
    heard = {} if label is None else {"label": label}
    grain = 2 / 255 if data.pictures else 0.0
    found = flow(model, x, cond=heard, grain=grain, sampler="dpmpp-3m", steps=40, low=1e-3, seed=seed)
    return {"bits": Figure.of(*found.rate())}


def _merged(parts: Iterable[dict[str, Figure]]) -> dict[str, Figure]:
    return {name: figure for part in parts for name, figure in part.items()}


def _case(data: Dataset, x: Tensor, label: Tensor | None, seed: int) -> Case:
    shown = (encode(decode(x)) if data.pictures else x).float().cpu()  # as it would be looked at
    (train, known), (real, truth) = (_split(data, name) for name in ("train", "test"))
    eyes = features.look(features.usual(train, known), train, known, len(data.classes))
    samples, held = View(shown, eyes(shown), label), View(real, eyes(real), truth)
    twin = View(train, train.flatten(1), known).spread(len(x))
    twin = twin._replace(features=eyes(twin.x))
    reader = judge(train, known) if told(known) and label is not None else None
    return Case(samples, held, train, twin, seed, reader)


def _split(data: Dataset, name: Literal["train", "test"], most: int = MOST) -> tuple[Tensor, Tensor | None]:
    """At most so many real samples in model units and their labels; training data where none is held out."""
    name = "train" if data.test is None else name
    part = data.train if name == "train" or data.test is None else data.test
    x, cond = data.batch(spaced(len(part.x), most), name)
    return x, cond.get("label")


def write(path: Path, row: Row) -> None:
    """Keep a row as JSON, whole or not at all."""
    figures = {name: figure._asdict() for name, figure in row.figures.items()}
    with whole(path) as file:
        file.write_text(json.dumps({"format": FORMAT, **row._asdict(), "figures": figures}, indent=1), "utf-8")


def read(path: Path) -> Row | None:
    """A row that was kept; None where there is none that can be read."""
    try:
        table = json.loads(path.read_text("utf-8"))
        if table.pop("format") != FORMAT:
            return None
        figures = {name: Figure(**figure) for name, figure in table.pop("figures").items()}
        return Row(**table, figures=figures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(folder: Path, entrant: Entrant, drawn: Drawn, data: Dataset, seed: int) -> Row:
    """Measure what was drawn and write it down: row.json, and grid.png where samples can be shown."""
    figures = measure(data, drawn.x, drawn.label, seed)
    figures |= bits(drawn.model, data, seed) if drawn.model is not None else {}
    row = Row(entrant.name, entrant.what, drawn.steps, drawn.seconds, drawn.calls, drawn.drawing, figures)
    if is_shown(data.shape):
        columns = len(data.classes) or 16
        shown = scatter(drawn.x) if len(data.shape) == 1 else tile(decode(drawn.x[: 4 * columns]), columns)
        save_png(folder / "grid.png", shown)
    write(folder / "row.json", row)
    return row


def real(folder: Path, data: Dataset, n: int, seed: int) -> Row:
    """The row of real data, measured once."""
    row = read(folder / "row.json")
    if row is None:
        row = Row(REAL, "Training data in the samples' place.", 0, 0.0, 0.0, 0.0, floor(data, n, seed))
        write(folder / "row.json", row)
    return row


def agree(folder: Path, asked: dict[str, object]) -> None:
    """Note what is compared; a folder in which something else was is refused."""
    path = folder / "compare.json"
    try:
        held = json.loads(path.read_text("utf-8")) if path.exists() else asked
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise PellucidError(f"{path} does not say what is compared; remove it, or take another folder with --out.")
    if held != asked:
        wrong = next(key for key in asked if held.get(key) != asked[key])
        raise PellucidError(
            f"{folder} compares with {wrong} = {held.get(wrong)}, not {asked[wrong]}; take another folder with --out."
        )
    with whole(path) as file:
        file.write_text(json.dumps(asked), "utf-8")


def grids(folder: Path, rows: list[Row]) -> list[Picture]:
    """The grid of every row that has one."""
    found = [(row, folder / row.system / "grid.png") for row in rows]
    return [
        Picture(row.system, {"png": path.read_bytes()}, f"Samples of {row.system}.", f"{row.system}: {row.what}")
        for row, path in found
        if path.exists()
    ]
