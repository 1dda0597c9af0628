"""Pictures in and out of files: a batch as one grid, the words inside a PNG, an animation.

A picture is uint8 [c, h, w] with c = 1 or 3, a batch of them [n, c, h, w].
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from .errors import PellucidError
from .files import whole

Picture = np.ndarray
"""uint8 [h, w] or [h, w, 3]: what PIL reads."""
LINE = 2  # pixels between the pictures of a grid
LEGIBLE = 64  # pixels: smaller pictures are enlarged to at least this side in grids and strips


def tile(x: Tensor, columns: int | None = None, legible: int = LEGIBLE) -> Picture:
    """A batch as one picture, row by row, on white; small ones are enlarged by a whole factor, pixel for pixel."""
    n, channels, height, width = x.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    zoom = max(1, -(-legible // max(height, width)))
    cells = np.repeat(np.repeat(x.cpu().numpy(), zoom, axis=2), zoom, axis=3).transpose(0, 2, 3, 1)
    step_down, step_right = height * zoom + LINE, width * zoom + LINE
    sheet = np.full((rows * step_down + LINE, columns * step_right + LINE, channels), 255, np.uint8)
    for i, cell in enumerate(cells):
        top, left = LINE + i // columns * step_down, LINE + i % columns * step_right
        sheet[top : top + height * zoom, left : left + width * zoom] = cell
    return sheet[..., 0] if channels == 1 else sheet


def plain(x: Tensor) -> Picture:
    """One picture [c, h, w] as it is."""
    return tile(x[None], legible=1)[LINE:-LINE, LINE:-LINE]


def scatter(points: Tensor, side: int = 480, reach: float | None = None) -> Picture:
    """Points [n, 2] as a picture of the square [-reach, reach]^2, y up: the more points in a pixel, the darker."""
    xy = points.detach().cpu().double().numpy()
    xy = xy[np.isfinite(xy).all(1)]  # what lies nowhere is not shown
    reach = reach or (1.1 * float(np.quantile(np.abs(xy), 0.999)) if len(xy) else 1.0)
    counts, _, _ = np.histogram2d(-xy[:, 1], xy[:, 0], bins=side // 3, range=[[-reach, reach]] * 2)
    ink = np.sqrt(counts / max(counts.max(), 1))[..., None]
    colour = 255 - ink * (255 - np.array([24, 60, 140]))
    return np.repeat(np.repeat(colour.round().astype(np.uint8), 3, axis=0), 3, axis=1)


def save_png(path: str | Path, picture: Picture, words: Mapping[str, str] | None = None) -> None:
    """Write a PNG with `words` as its text chunks."""
    chunks = PngInfo()
    for key, text in (words or {}).items():
        chunks.add_text(key, text)
    with whole(Path(path)) as temporary:
        Image.fromarray(picture).save(temporary, "PNG", pnginfo=chunks)


def save_gif(path: str | Path, frames: list[Picture], milliseconds: int = 80) -> None:
    """Write an animation that loops, resting a second on its last frame."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    durations = [milliseconds] * len(rest) + [1000]
    with whole(Path(path)) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)


def read_words(path: Path) -> dict[str, str]:
    """The text chunks of a PNG."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            return dict(image.text)  # type: ignore[attr-defined]
    except FileNotFoundError:
        raise PellucidError(f"there is no file {path}; expected a PNG.") from None
    except (OSError, SyntaxError, ValueError):
        raise PellucidError(f"{path} is not a PNG that can be read; expected a picture written by pellucid.") from None
