"""`pellucid evaluate`: how good a run's samples are, or any pictures, in figures with intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PellucidError
from .console import answer, device, progress, table

if TYPE_CHECKING:
    import torch

    from ..config import Recipe
    from ..data import Dataset, Split
    from ..drawing import Drawing
    from ..evaluation import Difference, Record
    from ..evaluation.record import Span
    from ..metrics import Judge
    from ..metrics.features import Features

USUAL = 2000  # samples


def evaluate(
    what: Annotated[str, typer.Argument(help="A run; or pictures: a folder, an .npz, a .parquet, and their --data.")],
    n: Annotated[
        int | None, typer.Option("-n", "--n", "--num-samples", help="2000, or as many as there are to train on.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="values, untrained, classifier; Inception's weights, or a folder of transformers."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="The real data; by default the run's.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another run, or its evaluation.json, with which to compare.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", "--output", help="The folder to write.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the samples.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", "--batch-size", help="How many at a time.")] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Measure samples against held-out data; writes evaluation.json and a page, evaluation.html."""
    from .. import evaluation
    from ..checkpoint import folders, is_kept, latest
    from ..config import Recipe
    from ..evaluation import Record
    from ..explain.evaluated import evaluated
    from ..explain.style import need
    from ..files import check_writable, whole

    source = Path(what)
    is_run = is_kept(source)
    place = out or (source if folders(source) else Path(f"{source.resolve().stem}-evaluated"))
    check_writable(place / "evaluation.json")
    need()
    if n is not None and n < evaluation.LEAST:
        raise PellucidError(f"n is {n}; expected {evaluation.LEAST} samples or more.")
    other = Record.load(against) if against else None
    if data is None and not is_run:
        raise PellucidError(f"{what} is no run; say with --data which real data its pictures are to be like.")
    real, resize = _real(Recipe.of(latest(source)) if data is None else Recipe.load(data))
    read = None if is_run else given(what, real, n)
    count = len(read[0].x) if read else n or min(USUAL, len(real.train.x))
    if read:
        evaluation.check(read[0], real)
    if other:
        evaluation.comparable(other, count, real, resize)
    eyes, judge = sight(features, real, device(on))
    if other:
        evaluation.comparable(other, count, real, resize, eyes)
    samples, about = read or _drawn(what, real, count, seed, batch, device(on))
    with progress("evaluating") as show:
        seeds = about.get("seed"), 0
        found = evaluation.evaluate(
            samples, real, eyes, judge=judge, seeds=seeds, resize=resize, about=about, progress=show
        )
    page = evaluated(found, source.resolve().name)
    found.record.save(place / "evaluation.json")
    with whole(place / "evaluation.html") as temporary:
        temporary.write_text(page, "utf-8")
    differences = evaluation.compare(found.record, other) if other else []
    plain = found.record.model_dump(mode="json") | {"against": [row._asdict() for row in differences]}
    answer(words(found.record, differences, place), plain, json)


def _real(recipe: "Recipe") -> "tuple[Dataset, str]":
    """The data of a recipe, and how its pictures were resized."""
    with progress("reading") as show:
        data = recipe.read(lambda done, total: show(done, total, ""))
    size = recipe.data.size
    return data, f"Lanczos to cover {size} x {size}, the middle cut out" if size else "none"


def _drawn(
    run: str, real: "Dataset", n: int, seed: int | None, batch: int | None, on: "torch.device"
) -> "tuple[Split, dict[str, Any]]":
    """Samples by the run's own settings, and how they were drawn."""
    from .. import checkpoint, drawing

    found = drawing.find(run)
    shape = tuple(found.meta["config"]["shape"])
    if shape != real.shape:
        raise PellucidError(f"{run} draws samples of shape {shape}, the data have {real.shape}; give its own --data.")
    given = {"n": n, "seed": seed, "batch": batch}
    order = drawing.of_run(run, found).changed({key: value for key, value in given.items() if value is not None})
    order = classed(order, real)
    with progress("drawing") as show:
        x = order.draw(checkpoint.build(found).to(on), lambda done, total: show(done, total, ""))
    about = {**order.plain(), "step": found.meta["step"]}
    return taken(x, order, real), about | ({"labels": "as often as in the training data"} if order.labels else {})


def classed(order: "Drawing", real: "Dataset") -> "Drawing":
    """The same, the class of each sample that of a training sample drawn by chance: as often as in the data."""
    import torch

    from ..noise import ORDER, words

    label = real.train.label
    if not order.labels or label is None:
        return order
    rows = words(order.seed, torch.arange(order.n), 0, ORDER, 1).flatten() % len(label)
    return order.changed({"labels": tuple(label[rows].tolist())})


def taken(x: "torch.Tensor", order: "Drawing", real: "Dataset") -> "Split":
    """Samples x [n, *shape] in model units as the data are."""
    from ..data import Split, decode

    order.check_finite(x)
    x = x.float().cpu()
    return Split(decode(x) if real.pictures else x, order.label)


def given(source: str, real: "Dataset", n: int | None) -> "tuple[Split, dict[str, Any]]":
    """All pictures or points of a source, or n evenly spaced ones; labels where their classes are those of the data."""
    import torch

    from ..data import load
    from ..metrics.sets import spaced

    folder = real.pictures and Path(source).is_dir()
    with progress("reading") as show:
        found = load(
            source,
            held_out=0,
            channels=real.shape[0] if folder else None,
            progress=lambda done, total: show(done, total, ""),
        )
    samples = found.train
    if samples.label is not None:  # numbered as in the data
        known = set(found.classes) <= set(real.classes)
        place = torch.tensor([real.classes.index(name) for name in found.classes]) if known else None
        samples = samples._replace(label=None if place is None else place[samples.label])
    if n is not None:
        if n > len(samples.x):
            raise PellucidError(f"{source} holds {len(samples.x)} samples, not {n}; give a smaller -n.")
        samples = samples.take(spaced(len(samples.x), n))
    return samples, {"source": source}


def sight(features: str | None, real: "Dataset", on: "torch.device") -> "tuple[Features, Judge | None]":
    """The eyes of that name, or those that suit the data, and who reads its classes."""
    from ..data import encode
    from ..metrics.features import look, reader, usual

    x = encode(real.train.x) if real.pictures else real.train.x
    label, classes = real.train.label, len(real.classes)
    with progress("learning to see") as show:
        eyes = look(features or usual(x, label), x, label, classes, lambda done, total: show(done, total, "")).on(on)
        return eyes, reader(eyes, x, label, classes)


def words(record: "Record", differences: "Sequence[Difference]", place: Path) -> str:
    """What the command says."""
    rows = [
        {
            "figure": row.label,
            "samples": span(row.samples),
            "real data": span(row.floor),
            "n": f"{row.samples.n.samples}/{row.samples.n.real}",
            "better": row.better,
        }
        for row in record.rows
    ]
    lines = [table(rows), "", "in brackets: intervals at 95 %; real data: what they score in the samples' place"]
    if all(row.name != "copy_ratio" for row in record.rows):
        lines.append("no copy ratio: about half of the held-out samples or more are training data too; hold out others")
    if differences:
        apart = [
            {
                "figure": row.label,
                "this": f"{row.a:.4g}",
                "other": f"{row.b:.4g}",
                "difference": f"{row.difference:.3g} +- {row.error:.2g}",
                "better": {"a": "this", "b": "other", "neither": "neither"}[row.better],
            }
            for row in differences
        ]
        lines += ["", table(apart)]
    more = "more" if record.memorises else "no more"
    lines.append(f"{more} of the samples are copies of training data than of fresh data can be")
    return "\n".join([*lines, f"{place / 'evaluation.html'} shows it; evaluation.json beside it holds it"])


def span(span: "Span") -> str:
    """A value and its interval."""
    return f"{span.value:.3g} [{span.low:.3g}, {span.high:.3g}]"
