"""Checkpoints: a folder of safetensors and one manifest, whole or not at all.

    run/checkpoints/step_0001000/  model.safetensors  ema.safetensors  optim.safetensors  manifest.json
                                   model.rank0.safetensors  model.rank1.safetensors ...  where processes share it

Shares of a tensor are rows of it, in order: whoever reads them joins them, in a world of any size.

The folder is written under another name, every file is hashed and flushed to the disk, and then it is renamed: a
kill at any moment leaves the previous checkpoint as it was. The manifest holds every setting needed to sample, the
hashes of the other files, and last its own. Nothing is ever unpickled.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from safetensors.torch import save as encode
from torch import Tensor

from . import files
from .denoiser import Denoiser, NoisyClassifier
from .errors import PellucidError
from .world import ALONE, World, held, is_shared, placed

FORMAT = 3  # 1 had no hash of the manifest, 2 no shares
MANIFEST = "manifest.json"
LONGEST = 1 << 24  # side of a sample
SHARE = re.compile(r"\.rank\d+$")
NAMES = rf"{re.escape(MANIFEST)}|[a-z].*\.safetensors"  # of the files in a checkpoint
NAME = re.compile(rf"step_\d+({re.escape(files.OLD)})?")
Kind = TypeVar("Kind", Denoiser, NoisyClassifier)
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)


class Checkpoint(NamedTuple):
    """What a folder holds: named groups of tensors and the manifest."""

    tensors: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def save(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any], world: World = ALONE
) -> Path:
    """Write a checkpoint at `folder`, atomically. One `group.safetensors` for each group of tensors.

    Of a group that is shared each process of a world writes its own; the first seals it when all are done, and all
    leave together. If one fails, nothing is written.
    """
    with world.agreed(), ExitStack() as stack:
        with world.agreed():
            partial = stack.enter_context(files.replaced(folder, "checkpoint", NAMES)) if world.leads else folder
        partial = Path(world.told(str(partial)))
        with world.agreed():
            hashes = dict(_written(partial, tensors, world))
        every = world.heard(hashes)
        if world.leads:
            found = {name: digest for each in every for name, digest in each.items()}
            (partial / MANIFEST).write_bytes(files.seal({"format": FORMAT, **meta, "files": found}))
    return folder


def _written(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], world: World) -> Iterator[tuple[str, str]]:
    """The files that this process has to write, written and flushed, with their hashes."""
    for group, named in tensors.items():
        share = any(map(is_shared, named.values()))
        if not share and not world.leads:
            continue
        name = f"{group}.rank{world.rank}.safetensors" if share else f"{group}.safetensors"
        mine = {key: held(value) for key, value in named.items() if is_shared(value) or world.leads}
        data = encode({key: value.detach().contiguous().cpu() for key, value in mine.items()})
        (folder / name).write_bytes(data)
        if not world.leads:  # who leads flushes all that is on its machine
            files.flush(folder / name)
        yield name, hashlib.sha256(data).hexdigest()


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint at `folder`; a damaged one is one clear sentence."""
    try:
        data = (folder / MANIFEST).read_bytes()
        meta = json.loads(data)
        if meta["format"] not in range(1, FORMAT + 1):
            newer = f"{folder} has checkpoint format {meta['format']}, this pellucid reads {FORMAT}; update pellucid."
            raise PellucidError(newer)
        if meta["format"] > 1 and not files.is_sealed(data):
            raise ValueError(f"{MANIFEST} does not match its hash")
        _check(meta)
    except PellucidError:
        raise
    except DAMAGE as error:
        raise _damaged(folder, error) from None
    return meta


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _damaged(folder: Path, error: Exception) -> PellucidError:
    why = f"{type(error).__name__}: {error}".splitlines()[0]
    return PellucidError(f"the checkpoint {folder} is damaged ({why}); use another checkpoint of the run.")


def open_(folder: Path) -> Checkpoint:
    """Read and verify the checkpoint at `folder`; a damaged one is one clear sentence."""
    meta, shares = manifest(folder), dict[str, dict[str, list[Tensor]]]()
    try:
        for name, digest in meta["files"].items():
            data = (folder / Path(name).name).read_bytes()
            if _hash(data) != digest:
                raise ValueError(f"{name} does not match its hash")
            group = shares.setdefault(SHARE.sub("", Path(name).stem), {})
            for key, value in decode(data).items():
                group.setdefault(key, []).append(value)
        tensors = {group: {key: _joined(rows) for key, rows in named.items()} for group, named in shares.items()}
    except DAMAGE as error:
        raise _damaged(folder, error) from None
    return Checkpoint(tensors, meta)


def digest(meta: Mapping[str, Any], group: str) -> str:
    """The hash of a group's file; of a group in shares, that of their hashes."""
    found = [each for name, each in meta["files"].items() if SHARE.sub("", Path(name).stem) == group]
    return str(found[0]) if len(found) == 1 else _hash("".join(map(str, found)).encode())


def _joined(rows: list[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def verifies(folder: Path) -> bool:
    """Whether the checkpoint at `folder` is what was written, byte for byte."""
    try:
        for name, digest in manifest(folder)["files"].items():
            with open(folder / Path(name).name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return False
    except (PellucidError, OSError):
        return False
    return True


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
    found = [folder for folder in run.glob("checkpoints/step_*") if NAME.fullmatch(folder.name)]
    return sorted(found, key=lambda folder: (number(folder), not folder.name.endswith(files.OLD)), reverse=True)


def is_kept(path: Path) -> bool:
    """Whether there is a run with checkpoints at `path`, or a checkpoint."""
    return bool(folders(path)) or (path / MANIFEST).is_file()


def number(folder: Path) -> int:
    """The step of a checkpoint, by its folder's name."""
    return int(folder.name.removesuffix(files.OLD).removeprefix("step_"))


def mend(run: Path) -> None:
    """Clear away what a killed process left half done. Only for who is alone in the run."""
    for folder in (run, *(run / name for name in ("checkpoints", "samples", "evaluations", "ema"))):
        files.sweep(folder)
    for old in folders(run):
        if old.name.endswith(files.OLD):
            newer = old.with_name(old.name.removesuffix(files.OLD))
            if verifies(newer):
                files.remove(old)
            else:
                if newer.exists():
                    files.remove(newer)
                old.rename(newer)


def prune(run: Path, keep: int) -> None:
    """Remove what is older than the newest `keep` that verify and than the newest that training may go back to."""
    whole, good = 0, False
    for folder in folders(run):
        if whole >= keep and good:
            files.remove(folder)
        elif verifies(folder):
            whole, good = whole + 1, good or is_good(manifest(folder))


def is_good(meta: dict[str, Any]) -> bool:
    """Whether training may go back to this checkpoint: it was due, and the step before it was sound."""
    return bool(meta.get("good", True))


def latest(run: Path, good: bool = False) -> Checkpoint:
    """The newest checkpoint of `run` (or the one at `run`) that verifies; damaged ones are passed by with a warning.

    good: the newest that training may go back to.
    """
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
        if good and not is_good(found.meta):
            continue
        for problem in problems:
            warnings.warn(f"{problem[:-1]}: {folder.name} was taken instead.", stacklevel=1)  # once
        return found
    if problems:
        said = "; ".join(problem.partition("; ")[0] for problem in problems)
        raise PellucidError(f"{said}; {run} has no other: put one back, or train again, in another folder.")
    raise PellucidError(f"{run} holds no checkpoint; train it first: pellucid train.")


def build(found: Checkpoint, group: str = "ema") -> Denoiser:
    """The model of a checkpoint, with its EMA weights (or another group's), ready to sample."""
    if "classes" in found.meta["config"]:
        raise PellucidError("the checkpoint is a classifier, which draws nothing; lead a model by it: --classifier.")
    return _built(Denoiser, found, group)


def classifier(found: Checkpoint, group: str = "ema") -> NoisyClassifier:
    """The classifier of noisy samples of a checkpoint."""
    if "classes" not in found.meta["config"]:
        raise PellucidError("the checkpoint is no classifier; expected one that `pellucid classify` trained.")
    return _built(NoisyClassifier, found, group)


def _built(kind: type[Kind], found: Checkpoint, group: str) -> Kind:
    try:
        model = kind.from_config(found.meta["config"])
        model.load_state_dict(found.tensors[group])
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError, ArithmeticError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise PellucidError(f"the checkpoint does not hold the model it describes ({why}); train again.") from None
    if found.meta["step"] == 0:
        warnings.warn("this is the checkpoint of step 0: the model has learnt nothing yet.", stacklevel=2)
    return model.eval().requires_grad_(False)


def load(run: str | Path) -> Denoiser:
    """The trained model of a run folder (or of one checkpoint folder), with its EMA weights, ready to sample."""
    return build(latest(Path(run)))


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `flatten_optimizer` took from it, in memory as its weights lie there."""
    state: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for name, value in tensors.items():
        i, key = name.split(".", 1)
        like = weights[int(i)]
        own = torch.empty_like(like).copy_(placed(value, like)) if value.shape == like.shape else value
        state.setdefault(int(i), {})[key] = own
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
