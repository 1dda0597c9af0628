"""From files and bytes to one tensor of pictures; what cannot be read is named and left out.

A picture is decoded, turned the way its camera was held, laid on white where it is transparent, resized and cut to a
square if a size is asked for, and kept in 8 bits. Only formats that are safe to open are opened.
"""

import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import PellucidError
from .dataset import Dataset, Options, Skipped, Split, hold_out

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
MAX_PIXELS = 64_000_000


class Unreadable(Exception):
    """Its text is why a picture is left out."""


class Row(NamedTuple):
    """A picture yet to be decoded, and what its source says of it."""

    name: str
    source: Path | bytes | Unreadable
    label: str | None = None
    text: str | None = None


def gather(
    name: str, train: Sequence[Row], test: Sequence[Row], options: Options, classes: tuple[str, ...] = ()
) -> Dataset:
    """Decode all rows into a data set. Without test rows, a fraction of the training pictures is held out.

    The classes, if not given, are the labels in order, numbers by value; a single one distinguishes nothing.
    """
    rows = [*train, *test]
    labels = {row.label for row in rows if row.label is not None}
    classes = classes or (tuple(sorted(labels, key=_by_value)) if len(labels) > 1 else ())
    pictures = _read_all(rows, set(classes), options)
    skipped = tuple(Skipped(row.name, why) for row, why in zip(rows, pictures, strict=True) if isinstance(why, str))
    channels = options.channels or max((len(p) for p in pictures if not isinstance(p, str)), default=0)
    first = _stack(train, pictures[: len(train)], channels, classes)
    if first is None:
        why = f"the first, {skipped[0].name}, {skipped[0].reason}" if skipped else "there is none"
        raise PellucidError(
            f"{name} has no picture to train on ({why}); expected PNG, JPEG, WebP, BMP or GIF pictures."
        )
    second = _stack(test, pictures[len(train) :], channels, classes)
    if second is None:
        first, second = hold_out(first, options.held_out, options.seed)
    return Dataset(name, first, second, classes, skipped)


def _by_value(label: str) -> tuple[int, int, str]:
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)


def _stack(
    rows: Sequence[Row], pictures: Sequence[np.ndarray | str], channels: int, classes: tuple[str, ...]
) -> Split | None:
    """The pictures that could be read, grey ones repeated where others have colour."""
    good = [(row, p) for row, p in zip(rows, pictures, strict=True) if not isinstance(p, str)]
    if not good:
        return None
    x = np.stack([np.broadcast_to(p, (channels, *p.shape[1:])) for _, p in good])
    number = {label: i for i, label in enumerate(classes)}
    label = torch.tensor([number[row.label or ""] for row, _ in good]) if classes else None
    text = tuple(row.text or "" for row, _ in good) if any(row.text for row, _ in good) else None
    return Split(torch.from_numpy(x), label, text)


def _read_all(rows: Sequence[Row], classes: set[str], options: Options) -> list[np.ndarray | str]:
    """For every row its picture, uint8 [c, h, w], or the reason why there is none."""

    def attempt(row: Row) -> np.ndarray | str:
        try:
            picture = read(row.source, options.size, options.channels)
        except Unreadable as why:
            return str(why)
        if classes and row.label not in classes:
            return "has no label, though others have" if row.label is None else f"has an unknown label, {row.label!r}"
        return picture

    parts = [rows[i : i + 16] for i in range(0, len(rows), 16)]  # a thread for each small picture would cost more
    found: list[np.ndarray | str] = []
    sizes: dict[tuple[int, ...], str] = {}  # each size, and who has it
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # what Pillow warns of is refused or mended here
        for part, pictures in zip(parts, pool.map(lambda part: [attempt(row) for row in part], parts), strict=True):
            found += pictures
            for row, picture in zip(part, pictures, strict=True):
                if not isinstance(picture, str):
                    sizes.setdefault(picture.shape[1:], row.name)
            if len(sizes) > 1:
                pool.shutdown(wait=False, cancel_futures=True)
                raise _unlike(sizes)
            if options.progress:
                options.progress(len(found), len(rows))
    return found


def _unlike(sizes: dict[tuple[int, ...], str]) -> PellucidError:
    ((h, w), one), ((high, wide), other) = list(sizes.items())[:2]
    return PellucidError(
        f"{one} is {w} x {h} pixels and {other} is {wide} x {high}, but a model draws one size; "
        f"give the size to which all are resized and cut, size={min(h, w, high, wide)} say."
    )


def read(source: Path | bytes | Unreadable, size: int | None = None, channels: int | None = None) -> np.ndarray:
    """One picture as uint8 [c, h, w]; c is 1 where it is grey, else 3, unless channels says. Raises Unreadable."""
    try:
        if isinstance(source, Unreadable):
            raise source
        image = _open(source if isinstance(source, bytes) else source.read_bytes(), size)
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("is not there") from None
    except UnidentifiedImageError:
        raise Unreadable("is not a PNG, JPEG, WebP, BMP or GIF picture") from None
    except Exception as error:  # a decoder that meets damaged bytes raises whatever it likes
        raise Unreadable(f"cannot be decoded: {str(error).rstrip('.') or type(error).__name__}") from None
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    pixels = np.array(image)  # [h, w] or [h, w, 3]
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(data: bytes, size: int | None) -> Image.Image:
    """The first frame, upright, in mode L or RGB."""
    if not data:
        raise Unreadable("is empty")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Unreadable(f"has {image.width} x {image.height} pixels; at most 64 million are opened")
        if size is not None:
            image.draft(None, (2 * size, 2 * size))  # a JPEG can be decoded at a fraction of its size, still above ours
        return _plain(ImageOps.exif_transpose(image))


def _plain(image: Image.Image) -> Image.Image:
    """Any mode to L or RGB in 8 bits, transparency laid on white."""
    if image.mode.startswith("I"):  # 16 bits: 65535 is white
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    plain = "L" if image.mode in {"1", "L", "LA", "La"} else "RGB"
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image.convert(plain)
