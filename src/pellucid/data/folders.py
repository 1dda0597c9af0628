"""Folders of pictures, in the layouts that torchvision and the datasets library read.

pictures/cat/1.png  pictures/dog/2.png        the first folder is the class
pictures/1.png  pictures/metadata.csv         columns file_name, and label or text or both; or metadata.jsonl
pictures/train/...  pictures/test/...         either of the above, twice
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import PellucidError
from .dataset import Dataset, Options
from .pictures import SUFFIXES, Row, Unreadable, gather

TABLES = ("metadata.csv", "metadata.jsonl")
Said = dict[Path, tuple[str | None, str | None]]
"""What a folder says of each picture: its label and its text."""


def folder(path: Path, options: Options) -> Dataset:
    """Read a folder of pictures; a `train` and a `test` folder inside it are taken at their word."""
    halves = [path / "train", path / "test"]
    divided = all(half.is_dir() for half in halves) and not any((path / table).is_file() for table in TABLES)
    train, test = (_rows(half, path) for half in halves) if divided else (_rows(path, path), [])
    return gather(str(path), train, test, options)


def _rows(root: Path, top: Path) -> list[Row]:
    """Every file below root, and every one that its table names; names are relative to top."""
    inside = sorted(file.relative_to(root) for file in root.rglob("*") if file.is_file())
    files = [f for f in inside if str(f) not in TABLES and not any(part.startswith(".") for part in f.parts)]
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    said: Said = _said_by(table) if table else {f: (f.parts[0] if len(f.parts) > 1 else None, None) for f in files}
    names = [*said, *(f for f in files if f not in said)]
    return [Row(str(root.relative_to(top) / f), _source(root, f, said), *said.get(f, (None, None))) for f in names]


def _source(root: Path, file: Path, said: Said) -> Path | Unreadable:
    if file.is_absolute() or ".." in file.parts:
        return Unreadable("lies outside the folder")
    if file.suffix.lower() not in SUFFIXES:
        return Unreadable("is not a PNG, JPEG, WebP, BMP or GIF picture")
    return root / file if file in said else Unreadable("is not named in the metadata")


def _said_by(table: Path) -> Said:
    try:
        text = table.read_text(encoding="utf-8-sig")
        lines = list(csv.DictReader(io.StringIO(text, newline="")) if table.suffix == ".csv" else _json_lines(text))
    except (csv.Error, ValueError, RecursionError, OSError) as error:
        raise PellucidError(f"{table} cannot be read ({error}); expected {table.suffix[1:]} in UTF-8.") from None
    if not all(isinstance(line, dict) and isinstance(line.get("file_name"), str) for line in lines):
        raise PellucidError(
            f"{table} has a line without file_name; expected columns file_name, and label or text or both."
        )
    return {Path(line["file_name"]): (_word(line.get("label")), _word(line.get("text"))) for line in lines}


def _json_lines(text: str) -> Iterator[Any]:
    return (json.loads(line) for line in text.splitlines() if line.strip())


def _word(value: object) -> str | None:
    return None if value is None or value == "" else str(value)
