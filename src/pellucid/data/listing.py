"""A source of pictures as a list of rows, and all of them decoded: into memory here, into a store in store.py.

A picture that cannot be read is left out and named; without test rows, a fraction of the pictures is held out.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from ..errors import PellucidError
from .dataset import Dataset, Options, Skipped, Split, hold_out
from .pictures import Row, Unreadable, read

HELD = ("test", "validation", "valid", "val")
"""What people call the half that is held out; the first that is there is taken."""
LABEL = ("label", "labels", "class", "fine_label", "category")
TEXT = ("text", "caption", "captions", "prompt", "description")
"""What people call the columns of labels and texts."""
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)
SHARE = 16  # rows that a thread takes at once: a thread for each small picture would cost more
AHEAD = 64  # shares that are decoded at a time


class Listing(NamedTuple):
    """The pictures of a source, yet to be decoded, and its classes where it declares them."""

    name: str
    train: Sequence[Row]
    test: Sequence[Row] = ()
    declared: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """Both halves, the training half first."""
        return [*self.train, *self.test]

    @property
    def classes(self) -> tuple[str, ...]:
        """Those declared, or the labels in order, numbers by value; a single one distinguishes nothing."""
        labels = {row.label for row in self.rows if row.label is not None}
        return self.declared or (tuple(sorted(labels, key=_by_value)) if len(labels) > 1 else ())


def _by_value(label: str) -> tuple[int, float, str]:
    return (0, float(label), label) if NUMBER.fullmatch(label) else (1, 0, label)


def each(said: object) -> Sequence[object]:
    """The captions of one picture, of which each makes a sample: a list of them, or one, or none."""
    return said if isinstance(said, list) and said else [said]


def unused(name: str, many: str, held: str | None) -> Row:
    """What is in neither half, and how much that is, as one row that is left out and says so."""
    other = f" and {held} is held out" if held else ""
    return Row(name, Unreadable(f"is not used ({many}), for train is trained on{other}"))


def gather(listing: Listing, options: Options) -> Dataset:
    """Decode all rows into a data set in memory."""
    pictures = list(alike(listing, decoded(listing, options)))
    skipped = left_out(listing, pictures)
    channels = options.channels or max((len(p) for p in pictures if not isinstance(p, str)), default=0)
    halves = []
    for half in halved(listing, [not isinstance(p, str) for p in pictures], skipped, options):
        own = [pictures[i] for i in half.x.tolist()] if half else []
        x = np.stack([np.broadcast_to(p, (channels, *p.shape[1:])) for p in own]) if half else None
        halves.append(half._replace(x=torch.from_numpy(x)) if half else None)
    train, test = halves
    assert train is not None
    return Dataset(listing.name, train, test, listing.classes, skipped)


def left_out(listing: Listing, found: Sequence[object]) -> tuple[Skipped, ...]:
    """The rows for which there is a reason in place of a picture."""
    return tuple(Skipped(row.name, why) for row, why in zip(listing.rows, found, strict=True) if isinstance(why, str))


def halved(
    listing: Listing, sound: Sequence[bool], skipped: Sequence[Skipped], options: Options
) -> tuple[Split, Split | None]:
    """The numbers of the sound rows in place of their pictures: those to train on, and those held out."""
    numbers = torch.tensor(sound, dtype=torch.bool).nonzero().flatten()
    first, second = numbers[numbers < len(listing.train)], numbers[numbers >= len(listing.train)]
    if not len(first):
        why = f"the first, {skipped[0].name}, {skipped[0].reason}" if skipped else "there is none"
        raise PellucidError(
            f"{listing.name} has no picture to train on ({why}); expected PNG, JPEG, WebP, BMP or GIF pictures."
        )
    train = _said(listing, first)
    return (train, _said(listing, second)) if len(second) else _held_out(listing, train, options)


def _held_out(listing: Listing, train: Split, options: Options) -> tuple[Split, Split | None]:
    """Some of the pictures set apart, each with all of its captions."""
    rows = listing.rows
    names = [rows[number].name for number in train.x.tolist()]
    firsts = {name: place for place, name in reversed([*enumerate(names)])}
    _, held = hold_out(train.take(torch.tensor(sorted(firsts.values()))), options.held_out, options.seed)
    if held is None:
        return train, None
    apart = {rows[number].name for number in held.x.tolist()}
    where = torch.tensor([name in apart for name in names])
    return train.take((~where).nonzero().flatten()), train.take(where.nonzero().flatten())


def _said(listing: Listing, numbers: torch.Tensor) -> Split:
    """What the source says of the rows of these numbers."""
    rows, place = listing.rows, {label: i for i, label in enumerate(listing.classes)}
    own = [rows[i] for i in numbers.tolist()]
    label = torch.tensor([place[row.label or ""] for row in own]) if place else None
    return Split(numbers, label, tuple(row.text or "" for row in own) if any(row.text for row in own) else None)


def decoded(listing: Listing, options: Options) -> Iterator[np.ndarray | str]:
    """For every row its picture, uint8 [c, h, w], or the reason why there is none."""
    rows, classes = listing.rows, set(listing.classes)

    def attempt(row: Row) -> np.ndarray | str:
        try:
            picture = read(row.source, options.size, options.channels)
        except Unreadable as why:
            return str(why)
        if classes and row.label not in classes:
            return "has no label, though others have" if row.label is None else f"has an unknown label, {row.label!r}"
        return picture

    shares = [rows[i : i + SHARE] for i in range(0, len(rows), SHARE)]
    done = 0
    with ThreadPoolExecutor() as pool:
        for i in range(0, len(shares), AHEAD):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what Pillow warns of is refused or mended here
                found = list(pool.map(lambda share: [attempt(row) for row in share], shares[i : i + AHEAD]))
            for pictures in found:
                yield from pictures
                done += len(pictures)
                if options.progress:
                    options.progress(done, len(rows))


def alike(listing: Listing, pictures: Iterable[np.ndarray | str]) -> Iterator[np.ndarray | str]:
    """The same pictures, refused as soon as two of them have not one size."""
    first: tuple[Row, np.ndarray] | None = None
    for row, picture in zip(listing.rows, pictures, strict=True):
        if not isinstance(picture, str):
            first = first or (row, picture)
            if picture.shape[1:] != first[1].shape[1:]:
                raise _unlike(first[0].name, first[1].shape[1:], row.name, picture.shape[1:])
        yield picture


def _unlike(one: str, size: tuple[int, ...], other: str, another: tuple[int, ...]) -> PellucidError:
    (h, w), (high, wide) = size, another
    return PellucidError(
        f"{one} is {w} x {h} pixels and {other} is {wide} x {high}, but a model draws one size; "
        f"give the size to which all are resized and cut, size={min(h, w, high, wide)} say."
    )
