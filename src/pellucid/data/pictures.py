"""From a file, or its bytes, to a picture; what cannot be read says why.

A picture is decoded, turned the way its camera was held, laid on white where it is transparent, resized and cut to a
square if a size is asked for, and kept in 8 bits. Only formats that are safe to open are opened.
"""

import errno
import io
import os
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import PellucidError
from ..files import MISTAKEN

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
MAX_PIXELS = 64_000_000
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}  # no file has that name


class Unreadable(Exception):
    """Its text is why a picture is left out."""


class Readable(Protocol):
    """Where bytes are: a path, or a place in an archive."""

    def read_bytes(self) -> bytes: ...


class Row(NamedTuple):
    """A picture yet to be decoded, and what its source says of it."""

    name: str
    source: Readable | bytes | Unreadable
    label: str | None = None
    text: str | None = None


def read(source: Readable | bytes | Unreadable, size: int | None = None, channels: int | None = None) -> np.ndarray:
    """One picture as uint8 [c, h, w]; c is 1 where it is grey, else 3, unless channels says. Raises Unreadable.

    That is for what is wrong with the picture itself, which may be left out. A picture that may not be read is a
    PellucidError, and one that the disk does not give an OSError.
    """
    try:
        if isinstance(source, Unreadable):
            raise source
        image = _open(source if isinstance(source, bytes) else source.read_bytes(), size)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable("is not a PNG, JPEG, WebP, BMP or GIF picture") from None
    except Exception as error:  # a decoder that meets damaged bytes raises whatever it likes
        number = error.errno if isinstance(error, OSError) else None
        if number in ABSENT:
            raise Unreadable("is not there") from None
        if number not in (None, errno.EINVAL):  # a damaged archive asks for an invalid place in itself
            raise _withheld(str(source), number) from None
        raise Unreadable(f"cannot be decoded: {str(error).rstrip('.') or type(error).__name__}") from None
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    pixels = np.array(image)  # [h, w] or [h, w, 3]
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _withheld(name: str, number: int) -> Exception:
    """The picture may be whole, yet the system does not give it, and says why by this number."""
    why = os.strerror(number)
    if number in MISTAKEN:
        return PellucidError(f"cannot read {name}: {why.lower()}; let it be read, or take it away.")
    return OSError(number, why, name)


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
