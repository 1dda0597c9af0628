"""Checkpoints: a folder of safetensors and one manifest, whole or not at all.

    run/checkpoints/step_0001000/  model.safetensors  ema.safetensors  optim.safetensors  manifest.json

The folder is written under another name, every file is hashed and flushed to the disk, and then it is renamed: a
kill at any moment leaves the previous checkpoint as it was. The manifest holds every setting needed to sample.
Nothing is ever unpickled.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from safetensors.torch import save as encode
from torch import Tensor

from .denoiser import Denoiser
from .errors import PellucidError

FORMAT = 1
MANIFEST = "manifest.json"
LONGEST = 1 << 24  # side of a sample


class Checkpoint(NamedTuple):
    """What a folder holds: named groups of tensors and the manifest."""

    tensors: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def save(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> Path:
    """Write a checkpoint at `folder`, atomically. One `group.safetensors` for each group of tensors."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".partial-{folder.name}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        hashes = {}
        for group, named in tensors.items():
            data = encode({key: value.detach().contiguous().cpu() for key, value in named.items()})
            hashes[f"{group}.safetensors"] = hashlib.sha256(data).hexdigest()
            _write(partial / f"{group}.safetensors", data)
        manifest = {"format": FORMAT, **meta, "files": hashes}
        _write(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
        _flush(partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        _flush(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_(folder: Path) -> Checkpoint:
    """Read and verify the checkpoint at `folder`; a damaged one is one clear sentence."""
    try:
        meta = json.loads((folder / MANIFEST).read_text())
        if meta["format"] != FORMAT:
            newer = f"{folder} has checkpoint format {meta['format']}, this pellucid reads {FORMAT}; update pellucid."
            raise PellucidError(newer)
        _check(meta)
        tensors = {}
        for name, digest in meta["files"].items():
            data = (folder / Path(name).name).read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError(f"{name} does not match its hash")
            tensors[Path(name).stem] = decode(data)
    except PellucidError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PellucidError(f"the checkpoint {folder} is damaged ({why}); use another checkpoint of the run.") from None
    return Checkpoint(tensors, meta)


def _check(meta: dict[str, Any]) -> None:
    """What the rest of pellucid reads in a manifest is of the kind that it expects."""
    config = meta["config"]
    kinds: list[tuple[Any, type]] = [
        (meta["files"], dict),
        (meta.get("classes", []), list),
        (meta.get("recipe", {}), dict),
    ]
    kinds += [(meta["step"], int), (config["shape"], list), (config["conditioner"], dict)]
    if not all(isinstance(value, kind) for value, kind in kinds):
        raise TypeError("the manifest holds a value of the wrong kind")
    if not all(isinstance(side, int) and 0 < side <= LONGEST for side in config["shape"]):
        raise ValueError(f"the shape is {config['shape']}")


def folders(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((run / "checkpoints").glob("step_*"), reverse=True)


def latest(run: Path) -> Checkpoint:
    """The newest checkpoint of `run` (or the one at `run`) that verifies; damaged ones are passed by with a warning."""
    if (run / MANIFEST).is_file():
        return open_(run)
    if not run.exists():
        raise PellucidError(
            f"there is no run at {run}; give a folder that `pellucid train` wrote, such as runs/digits."
        )
    problems = []
    for folder in folders(run):
        try:
            found = open_(folder)
        except PellucidError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem[:-1]}: {folder.name} was taken instead.", stacklevel=2)
        return found
    raise PellucidError(problems[0] if problems else f"{run} holds no checkpoint; train it first: pellucid train.")


def build(found: Checkpoint, group: str = "ema") -> Denoiser:
    """The model of a checkpoint, with its EMA weights (or another group's), ready to sample."""
    try:
        model = Denoiser.from_config(found.meta["config"])
        model.load_state_dict(found.tensors[group])
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError, ArithmeticError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise PellucidError(f"the checkpoint does not hold the model it describes ({why}); train again.") from None
    return model.eval().requires_grad_(False)


def load(run: str | Path) -> Denoiser:
    """The trained model of a run folder (or of one checkpoint folder), with its EMA weights, ready to sample."""
    return build(latest(Path(run)))


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `flatten_optimizer` took from it."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        i, key = name.split(".", 1)
        state.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
