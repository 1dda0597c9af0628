"""How samples are shown: pictures as they are, points of the plane as a scatter, and all else as numbers alone."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import PellucidError
from ..files import check_writable


def usual(shape: Sequence[int], labels: tuple[int, ...]) -> int:
    """How many to draw where nobody says: eight pictures of each class, or points enough to see a density."""
    return (8 * len(labels) if 2 <= len(labels) <= 32 else 64) if is_picture(shape) else 4000


def is_picture(shape: Sequence[int]) -> bool:
    """Whether samples of this shape can be shown: grey or colour, two dimensions in space."""
    return len(shape) == 3 and shape[0] in (1, 3)


def is_shown(shape: Sequence[int]) -> bool:
    """Whether samples of this shape can be one picture together: pictures, or points in the plane."""
    return is_picture(shape) or tuple(shape) == (2,)


def check_shown(shape: Sequence[int]) -> None:
    """Refuse to show samples of which there is no picture."""
    if not is_shown(shape):
        raise _invisible(shape)


def _invisible(shape: Sequence[int]) -> PellucidError:
    return PellucidError(f"samples of shape {tuple(shape)} are no pictures; write them to an .npz.")


def check(out: Path, shape: Sequence[int]) -> None:
    """Refuse, before anything is drawn, a file that cannot be written or could not show samples of this shape."""
    suffix = out.suffix.lower()
    if not out.name or suffix not in ("", ".png", ".npz"):
        raise PellucidError(f"cannot write {out}; expected a .png, an .npz or a folder.")
    if suffix == "" and not is_picture(shape):
        raise _invisible(shape)
    if out.exists() and not (out.is_file() if suffix else out.is_dir()):
        raise PellucidError(f"cannot write {out}: it is no {'file' if suffix else 'folder'}; choose another place.")
    if suffix == ".png":
        check_shown(shape)
    check_writable(out if suffix else out / "0.png")
