"""Data of any source as one `Dataset`: `load("digits")`, `load("moons")`, `load("path/to/pictures")`.

Toys have a known density, the digits come with scikit-learn; all else is the user's own. `load` decodes pictures into
memory; `packed` decodes them once, into a store on the disk, and finds it there the next time.
"""

from contextlib import nullcontext
from pathlib import Path

from .. import files
from ..errors import PellucidError
from . import augment, sources, store, toys
from .dataset import Dataset, Options, Progress, Skipped, Split, decode, encode
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
    options = sources.options(size, channels, held_out, seed, progress)
    found = sources.find(str(source), options)
    return sources.as_asked(str(source), gather(found, options) if isinstance(found, Listing) else found, options)


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
    options = sources.options(size, channels, held_out, seed, progress)
    path = files.expanded(source)
    if not sources.is_listed(path) or str(source) in sources.names():
        return load(source, size=size, channels=channels, held_out=held_out, seed=seed, progress=progress)
    place = store.place(path, options)
    try:
        found = store.kept(place)
        if found is None:
            with store.turn(place):  # who comes later finds it packed
                found = store.kept(place) or store.pack(sources.listing(path), options, place)
    except OSError as error:
        cache, at = files.cache("data"), Path(str(error.filename))
        if error.errno not in files.MISTAKEN or not (cache.is_relative_to(at) or at.is_relative_to(cache)):
            raise
        raise PellucidError(f"{place.parent} cannot be written to; say where stores may be: PELLUCID_CACHE.") from None
    return sources.as_asked(str(source), found, options)


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
    options = sources.options(size, channels, held_out, seed, progress)
    found = sources.listed(str(source))
    if folder is None and str(source).startswith("hub:"):
        raise PellucidError(f"{source} is in the cache of the hub already; say where its store is to be: --out FOLDER.")
    if folder is not None:
        files.check_replaceable(folder, "store", store.NAMES, store.MANIFEST)
    place = store.place(files.expanded(source), options) if folder is None else folder
    with store.turn(place) if folder is None else nullcontext():
        store.pack(found, options, place)
    return place


def check(source: str | Path, progress: Progress | None = None) -> tuple[int, list[Skipped]]:
    """(how many there are, which of them are damaged): the pictures of a source, or the files of a store."""
    if store.is_store(Path(source)):
        about = store.manifest(Path(source))
        return len(about["files"]), list(store.damaged(Path(source)))
    found = sources.listed(str(source))
    reasons = [why if isinstance(why, str) else None for why in decoded(found, Options(progress=progress))]
    return len(reasons), list(left_out(found, reasons))
