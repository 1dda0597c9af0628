"""Files that appear whole or not at all: each is written beside its place and then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import PellucidError


def check_writable(path: Path) -> None:
    """Refuse a path that could not be written, before the work for it begins."""
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() and path.suffix:
        raise PellucidError(f"cannot write {path}: it is a folder; choose another place.")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise PellucidError(f"cannot write {path}: {parent} cannot be written to; choose another place.")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary place beside `path`; what is written there is moved to `path` at the end, or removed on failure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; at the end its files are moved into `path`, on failure it is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        yield temporary
        path.mkdir(exist_ok=True)
        for file in sorted(temporary.iterdir()):
            os.replace(file, path / file.name)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(path: Path, error: OSError) -> PellucidError:
    return PellucidError(f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another place.")
