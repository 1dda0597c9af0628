"""The packed store: pictures decoded once, in bytes, and read as memory ever after.

    NAME/  store.json  train.npy  train.label.npy  train.text.json  test.npy ...

The arrays are uint8 [n, c, h, w], mapped into memory: the system reads what is asked for and forgets it when it needs
the room, so that a set may be larger than memory. A store is written beside its place and renamed. store.json holds the
hash of every file and last its own; opening a store checks its sizes, `damaged` all of it.

What is trained on is packed by itself, once, under a key of everything that decides its bytes: the files of the source
with their sizes and times, and the options. So a changed source is another store.
"""

import hashlib
import json
import math
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import files
from ..errors import PellucidError
from .dataset import Dataset, Options, Skipped, Split
from .listing import Listing, alike, decoded, halved, left_out

FORMAT = 1
READING = 3  # rises when the same files are read otherwise, so that what is in the cache is packed anew
MANIFEST = "store.json"
WRONG = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
LEFT = re.compile(r"-\d+(-gone)?$")  # ends the name of what is being written or removed
NAMES = rf"{re.escape(MANIFEST)}|(train|test)(\.label)?\.npy|(train|test)\.text\.json"  # of the files in a store
TOLD = 1000  # pictures left out that a store remembers by name


def pack(listing: Listing, options: Options, folder: Path) -> Dataset:
    """Decode all rows into a store at `folder`, and open it; only a few pictures are in memory at a time."""
    with files.replaced(folder, "store", NAMES) as partial:
        loose = Loose(partial / "loose", alike(listing, decoded(listing, options)))
        skipped = left_out(listing, loose.found)
        halves = halved(listing, [not isinstance(shape, str) for shape in loose.found], skipped, options)
        counts, shape = np.zeros(256, np.int64), loose.shape(options.channels)
        for name, half in zip(("train", "test"), halves, strict=True):
            if half is not None:
                seen = _write(partial, name, half, shape, loose)
                counts += seen if name == "train" else 0
        loose.path.unlink()
        about = {"format": FORMAT, "name": listing.name, "classes": listing.classes, "counts": counts.tolist()}
        about |= {"left_out": len(skipped), "skipped": skipped[:TOLD]}
        about["files"] = {f.name: {"bytes": f.stat().st_size, "sha256": _hash(f)} for f in sorted(partial.iterdir())}
        (partial / MANIFEST).write_bytes(files.seal(about))
    return open_(folder)


class Loose:
    """Pictures one behind the other in a file, grey ones among them, before it is known which half each belongs to."""

    def __init__(self, path: Path, pictures: Iterable[np.ndarray | str]) -> None:
        self.path = path
        self.found: list[tuple[int, ...] | str] = []  # the shape of each, or the reason why there is none
        with open(path, "wb") as file:
            for picture in pictures:
                self.found.append(picture if isinstance(picture, str) else picture.shape)
                file.write(b"" if isinstance(picture, str) else picture.tobytes())
        sizes = [0 if isinstance(shape, str) else math.prod(shape) for shape in self.found]
        self.starts = [0, *accumulate(sizes)]

    def shape(self, channels: int | None) -> tuple[int, ...]:
        """In which all of them fit."""
        shapes = [shape for shape in self.found if not isinstance(shape, str)]
        return max(((channels or c, *sides) for c, *sides in shapes), default=())

    def read(self, rows: list[int], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Those of some rows, in one shape."""
        held = np.memmap(self.path, np.uint8, "r") if self.starts[-1] else np.empty(0, np.uint8)
        for row in rows:
            own = self.found[row]
            assert not isinstance(own, str)
            yield np.broadcast_to(held[self.starts[row] : self.starts[row + 1]].reshape(own), shape)


def _write(folder: Path, name: str, half: Split, shape: tuple[int, ...], loose: Loose) -> np.ndarray:
    """Write the rows of a half, with their labels and texts; how often each byte is among them."""
    counts = np.zeros(256, np.int64)
    with open(folder / f"{name}.npy", "wb") as file:
        head = {"descr": "|u1", "fortran_order": False, "shape": (len(half.x), *shape)}
        np.lib.format.write_array_header_1_0(file, head)
        for picture in loose.read(half.x.tolist(), shape):
            counts += np.bincount(picture.ravel(), minlength=256)
            file.write(picture.tobytes())
    if half.label is not None:
        np.save(folder / f"{name}.label.npy", half.label.numpy())
    if half.text is not None:
        (folder / f"{name}.text.json").write_text(json.dumps(half.text, ensure_ascii=False), "utf-8")
    return counts


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_store(path: Path) -> bool:
    """Whether there is a store at `path`."""
    return (path / MANIFEST).is_file()


def manifest(folder: Path) -> dict[str, Any]:
    """What a store says of itself."""
    try:
        data = (folder / MANIFEST).read_bytes()
        about: dict[str, Any] = json.loads(data)
        if about["format"] != FORMAT:
            raise PellucidError(
                f"{folder} has store format {about['format']}, this pellucid reads {FORMAT}; pack it again."
            )
        if not files.is_sealed(data):
            raise ValueError(f"{MANIFEST} does not match its hash")
    except PellucidError:
        raise
    except WRONG as error:
        raise _broken(folder, error) from None
    return about


def open_(folder: Path) -> Dataset:
    """The data set of a store, its pictures mapped into memory, not read."""
    about = manifest(folder)
    try:
        for name, file in about["files"].items():
            if (folder / name).stat().st_size != file["bytes"]:
                raise ValueError(f"{name} is not as long as it was")
        halves = [_half(folder, name, about["files"]) for name in ("train", "test")]
        skipped = tuple(Skipped(*map(str, pair)) for pair in about["skipped"])
    except WRONG as error:
        raise _broken(folder, error) from None
    assert halves[0] is not None
    return Dataset(
        about["name"], halves[0], halves[1], tuple(about["classes"]), skipped, tuple(map(int, about["counts"]))
    )


def kept(folder: Path) -> Dataset | None:
    """The store at `folder`, if there is one that can be opened."""
    try:
        return open_(folder) if is_store(folder) else None
    except PellucidError:
        return None


def _half(folder: Path, name: str, held: dict[str, Any]) -> Split | None:
    if f"{name}.npy" not in held:
        return None
    label = np.load(folder / f"{name}.label.npy", allow_pickle=False) if f"{name}.label.npy" in held else None
    text = f"{name}.text.json"
    return Split(
        mapped(folder / f"{name}.npy"),
        None if label is None else torch.from_numpy(label),
        tuple(json.loads((folder / text).read_text("utf-8"))) if text in held else None,
    )


def mapped(path: Path) -> Tensor:
    """An array in a .npy file as a tensor that nobody may write to; it is read when it is looked at."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it must not be written to
        return torch.from_numpy(array)


def _broken(folder: Path, error: Exception) -> PellucidError:
    why = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
    return PellucidError(f"the store {folder} is damaged ({why}); remove it, and pack it again.")


def damaged(folder: Path) -> Iterator[Skipped]:
    """The files of a store that are not what was written, byte for byte."""
    for name, file in manifest(folder)["files"].items():
        if not (folder / name).is_file():
            yield Skipped(name, "is not there")
        elif _hash(folder / name) != file["sha256"]:
            yield Skipped(name, "does not match its hash")


@contextmanager
def turn(place: Path) -> Iterator[None]:
    """Inside, no other process packs the store at `place`, in the cache. What was left half packed is cleared away."""
    locks = place.parent / ".locks"
    with files.in_turn(locks / place.name, f"another process packs {place}: this one waits for it.") as sure:
        for left in place.parent.glob(f"{files.PARTIAL}*") if sure else ():
            name = LEFT.sub("", left.name.removeprefix(files.PARTIAL))
            if name == place.name or files.is_free(locks / name):
                shutil.rmtree(left, ignore_errors=True)
        yield


def place(source: Path, options: Options) -> Path:
    """Where the store of a source is kept: its name, and a key of all that decides its bytes."""
    inside = [source] if source.is_file() else sorted(file for file in source.rglob("*") if file.is_file())
    digest = hashlib.sha256(repr((FORMAT, READING, str(source.resolve()), options._replace(progress=None))).encode())
    for file in inside:
        state = file.stat()
        line = f"{file.relative_to(source)}\0{state.st_size} {state.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return files.cache("data") / f"{source.resolve().stem}-{digest.hexdigest()[:16]}"
