"""What an evaluation found, as it is written: no figure stands without what it depends on.

A record is read back only whole and as it was written; two are compared only where the same question was asked.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from ..errors import PellucidError
from ..files import whole
from ..settings import Natural, Section

FORMAT = 1
Z = 1.96


class Sizes(Section):
    """How many of each set a figure was computed from."""

    samples: Natural
    real: Natural
    train: Natural


class Eyes(Section):
    """What saw the samples."""

    name: str
    sha256: str
    resize: str


class Real(Section):
    """The real data that samples are compared with."""

    name: str
    split: str
    sha256: str
    resize: str


class Seeds(Section):
    """Of the samples that were drawn (none where they were given), and of whatever is left to chance after that."""

    samples: Natural | None
    figures: Natural


class Span(Section):
    """A value with its standard error and its interval at 95 %, and how many samples it is of."""

    value: float
    error: Annotated[float, Field(ge=0)]
    low: float
    high: float
    n: Sizes


class Row(Section):
    """A figure, and the floor: the same figure of real data in the samples' place."""

    name: str
    label: str
    better: Literal["less", "more", "near"]
    samples: Span
    floor: Span
    eyes: Eyes
    real: Real
    seeds: Seeds
    level: float = 0.95


class Pair(Section):
    """A sample and the training sample nearest to it; `ratio` to the second nearest one."""

    sample: Natural
    train: Natural
    distance: float
    ratio: float


class Record(Section):
    """An evaluation. `about` says what was evaluated and how it was drawn, for readers alone."""

    format: int = FORMAT
    pellucid: str
    about: dict[str, Any]
    rows: tuple[Row, ...]
    memorises: bool
    pairs: tuple[Pair, ...]  # those most like copies first
    seconds: float

    def row(self, name: str) -> Row:
        """The figure of that name."""
        return next(row for row in self.rows if row.name == name)

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with whole(path) as temporary:
            temporary.write_text(json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False), "utf-8")

    @staticmethod
    def load(path: Path) -> "Record":
        """Read what `save` wrote, or the evaluation.json of a run's folder."""
        path = path / "evaluation.json" if path.is_dir() else path
        try:
            table = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise PellucidError(f"there is no {path}; write it first: pellucid evaluate.") from None
        except (OSError, ValueError, RecursionError):
            raise PellucidError(f"{path} is no evaluation; expected a file that pellucid evaluate wrote.") from None
        if not isinstance(table, dict) or "rows" not in table:
            raise PellucidError(f"{path} is no evaluation; expected a file that pellucid evaluate wrote.")
        if table.get("format") != FORMAT:
            raise PellucidError(
                f"{path} has format {table.get('format')}, this pellucid reads {FORMAT}; evaluate again."
            )
        return Record.parse(table)


class Difference(NamedTuple):
    """One figure of two evaluations: how much more the first has, with its error, and which of them is better."""

    label: str
    a: float
    b: float
    difference: float
    error: float
    better: Literal["a", "b", "neither"]


def compare(a: Record, b: Record) -> list[Difference]:
    """Every figure of both. Those of different n, eyes, resize rules or real data have nothing to say to each other."""
    found = []
    for row in a.rows:
        for other in (other for other in b.rows if other.name == row.name):
            alike(row, other)
            found.append(_difference(row, other))
    if not found:
        raise PellucidError("the two evaluations have no figure in common; evaluate both on the same data.")
    return found


def alike(a: Row, b: Row) -> None:
    """Refuse two figures that depend on different things."""
    parts: list[tuple[str, Any, Any, str]] = [
        ("n", a.samples.n, b.samples.n, "the same -n"),
        ("features", a.eyes, b.eyes, "the same --features"),
        ("real data", a.real, b.real, "the same --data"),
    ]
    for what, one, other, give in parts:
        for key in type(one).model_fields:
            left, right = ("none" if value == "" else value for value in (getattr(one, key), getattr(other, key)))
            if left != right:
                words = f"{left:.8} and {right:.8}" if key == "sha256" else f"{left} and {right}"
                different = f"{a.label} is of different {what}, {key} {words}, so it does not compare"
                raise PellucidError(f"{different}; evaluate both with {give}.")


def _difference(a: Row, b: Row) -> Difference:
    error = (a.samples.error**2 + b.samples.error**2) ** 0.5
    apart = a.samples.value - b.samples.value
    far = [abs(row.samples.value - row.floor.value) for row in (a, b)]
    gain = {"less": -apart, "more": apart, "near": far[1] - far[0]}[a.better]
    better: Literal["a", "b", "neither"] = "neither" if abs(gain) <= Z * error else "a" if gain > 0 else "b"
    return Difference(a.label, a.samples.value, b.samples.value, apart, error, better)
