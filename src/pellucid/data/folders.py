"""Folders of pictures, in the layouts that torchvision and the datasets library read, and zip archives of such.

pictures/cat/1.png  pictures/dog/2.png        the first folder is the class
pictures/1.png  pictures/metadata.csv         columns file_name, and label or text or both; or metadata.jsonl
pictures/train/...  pictures/test/...         either of the above, twice, or train alone
"""

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import PellucidError
from .listing import Listing
from .pictures import SUFFIXES, Readable, Row, Unreadable

TABLES = ("metadata.csv", "metadata.jsonl")
LARGEST = 1 << 28  # bytes of one picture in an archive
Inside = Mapping[PurePosixPath, Readable]
"""Every file of a folder or an archive, by its path from the top."""
Said = dict[PurePosixPath, tuple[str | None, str | None]]
"""What a folder says of each picture: its label and its text."""


class Member(NamedTuple):
    """A file in an archive."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

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
    """The pictures of a folder; a `train` and a `test` folder inside it are taken at their word."""
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
    divided = {"train", "test"} <= tops or tops == {"train"}
    if divided and not any(PurePosixPath(table) in inside for table in TABLES):
        return Listing(name, list(_rows(name, inside, "train")), list(_rows(name, inside, "test")))
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
        else {f: (f.parts[0] if len(f.parts) > 1 else None, None) for f in files}
    )
    for f in [*said, *(f for f in files if f not in said)]:
        yield Row(str(PurePosixPath(half) / f), _source(inside, f, told and f not in said), *said.get(f, (None, None)))


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
        lines = list(csv.DictReader(io.StringIO(text, newline="")) if csvs else _json_lines(text))
    except (csv.Error, ValueError, RecursionError, OSError, Unreadable) as error:
        kind = name.rpartition(".")[2]
        raise PellucidError(f"{name} cannot be read ({error}); expected {kind} in UTF-8.") from None
    if not all(isinstance(line, dict) and isinstance(line.get("file_name"), str) for line in lines):
        raise PellucidError(
            f"{name} has a line without file_name; expected columns file_name, and label or text or both."
        )
    return {PurePosixPath(line["file_name"]): (_word(line.get("label")), _word(line.get("text"))) for line in lines}


def _json_lines(text: str) -> Iterator[Any]:
    return (json.loads(line) for line in text.splitlines() if line.strip())


def _word(value: object) -> str | None:
    return None if value is None or value == "" else str(value)
