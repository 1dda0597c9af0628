"""Data of any source as one `Dataset`: `load("digits")`, `load("moons")`, `load("path/to/pictures")`.

Toys have a known density, the digits come with scikit-learn; all else is the user's own.
"""

from pathlib import Path

from ..errors import PellucidError, unknown
from . import toys
from .arrays import npz
from .dataset import Dataset, Options, Progress, Skipped, Split, decode, encode, hold_out
from .digits import digits
from .folders import folder
from .hub import hub, parquet

__all__ = ["Dataset", "Options", "Progress", "Skipped", "Split", "decode", "encode", "load", "toys"]


def load(
    source: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Read a data set.

    source    a toy's name, "digits", a folder of pictures, a .parquet file or a folder of them, an .npz, "hub:NAME"
    size      resize pictures to cover size x size pixels and cut out the middle; without it all must have one size
    channels  1 (grey) or 3 (colour); without it what the pictures have
    held_out  the fraction set apart where the source has no test samples of its own
    seed      which samples a toy draws, and which are held out; the digits are always divided alike
    progress  called as progress(done, total) while pictures are decoded

    A name comes before a folder of that name (write ./moons for the folder). Raises PellucidError, in one sentence, for
    whatever cannot be read; single bad pictures are left out and named in `.skipped`.
    """
    sound = size is None or 1 <= size <= 8000, channels in (None, 1, 3), 0 <= held_out < 1, seed >= 0
    if not all(sound):
        got = f"size={size}, channels={channels}, held_out={held_out}, seed={seed}"
        raise PellucidError(f"got {got}; expected size 1 to 8000, channels 1 or 3, held_out in [0, 1), seed from 0 on.")
    data = _read(str(source), Options(size, channels, held_out, seed, progress))
    wanted = (channels or data.shape[0], *((size, size) if size else data.shape[1:]))
    if data.shape != wanted:
        raise PellucidError(
            f"{source} has samples of shape {data.shape}, not {wanted}; only picture files are converted."
        )
    return data


def _read(source: str, options: Options) -> Dataset:
    path = Path(source).expanduser()
    if source == "digits":
        return digits()
    if source.lower() in toys.registry.aliases:
        return _toy(source, options)
    if source.startswith("hub:"):
        return hub(source.removeprefix("hub:"), options)
    if path.suffix == ".npz" and path.is_file():
        return npz(path, options)
    if path.suffix == ".parquet" and path.is_file() or path.is_dir() and any(path.rglob("*.parquet")):
        return parquet(path, options)
    if path.is_dir():
        return folder(path, options)
    if path.exists():
        raise PellucidError(
            f"{source} is a single {path.suffix or 'file'}; expected a folder, a .parquet or an .npz file."
        )
    if path.suffix or len(path.parts) > 1:
        raise PellucidError(f"there is no {source}; expected a toy, digits, hub:NAME, or the path of a folder or file.")
    raise unknown("data", source, ["digits", *toys.registry.aliases])


def _toy(name: str, options: Options, n: int = 20_000) -> Dataset:
    points = Split(toys.registry.make(name).sample(n, options.seed))
    return Dataset(name, *hold_out(points, options.held_out, options.seed))
