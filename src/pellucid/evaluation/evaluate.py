"""How good are these samples? Every metric that applies, each beside what real data score in the samples' place.

The real data are the held-out half: neither the model nor the eyes have seen it. The floor takes training data for
samples, as many as there are samples, so that it has the same bias. A model memorises where more of its samples are
copies of training data than of real data can be.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..data import Dataset, Split, encode
from ..errors import PellucidError
from ..metrics import Case, Figure, Judge, Metric, Origin, View, origin, registry
from ..metrics.features import Features, Values
from .record import Eyes, Pair, Real, Record, Row, Seeds, Sizes, Span, alike

LEAST = 20  # samples in a set
PAIRS = 16

Progress = Callable[[int, int, str], None]
"""progress(figures computed, figures, the next one's name)"""


@dataclass(frozen=True)
class Evaluation:
    """The record, and what a page shows beside it."""

    record: Record
    case: Case
    origin: Origin


def evaluate(
    samples: Split,
    data: Dataset,
    eyes: Features,
    *,
    judge: Judge | None = None,
    seeds: tuple[int | None, int] = (None, 0),
    resize: str = "none",
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate samples, bytes or numbers as the data are, with their labels where they were meant to have any.

    judge: reads classes. seeds: of the samples and of the figures. resize: what was done to the real pictures when they
    were read. about: what is evaluated, for readers. Raises PellucidError for sets that have no distance.
    """
    began = time.perf_counter()
    check(samples, data)
    case = _case(samples, data, eyes, judge, seeds[1])
    near = origin(case.samples.x, case.train)
    real = Real(name=data.name, split="test", sha256=digest(data), resize=resize)
    rows, names = [], registry.names()
    for i, name in enumerate(names):
        if progress:
            progress(i, len(names), name)
        rows += _rows(registry.make(name), case, eyes, real, Seeds(samples=seeds[0], figures=seeds[1]))
    if progress:
        progress(len(names), len(names), "")
    copies = next(row for row in rows if row.name == "copies")
    first = near.ratio.argsort(stable=True)[:PAIRS].tolist()
    pairs = tuple(
        Pair(sample=i, train=int(near.place[i]), distance=float(near.distance[i]), ratio=float(near.ratio[i]))
        for i in first
    )
    record = Record(
        pellucid=__version__,
        about=about or {},
        rows=tuple(rows),
        memorises=copies.samples.low > copies.floor.high,
        pairs=pairs,
        seconds=time.perf_counter() - began,
    )
    return Evaluation(record, case, near)


def check(samples: Split, data: Dataset) -> None:
    """Refuse, in one sentence, what cannot be evaluated."""
    if data.test is None:
        raise PellucidError(f"{data.name} has no held-out samples; give --data with more of them, or a test half.")
    for what, x in {"there": samples.x, f"in the held-out half of {data.name} there": data.test.x}.items():
        if len(x) < LEAST:
            verb = "is 1 sample" if len(x) == 1 else f"are {len(x)} samples"
            raise PellucidError(f"{what} {verb}; expected {LEAST} or more.")
    if samples.x.shape[1:] != data.test.x.shape[1:] or samples.x.dtype != data.test.x.dtype:
        kinds = [_kind(x) for x in (samples.x, data.test.x)]
        raise PellucidError(f"the samples are {kinds[0]}, the data {kinds[1]}; give samples of the data's kind.")
    if not bool(torch.isfinite(samples.x).all()):
        raise PellucidError("some samples are not finite numbers; the model has not learnt, or leave them out.")


def comparable(other: Record, n: int, data: Dataset, resize: str = "none", eyes: Features | None = None) -> None:
    """Refuse, before there is anything to compare, n samples for which `other` answers another question."""
    rows = [row for row in other.rows if row.name == "frechet"]  # of all samples, and of what the eyes see
    if not rows or data.test is None:
        raise PellucidError("the evaluation to compare with has no Frechet distance; evaluate it again.")
    sizes = Sizes(samples=n, real=len(data.test.x), train=len(data.train.x))
    update = {
        "samples": rows[0].samples.model_copy(update={"n": sizes}),
        "real": Real(name=data.name, split="test", sha256=digest(data), resize=resize),
        "eyes": Eyes(**eyes.plain()) if eyes else rows[0].eyes,
    }
    alike(rows[0].model_copy(update=update), rows[0])


def _kind(x: Tensor) -> str:
    return f"{'pictures' if x.dtype == torch.uint8 else 'points'} of shape {tuple(x.shape[1:])}"


def _case(samples: Split, data: Dataset, eyes: Features, judge: Judge | None, seed: int) -> Case:
    assert data.test is not None
    train = _units(data.train.x)
    twin = View(train, train.flatten(1), data.train.label).spread(len(samples.x))
    real = _view(data.test, eyes)
    if not bool((real.features.std(0) > 0).any()):
        raise PellucidError(
            f"all {len(real.x)} held-out samples look alike to {eyes.name}; take other data or --features."
        )
    return Case(_view(samples, eyes), real, train, twin._replace(features=eyes(twin.x)), seed, judge)


def _view(split: Split, eyes: Features) -> View:
    x = _units(split.x)
    return View(x, eyes(x), split.label)


def _units(x: Tensor) -> Tensor:
    return encode(x) if x.dtype == torch.uint8 else x.float()


def _rows(metric: Metric, case: Case, eyes: Features, real: Real, seeds: Seeds) -> list[Row]:
    case = case.spread(metric.most)
    other = metric.floor(case)
    found, floor = metric(case), metric(other)
    seen = eyes if metric.space == "features" else Values()
    label = {"frechet": seen.distance, "frechet_limit": f"{seen.distance} at n = infinity"}
    return [
        Row(
            name=name,
            label=label.get(name, name.replace("_", " ")),
            better=metric.better,
            samples=_span(figure, case),
            floor=_span(floor[name], other),
            eyes=Eyes(**seen.plain()),
            real=real,
            seeds=seeds,
        )
        for name, figure in found.items()
        if name in floor
    ]


def _span(figure: Figure, case: Case) -> Span:
    n = Sizes(samples=len(case.samples.x), real=len(case.real.x), train=len(case.train))
    return Span(**figure._asdict(), n=n)


def digest(data: Dataset) -> str:
    """The SHA-256 of the held-out half."""
    assert data.test is not None
    return hashlib.sha256(data.test.x.contiguous().numpy().tobytes()).hexdigest()
