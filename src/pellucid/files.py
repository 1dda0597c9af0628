"""Files that appear whole or not at all: each is written beside its place, flushed to the disk, and then renamed."""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import PellucidError

PARTIAL = ".partial-"  # begins the names of what is being written or removed
OLD = ".old"  # ends the name of a folder while another takes its place
_numbers = itertools.count()
MISTAKEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
MISTAKEN |= {errno.ENAMETOOLONG, errno.ELOOP}
"""What is wrong with the place that was asked for. Every other error is the disk's."""


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work for it begins."""
    if path.is_dir():
        raise PellucidError(f"cannot write {path}: it is a folder; choose another place.")
    check_parent(path)


def check_parent(path: Path) -> None:
    """Refuse a file or a folder in a place where nothing can be written."""
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise PellucidError(f"cannot write {path}: {parent} cannot be written to; choose another place.")


def check_replaceable(folder: Path, what: str, names: str, mark: str | None = None) -> None:
    """Refuse to put a new folder in the place of one that is no `what`: that has other files, or not the mark."""
    for place in (folder, folder.with_name(folder.name + OLD)):
        held = sorted(file.name for file in place.iterdir()) if place.is_dir() else []
        strange = [name for name in held if not re.fullmatch(names, name)]
        if place.exists() and not place.is_dir() or strange or held and mark not in (None, *held):
            known = f"it holds {(strange or held)[0]}" if held else "it is a file"
            raise PellucidError(f"{place} is no {what}: {known}; take another place.")


def cache(what: str) -> Path:
    """Where things are kept that nobody asked to have elsewhere: $PELLUCID_CACHE, or in the user's cache folder."""
    user = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pellucid"
    return Path(os.environ.get("PELLUCID_CACHE") or user) / what


def expanded(name: str | Path) -> Path:
    """The path that a name means, ~ being the user's own folder."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise PellucidError(f"{name} is in the folder of a user who is not known here; write the path whole.") from None


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary place beside `path`; what is written there is moved to `path` at the end, or removed on failure."""
    temporary = path.with_name(f"{PARTIAL}{path.name}-{os.getpid()}-{next(_numbers)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


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


def _unwritable(path: Path, error: OSError) -> Exception:
    if error.errno not in MISTAKEN:
        return OSError(error.errno, error.strerror or str(error), str(path))
    return PellucidError(f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another place.")


@contextmanager
def replaced(folder: Path, what: str, names: str) -> Iterator[Path]:
    """A new folder that becomes `folder` at the end, with all that is in it or not at all.

    An older folder of that name is in its place, or beside it as NAME.old, until the new one is. It has to be a `what`,
    whose files have such names: nothing else is replaced. What killed processes left of it is cleared away.
    """
    check_replaceable(folder, what, names)
    partial, old = folder.with_name(f"{PARTIAL}{folder.name}-{os.getpid()}"), folder.with_name(folder.name + OLD)
    try:
        make(folder.parent)
        shutil.rmtree(partial, ignore_errors=True)
        for left in _left(folder):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        with alone(partial):
            yield partial
        for file in partial.iterdir():
            flush(file)
        flush(partial)
        if folder.exists():
            if old.exists():
                remove(old)
            folder.rename(old)
        partial.rename(folder)
        flush(folder.parent)
        if old.exists():
            remove(old)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not folder.exists():
            with suppress(OSError):
                old.rename(folder)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(folder)) from None
        raise


def _left(folder: Path) -> Iterator[Path]:
    """What processes that are no more have left half written, or half removed, of this folder."""
    for left in folder.parent.glob(f"{PARTIAL}*"):
        own = re.fullmatch(rf"{re.escape(PARTIAL + folder.name)}-(\d+)(-gone)?", left.name)
        if own and _is_dead(int(own[1])) and is_free(left):  # a process of another machine holds its own
            yield left


def _is_dead(process: int) -> bool:
    """Whether it is sure that this machine has no such process."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # that of another user
        return False
    return False


def make(folder: Path) -> None:
    """Make a folder, and those above it, to stay."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it; a half of it is never seen under its name."""
    hidden = folder.with_name(f"{PARTIAL}{folder.name}-{os.getpid()}-gone")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left half done in `folder`."""
    for left in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # where folders cannot be flushed, they need not be
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)


SEAL = re.compile(rb'"sha256": "(?P<hash>[0-9a-f]{64})"\n}\Z')


def seal(meta: Mapping[str, Any]) -> bytes:
    """A manifest in JSON whose last value is the hash of all that is before it."""
    last = {key: value for key, value in meta.items() if key != "sha256"} | {"sha256": ""}
    body = json.dumps(last, indent=1).encode().removesuffix(b'"\n}')
    return body + hashlib.sha256(body).hexdigest().encode() + b'"\n}'


def is_sealed(data: bytes) -> bool:
    """Whether a manifest is what `seal` made of it, byte for byte."""
    found = SEAL.search(data)
    return found is not None and hashlib.sha256(data[: found.start("hash")]).hexdigest() == found["hash"].decode()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other process is in `folder` this way: the second is refused. One that was killed holds nothing."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if _held(handle) is False:
            raise PellucidError(f"another process is at work in {folder}; wait for it, or take another folder.")
        yield
    finally:
        os.close(handle)


@contextmanager
def in_turn(folder: Path, remark: str) -> Iterator[bool]:
    """Inside, no other process is in `folder` this way: the second says the remark, and waits.

    Yields whether that is sure: not where the system has no such locks.
    """
    make(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        held = _held(handle)
        if held is False:
            warnings.warn(remark, stacklevel=3)
            from fcntl import LOCK_EX, flock

            flock(handle, LOCK_EX)
        yield held is not None
    finally:
        os.close(handle)


def is_free(folder: Path) -> bool:
    """Whether it is sure that no process is in `folder`, `alone` or `in_turn`."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        return _held(handle) is True
    finally:
        os.close(handle)


def _held(handle: int) -> bool | None:
    """Whether this process now has the folder for itself; None where the system has no such locks."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock

        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True
