"""What a name or a path means as data: a toy, the digits, arrays and stores at once; pictures as a list to decode."""

from pathlib import Path

from ..errors import PellucidError, unknown
from ..files import expanded
from . import store, toys
from .arrays import npz
from .dataset import Dataset, Options, Progress, Split, hold_out
from .digits import digits
from .folders import archive, folder
from .hub import hub, parquet
from .listing import Listing


def is_listed(path: Path) -> bool:
    """Whether what is at `path` is a list of pictures that are to be decoded."""
    if store.is_store(path):
        return False
    return path.is_dir() or path.is_file() and path.suffix.lower() in (".parquet", ".zip")


def options(size: int | None, channels: int | None, held_out: float, seed: int, progress: Progress | None) -> Options:
    """These, refused where they make no sense."""
    sound = size is None or 1 <= size <= 8000, channels in (None, 1, 3), 0 <= held_out < 1, seed >= 0
    if not all(sound):
        got = f"size={size}, channels={channels}, held_out={held_out}, seed={seed}"
        raise PellucidError(f"got {got}; expected size 1 to 8000, channels 1 or 3, held_out in [0, 1), seed from 0 on.")
    return Options(size, channels, held_out, seed, progress)


def as_asked(source: str, data: Dataset, options: Options) -> Dataset:
    """The data, refused if its samples are not of the size and channels asked for."""
    size = options.size
    wanted = (options.channels or data.shape[0], *((size, size) if size else data.shape[1:]))
    if data.shape != wanted:
        raise PellucidError(
            f"{source} has samples of shape {data.shape}, not {wanted}; only picture files are converted."
        )
    return data


def names() -> list[str]:
    """Those that come before a folder of that name."""
    return ["digits", *toys.registry.aliases]


def find(source: str, options: Options) -> Dataset | Listing:
    """What `source` means. Raises PellucidError, in one sentence, for what means nothing."""
    path = expanded(source)
    if source == "digits":
        return digits()
    if source.lower() in toys.registry.aliases:
        return _toy(source, options)
    if source.startswith("hub:"):
        return hub(source.removeprefix("hub:"))
    if path.suffix == ".npz" and path.is_file():
        return npz(path, options)
    if store.is_store(path):
        return store.open_(path)
    if is_listed(path):
        return listing(path)
    if path.exists():
        raise PellucidError(
            f"{source} is a single {path.suffix or 'file'}; expected a folder, a .zip, a .parquet or an .npz file."
        )
    if path.suffix or len(path.parts) > 1:
        raise PellucidError(f"there is no {source}; expected a toy, digits, hub:NAME, or the path of a folder or file.")
    raise unknown("data", source, names())


def listing(path: Path) -> Listing:
    """The pictures of a folder, an archive, or parquet files."""
    if path.suffix.lower() == ".zip" and path.is_file():
        return archive(path)
    if path.is_file() or any(path.rglob("*.parquet")):
        return parquet(path)
    return folder(path)


def listed(source: str) -> Listing:
    """The pictures of a source that has some to decode."""
    found = find(source, Options())
    if isinstance(found, Listing):
        return found
    raise PellucidError(f"{source} holds nothing that is decoded; expected a folder, .zip or .parquet of pictures.")


def _toy(name: str, options: Options, n: int = 20_000) -> Dataset:
    points = Split(toys.registry.make(name).sample(n, options.seed))
    return Dataset(name, *hold_out(points, options.held_out, options.seed))
