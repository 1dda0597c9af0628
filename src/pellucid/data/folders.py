"""Folders of pictures, in the layouts that torchvision and the datasets library read, and zip archives of such.

pictures/cat/1.png  pictures/dog/2.png        the first folder is the class
pictures/1.png  pictures/metadata.csv         columns file_name, and label or text or both; or metadata.jsonl
pictures/train/...  pictures/test/...         either of the above, twice, or train alone; val/ where there is no test/

A table may name a picture on several lines, once for each of its captions: each line is a sample.
"""

import csv
import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import PellucidError
from .listing import HELD, LABEL, TEXT, Listing, each, unused
from .pictures import SUFFIXES, Readable, Row, Unreadable

TABLES = ("metadata.csv", "metadata.jsonl")
LARGEST = 1 << 28  # bytes of one picture in an archive
Inside = Mapping[PurePosixPath, Readable]
"""Every file of a folder or an archive, by its path from the top."""
Said = list[tuple[PurePosixPath, str | None, str | None]]
"""What a folder says of its pictures: the label and the text of each."""


class Member(NamedTuple):
    """A file in an archive."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.info.filename}"

    def read_bytes(self) -> bytes:
        if self.info.file_size > LARGEST:
            raise Unreadable(f"is {self.info.file_size} bytes long; at most {LARGEST} are unpacked")
        if self.info.flag_bits & 1:
            raise Unreadable("is encrypted")
        try:
            return self.archive.read(self.info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise Unreadable(f"cannot be unpacked: {str(error).rstrip('.')}") from None


def folder(path: Path) -> Listing:
    """The pictures of a folder; a `train` and a `test` or `val` folder inside it are taken at their word."""
    found = sorted(file for file in path.rglob("*") if file.is_file())
    return _listing(str(path), {PurePosixPath(file.relative_to(path)): file for file in found})


def archive(path: Path) -> Listing:
    """The pictures of a .zip file, laid out as folders are; if all lies in one folder, that is the top."""
    try:
        opened = zipfile.ZipFile(path)
        members = [Member(opened, info) for info in opened.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise PellucidError(f"{path} cannot be read as zip ({str(error).rstrip('.')}); is it whole?") from None
    inside = {PurePosixPath(member.info.filename): member for member in members}
    added = {(), ("__MACOSX",), (".DS_Store",)}  # a nameless member, and what a Mac adds
    shown = {f: member for f, member in sorted(inside.items()) if f.parts[:1] not in added}
    tops = {f.parts[0] if len(f.parts) > 1 else "" for f in shown}
    if len(tops) == 1 and (top := tops.pop()):
        shown = {f.relative_to(top): member for f, member in shown.items()}
    return _listing(str(path), shown)


def _listing(name: str, inside: Inside) -> Listing:
    tops = {f.parts[0] for f in inside if len(f.parts) > 1}
    held = next((half for half in HELD if half in tops), HELD[0])
    divided = {"train", held} <= tops or tops == {"train"}
    if divided and not any(PurePosixPath(table) in inside for table in TABLES):
        others = Counter(f.parts[0] for f in inside if f.parts[0] not in ("train", held) and f.parts[0][0] != ".")
        rest = [unused(top, f"files: {n}", held if held in tops else None) for top, n in others.items()]
        return Listing(name, list(_rows(name, inside, "train")), [*_rows(name, inside, held), *rest])
    return Listing(name, list(_rows(name, inside, ".")))


def _rows(name: str, everything: Inside, half: str) -> Iterator[Row]:
    """Every file of a half, and every one that its table names; names are relative to the top."""
    inside = {f.relative_to(half): source for f, source in everything.items() if f.is_relative_to(half)}
    files = [f for f in inside if str(f) not in TABLES and not any(part.startswith(".") for part in f.parts)]
    table = next((PurePosixPath(t) for t in TABLES if PurePosixPath(t) in inside), None)
    told = table is not None
    said: Said = (
        _said_by(f"{name}/{half}/{table}".replace("/./", "/"), inside[table])
        if table is not None
        else [(f, f.parts[0] if len(f.parts) > 1 else None, None) for f in files]
    )
    named = {f for f, _, _ in said}
    for f, label, text in [*said, *((f, None, None) for f in files if f not in named)]:
        yield Row(str(PurePosixPath(half) / f), _source(inside, f, told and f not in named), label, text)


def _source(inside: Inside, file: PurePosixPath, unnamed: bool) -> Readable | Unreadable:
    if file.is_absolute() or ".." in file.parts:
        return Unreadable("lies outside the folder")
    if file.suffix.lower() not in SUFFIXES:
        return Unreadable("is not a PNG, JPEG, WebP, BMP or GIF picture")
    if unnamed:
        return Unreadable("is not named in the metadata")
    return inside.get(file, Unreadable("is not there"))


def _said_by(name: str, table: Readable) -> Said:
    csvs = name.endswith(".csv")
    try:
        text = table.read_bytes().decode("utf-8-sig")
        lines = list(csv.DictReader(io.StringIO(text, newline=""), restkey="") if csvs else _json_lines(text))
    except (csv.Error, ValueError, RecursionError, OSError, Unreadable) as error:
        kind = name.rpartition(".")[2]
        raise PellucidError(f"{name} cannot be read ({error}); expected {kind} in UTF-8.") from None
    if not all(isinstance(line, dict) and isinstance(line.get("file_name"), str) for line in lines):
        raise PellucidError(
            f"{name} has a line without file_name; expected columns file_name, and label or text or both."
        )
    columns = list(dict.fromkeys(column for line in lines for column in line if column))
    label, caption = _column(columns, LABEL), _column(columns, TEXT)
    if label is caption is None and len(columns) > 1:
        raise PellucidError(
            f"{name} has columns {', '.join(columns)}, of which none is known; "
            f"name labels {LABEL[0]} and texts {TEXT[0]}, or remove the others."
        )
    return [
        (PurePosixPath(line["file_name"]), _word(line.get(label)), _word(said))
        for line in lines
        for said in each(line.get(caption))
    ]


def _column(columns: Sequence[str], names: tuple[str, ...]) -> str | None:
    """The first of the names that is among the columns."""
    return next((name for name in names if name in columns), None)


def _json_lines(text: str) -> Iterator[Any]:
    return (json.loads(line) for line in text.split("\n") if line.strip())  # JSON allows other ends of lines in texts


def _word(value: object) -> str | None:
    return None if value in (None, "", []) else str(value)
