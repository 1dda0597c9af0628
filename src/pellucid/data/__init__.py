"""Data of any source as one `Dataset`: `load("digits")`, `load("moons")`, `load("path/to/pictures")`.

Toys have a known density, the digits come with scikit-learn; all else is the user's own. `load` decodes pictures into
memory; `packed` decodes them once, into a store on the disk, and finds it there the next time.
"""

from pathlib import Path

from .. import files
from ..errors import PellucidError, unknown
from . import augment, store, toys
from .arrays import npz
from .dataset import Dataset, Options, Progress, Skipped, Split, decode, encode, hold_out
from .digits import digits
from .folders import archive, folder
from .hub import hub, parquet
from .listing import Listing, decoded, gather, left_out

__all__ = ["Dataset", "Options", "Progress", "Skipped", "Split"]
__all__ += ["augment", "check", "decode", "encode", "load", "pack", "packed", "store", "toys"]


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

    source    a toy's name, "digits", a folder or .zip of pictures, a .parquet file or a folder of them, an .npz,
              "hub:NAME", or a store
    size      resize pictures to cover size x size pixels and cut out the middle; without it all must have one size
    channels  1 (grey) or 3 (colour); without it what the pictures have
    held_out  the fraction set apart where the source has no test samples of its own
    seed      which samples a toy draws, and which are held out; the digits are always divided alike
    progress  called as progress(done, total) while pictures are decoded

    A name comes before a folder of that name (write ./moons for the folder). Raises PellucidError, in one sentence, for
    whatever cannot be read; single bad pictures are left out and named in `.skipped`.
    """
    options = _options(size, channels, held_out, seed, progress)
    found = _read(str(source), options)
    return _as_asked(str(source), gather(found, options) if isinstance(found, Listing) else found, options)


def packed(
    source: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """The same as `load`, by way of a store in the cache: pictures are decoded once, and may exceed memory.

    A source that changes is packed anew; what the hub has, the hub keeps in its own cache.
    """
    options = _options(size, channels, held_out, seed, progress)
    path = Path(source).expanduser()
    if not is_listed(path) or str(source) in _names():
        return load(source, size=size, channels=channels, held_out=held_out, seed=seed, progress=progress)
    place = store.place(path, options)
    try:
        with files.in_turn(place.parent):  # who comes later finds it packed
            found = store.open_(place) if store.is_store(place) else store.pack(_listing(path), options, place)
    except OSError as error:
        if error.errno not in files.MISTAKEN:
            raise
        raise PellucidError(f"{place.parent} cannot be written to; say where stores may be: PELLUCID_CACHE.") from None
    return _as_asked(str(source), found, options)


def pack(
    source: str | Path,
    folder: Path | None = None,
    *,
    size: int | None = None,
    channels: int | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Pack pictures into a store at `folder` (or into the cache, where `packed` finds it); returns its place."""
    options = _options(size, channels, held_out, seed, progress)
    found = _listed(str(source))
    if folder is None and str(source).startswith("hub:"):
        raise PellucidError(f"{source} is in the cache of the hub already; say where its store is to be: --out FOLDER.")
    if folder is not None and folder.exists() and not store.is_store(folder):
        raise PellucidError(f"{folder} is there and is no store; take another place.")
    place = store.place(Path(source).expanduser(), options) if folder is None else folder
    store.pack(found, options, place)
    return place


def check(source: str | Path, progress: Progress | None = None) -> tuple[int, list[Skipped]]:
    """(how many there are, which of them are damaged): the pictures of a source, or the files of a store."""
    if store.is_store(Path(source)):
        about = store.manifest(Path(source))
        return len(about["files"]), list(store.damaged(Path(source)))
    found = _listed(str(source))
    reasons = [why if isinstance(why, str) else None for why in decoded(found, Options(progress=progress))]
    return len(reasons), list(left_out(found, reasons))


def is_listed(path: Path) -> bool:
    """Whether what is at `path` is a list of pictures that are to be decoded."""
    if store.is_store(path):
        return False
    return path.is_dir() or path.is_file() and path.suffix.lower() in (".parquet", ".zip")


def _options(size: int | None, channels: int | None, held_out: float, seed: int, progress: Progress | None) -> Options:
    sound = size is None or 1 <= size <= 8000, channels in (None, 1, 3), 0 <= held_out < 1, seed >= 0
    if not all(sound):
        got = f"size={size}, channels={channels}, held_out={held_out}, seed={seed}"
        raise PellucidError(f"got {got}; expected size 1 to 8000, channels 1 or 3, held_out in [0, 1), seed from 0 on.")
    return Options(size, channels, held_out, seed, progress)


def _as_asked(source: str, data: Dataset, options: Options) -> Dataset:
    """The data, refused if its samples are not of the size and channels asked for."""
    size = options.size
    wanted = (options.channels or data.shape[0], *((size, size) if size else data.shape[1:]))
    if data.shape != wanted:
        raise PellucidError(
            f"{source} has samples of shape {data.shape}, not {wanted}; only picture files are converted."
        )
    return data


def _names() -> list[str]:
    return ["digits", *toys.registry.aliases]


def _read(source: str, options: Options) -> Dataset | Listing:
    path = Path(source).expanduser()
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
        return _listing(path)
    if path.exists():
        raise PellucidError(
            f"{source} is a single {path.suffix or 'file'}; expected a folder, a .zip, a .parquet or an .npz file."
        )
    if path.suffix or len(path.parts) > 1:
        raise PellucidError(f"there is no {source}; expected a toy, digits, hub:NAME, or the path of a folder or file.")
    raise unknown("data", source, _names())


def _listing(path: Path) -> Listing:
    if path.suffix.lower() == ".zip" and path.is_file():
        return archive(path)
    if path.is_file() or any(path.rglob("*.parquet")):
        return parquet(path)
    return folder(path)


def _listed(source: str) -> Listing:
    """The pictures of a source that has some to decode."""
    found = _read(source, Options())
    if isinstance(found, Listing):
        return found
    raise PellucidError(f"{source} holds nothing that is decoded; expected a folder, .zip or .parquet of pictures.")


def _toy(name: str, options: Options, n: int = 20_000) -> Dataset:
    points = Split(toys.registry.make(name).sample(n, options.seed))
    return Dataset(name, *hold_out(points, options.held_out, options.seed))
