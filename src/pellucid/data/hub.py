"""Parquet files and data sets of the hub, read by the datasets library: columns of pictures, labels and texts.

The columns are found by their type where the file declares it (Image, ClassLabel), else by the names people use.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import PellucidError
from .listing import HELD, LABEL, TEXT, Listing, each, unused
from .pictures import Row, Unreadable

if TYPE_CHECKING:
    import datasets

IMAGE = ("image", "img", "picture", "jpg", "png")


def parquet(path: Path) -> Listing:
    """A parquet file, or a folder of them: train*.parquet (or all) to train on, test* or validation* held out."""
    _library()
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    halves = {half: [file for file in files if re.match(rf"{half}(?![a-z])", file.name)] for half in ("train", *HELD)}
    held = next((half for half in HELD if 0 < len(halves[half]) < len(files)), None)
    test = halves[held] if held else []
    train = halves["train"] or [file for file in files if file not in test]
    rest = [unused(str(f.relative_to(path)), "files: 1", held) for f in files if f not in (*train, *test)]
    return _read(str(path), _table(train), _table(test) if test else None, rest)


def hub(name: str) -> Listing:
    """The data set of that name on the Hugging Face hub (or from its cache, where there is no network)."""
    try:
        splits = _library().load_dataset(name)
    except Exception as error:  # network, authentication, spelling: the library has an exception for each
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PellucidError(f"hub:{name} cannot be loaded ({reason}); check the name and the network.") from None
    train = "train" if "train" in splits else next(iter(splits))
    held = next((key for key in HELD if key in splits and key != train), None)
    rest = [unused(key, f"rows: {len(splits[key])}", held) for key in splits if key not in (train, held)]
    return _read(f"hub:{name}", splits[train], splits[held] if held else None, rest)


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise PellucidError("parquet files and hub: names need datasets; run pip install 'pellucid[data]'.") from None
    return datasets


def _table(files: list[Path]) -> "datasets.Dataset":
    """The rows of parquet files as one table in memory; nothing is copied to a cache."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    try:
        return datasets.Dataset(pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files]))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PellucidError(f"{files[0]} cannot be read as parquet ({reason}); is it whole?") from None


class Columns(NamedTuple):
    """Where a table keeps what."""

    image: str
    label: str | None
    text: str | None


def _read(name: str, train: "datasets.Dataset", test: "datasets.Dataset | None", rest: Sequence[Row]) -> Listing:
    columns = _columns(name, train.features)
    classes = tuple(getattr(train.features.get(columns.label), "names", ()))
    first = list(_rows("train", train, columns, classes))
    second = list(_rows("test", test, columns, classes)) if test is not None else []
    return Listing(name, first, [*second, *rest], classes)


def _columns(name: str, features: "datasets.Features") -> Columns:
    import datasets

    def find(kind: type, names: tuple[str, ...]) -> str | None:
        declared = [column for column, feature in features.items() if isinstance(feature, kind)]
        named = [column for column in names if isinstance(features.get(column), datasets.Value | dict | kind)]
        both = [column for column in named if column in declared]
        return next(iter([*both, *declared, *named]), None)

    image = find(datasets.Image, IMAGE)
    if image is None:
        raise PellucidError(f"{name} has no column of pictures among {', '.join(features)}; expected one named image.")
    text = next((column for column in TEXT if _is_text(features.get(column))), None)
    return Columns(image, find(datasets.ClassLabel, LABEL), text)


def _rows(half: str, table: "datasets.Dataset", columns: Columns, classes: tuple[str, ...]) -> Iterator[Row]:
    import datasets
    import pyarrow

    wanted = [column for column in columns if column is not None]
    try:
        raw = table.select_columns(wanted).cast_column(columns.image, datasets.Image(decode=False))
        cells = raw.with_format("arrow")[:]
    except (pyarrow.ArrowException, ValueError, TypeError):
        held = f"holds {table.features.get(columns.image)}"
        raise PellucidError(
            f"column {columns.image} of {half} {held}; expected pictures as PNG or JPEG bytes."
        ) from None
    nothing = [None] * len(cells)
    pictures, labels, texts = (cells[c].to_pylist() if c is not None else nothing for c in columns)
    for i, (picture, label, text) in enumerate(zip(pictures, labels, texts, strict=True)):
        known = classes and isinstance(label, int) and 0 <= label < len(classes)
        word = classes[label] if known else None if label is None else str(label)
        for said in each(text):
            yield Row(f"{half} row {i}", _source(picture), word, str(said) if said else None)


def _is_text(feature: object) -> bool:
    """Whether a column holds a text, or a list of them."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return getattr(inner, "dtype", None) in ("string", "large_string")


def _source(picture: dict[str, Any] | None) -> bytes | Path | Unreadable:
    if picture is None or (picture["bytes"] is None and picture["path"] is None):
        return Unreadable("is missing")
    return Path(picture["path"]) if picture["bytes"] is None else picture["bytes"]
