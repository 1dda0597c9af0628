"""Arrays in an .npz file: pictures in bytes, or points of any shape, with labels where there are any.

Samples are under x, images, arr_0 or x_train; labels under y, labels, label, arr_1 or y_train; held-out samples, where
there are any, under x_test and y_test, and the noise that each sample belongs to, if it has one, under noise. Nothing
that is pickled is opened.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import PellucidError
from .dataset import Dataset, Options, Split, hold_out

SAMPLES = ("x", "images", "arr_0", "x_train")
CLASSES = 100_000  # more have to be fewer than the samples: each is a row of an embedding
LABELS = ("y", "labels", "label", "arr_1", "y_train")
WRONG = (ValueError, TypeError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)


def npz(path: Path, options: Options) -> Dataset:
    """Read an .npz file: uint8 pictures [n, h, w], [n, h, w, c] or [n, c, h, w]; floats [n, *shape]; labels [n]."""
    arrays = _load(path)
    sample, label = (next((key for key in keys if key in arrays), None) for keys in (SAMPLES, LABELS))
    if sample is None:
        raise PellucidError(
            f"{path} has no samples; expected an array named {', '.join(SAMPLES[:-1])} or {SAMPLES[-1]}."
        )
    train, test = _split(path, arrays, sample, label), None
    if "noise" in arrays:
        train = train._replace(noise=_noise(path, arrays["noise"], train.x))
    if "x_test" in arrays:
        test = _split(path, arrays, "x_test", "y_test" if "y_test" in arrays else None)
        if _kind(test) != _kind(train):
            unlike = f"x_test in {path} is {_kind(test)} labels, but {sample} is {_kind(train)} labels"
            raise PellucidError(f"{unlike}; save both alike.")
    else:
        train, test = hold_out(train, options.held_out, options.seed)
    last = max((int(half.label.max()) for half in (train, test) if half and half.label is not None), default=-1)
    return Dataset(str(path), train, test, tuple(str(i) for i in range(last + 1)))


def are_points(path: Path) -> bool:
    """Whether the samples of an .npz file are points [n, d]: only the head of their array is read, and nothing said."""
    try:
        with zipfile.ZipFile(path) as inside:
            name = next(f"{key}.npy" for key in SAMPLES if f"{key}.npy" in inside.namelist())
            with inside.open(name) as file:
                np.lib.format.read_magic(file)
                shape, _, _ = np.lib.format.read_array_header_1_0(file)
    except (*WRONG, StopIteration, NotImplementedError, RuntimeError):
        return False  # whoever reads it all says why
    return len(shape) == 2


def _kind(half: Split) -> str:
    kind = str(half.x.dtype).removeprefix("torch.")
    return f"{kind} {list(half.x.shape[1:])} {'with' if half.label is not None else 'without'}"


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in (*SAMPLES, *LABELS, "x_test", "y_test", "noise") if key in file}
    except WRONG as error:
        junk = "pickle" in str(error)  # numpy's guess, and its advice is to trust it
        reason = "it is no .npz, or holds objects" if junk else str(error).rstrip(".")
        raise PellucidError(
            f"{path} cannot be read ({reason}); expected arrays of numbers, x and perhaps y, as numpy.savez writes "
            "them without objects."
        ) from None


def _split(path: Path, arrays: dict[str, np.ndarray], sample: str, label: str | None) -> Split:
    x = arrays[sample]
    if x.size == 0 or x.ndim < 2:
        raise PellucidError(f"{sample} in {path} has the shape {list(x.shape)}; expected samples [n, ...], n > 0.")
    labels = None if label is None else _labels(path, label, arrays[label], len(x))
    if x.dtype == np.uint8:
        return Split(_pictures(path, sample, x), labels)
    if not np.issubdtype(x.dtype, np.floating):
        raise PellucidError(f"{sample} in {path} holds {x.dtype}; expected uint8 pictures or floating-point samples.")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    strange = int((~np.isfinite(x)).sum())
    if strange:
        raise PellucidError(
            f"{sample} in {path} holds {strange} values that are not finite float32 numbers; mend them."
        )
    return Split(torch.from_numpy(x), labels)


def _pictures(path: Path, sample: str, x: np.ndarray) -> Tensor:
    """uint8 [n, c, h, w]; where both ends of the shape could be the channels, they are last."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim == 4 and x.shape[-1] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        shape = list(x.shape)
        raise PellucidError(
            f"{sample} in {path} is uint8 {shape}; expected pictures [n, h, w, c] or [n, c, h, w], c 1 or 3."
        )
    return torch.from_numpy(np.ascontiguousarray(x))


def _noise(path: Path, noise: np.ndarray, x: Tensor) -> Tensor:
    got = torch.from_numpy(noise.astype(np.float32)) if np.issubdtype(noise.dtype, np.floating) else torch.empty(0)
    if got.shape != x.shape or not bool(got.isfinite().all()):
        kind = f"{noise.dtype} {list(noise.shape)}"
        raise PellucidError(f"noise in {path} is {kind}; expected finite floats {list(x.shape)}, one for each sample.")
    return got


def _labels(path: Path, name: str, y: np.ndarray, n: int) -> Tensor:
    if y.shape != (n,) or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        got = f"{y.dtype} {list(y.shape)}"
        raise PellucidError(f"{name} in {path} is {got}; expected {n} labels, integers from 0.")
    if y.max() >= max(n, CLASSES):
        raise PellucidError(f"{name} in {path} goes up to {y.max()} for {n} samples; number the classes from 0.")
    return torch.from_numpy(y.astype(np.int64))
