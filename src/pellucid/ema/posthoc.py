r"""Averages of any length, made after training from snapshots of power averages (Karras et al. 2024, sec. 3.1, app. C).

The average that was taken after t_i updates with exponent gamma_i is  int p_i(tau) theta(tau) dtau.  One that was not
taken is made of those that were, as  sum_i x_i average_i,  with the shares x that come closest to its profile:

    p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)  for tau < t,      min_x  |p - sum_i x_i p_i|^2,      sum_i x_i = 1
    <p_i, p_j> = (gamma_i + 1)(gamma_j + 1)/(gamma_i + gamma_j + 1) (m/t_i)^gamma_i (m/t_j)^gamma_j m/(t_i t_j)

with m = min(t_i, t_j). Where the weights of each update are drawn alike, the minimum is the variance of what is missed.

    RUN/ema/0001000-power-0.05.safetensors      a snapshot: tensors, and in the header length, updates and a hash
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import PellucidError
from ..files import whole
from ..world import ALONE, World
from ..world import whole as entire
from .averages import EMA, Power, gamma


class TooFar(PellucidError):
    """The snapshots say too little of the average that is asked for."""


class Snapshot(NamedTuple):
    """A stored power average of a length, after so many updates."""

    length: float
    updates: int
    path: Path

    def read(self) -> dict[str, Tensor]:
        """Its tensors; a damaged file is one sentence."""
        header, tensors = _open(self.path)
        if _hash(header, tensors) != header["sha256"]:
            raise PellucidError(f"the snapshot {self.path} does not match its hash; remove it and take the others.")
        return tensors


def store(folder: Path, ema: EMA, world: World = ALONE) -> list[Snapshot]:
    """Write a snapshot of each power average of `ema`; every file is whole or absent. The first of a world does it."""
    done = []
    for average, tensors in zip(ema.averages, ema.tensors, strict=True):
        if not isinstance(average, Power):
            continue
        kept = {name: entire(value).contiguous().cpu() for name, value in tensors.items()}
        header = {"length": average.length, "updates": ema.updates, "learnt": ema.learnt}
        header["sha256"] = _hash(header, kept)
        path = folder / f"{ema.updates:07d}-{average.label}.safetensors"
        with world.agreed():
            if world.leads:
                with whole(path) as temporary:
                    temporary.write_bytes(save(kept, {"snapshot": json.dumps(header)}))
        done.append(Snapshot(average.length, ema.updates, path))
    return done


def forget(folder: Path, updates: int) -> None:
    """Remove the snapshots after so many updates: those of a way that led nowhere."""
    for path in folder.glob("*-power-*.safetensors"):
        if int(path.name.partition("-")[0]) > updates:
            path.unlink()


def snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots in a folder, by updates and length."""
    headers = [(_open(path, tensors=False)[0], path) for path in folder.glob("*.safetensors")]
    return sorted(Snapshot(header["length"], header["updates"], path) for header, path in headers)


def posthoc(found: Sequence[Snapshot], length: float, updates: int | None = None) -> dict[str, Tensor]:
    """The power average of `length` after `updates` (of the last snapshot), made of snapshots: a model's state dict."""
    asked = Power(length)
    t = updates or max((one.updates for one in found), default=0)
    used = sorted(one for one in found if one.updates <= t)
    if not used:
        raise PellucidError(f"there is no snapshot of {t} updates or fewer; train with power averages, and store them.")
    x, missed = shares([(one.length, one.updates) for one in used], asked.length, t)
    if missed > MISSED:
        raise TooFar(f"the snapshots miss {missed:.0%} of an average of length {length}; take a nearer length.")
    last = max(used, key=lambda one: one.updates)
    total = last.read()
    learnt = _open(last.path, tensors=False)[0]["learnt"]  # the others are buffers: those of the last
    sums = {name: torch.zeros_like(total[name], dtype=torch.float64) for name in learnt}
    for share, one in zip(x.tolist(), used, strict=True):
        tensors = one.read()
        for name, value in sums.items():
            value.add_(tensors[name], alpha=share)
    return total | {name: value.to(total[name].dtype) for name, value in sums.items()}


MISSED = 0.1
"""The share of an average's profile that may be missed, as a root mean square."""


def shares(taken: Sequence[tuple[float, int]], length: float, updates: int) -> tuple[NDArray[Any], float]:
    """x for averages that were taken at (length, updates), and |p - sum x_i p_i|/|p|."""
    given = np.array([(gamma(one), t) for one, t in (*taken, (length, updates))], dtype=np.float64).T
    gram = inner(*given[:, :, None], *given[:, None, :])  # of all profiles, the one asked for last
    scale = 1 / np.sqrt(gram.diagonal())  # profiles of length one: late and early ones count alike
    gram *= scale[:, None] * scale
    n = len(taken)
    system = np.block([[gram[:n, :n], scale[:n, None]], [scale[None, :n], np.zeros((1, 1))]])  # Lagrange's
    y = np.linalg.lstsq(system, np.append(gram[:n, n], scale[n]), rcond=1e-15)[0][:n]
    left = 1 - 2 * y @ gram[:n, n] + y @ gram[:n, :n] @ y
    return y * scale[:n] / scale[n], float(np.sqrt(max(left, 0.0)))


def inner(g: NDArray[Any], t: NDArray[Any], h: NDArray[Any], s: NDArray[Any]) -> NDArray[Any]:
    """<p_(g, t), p_(h, s)>, element by element."""
    m = np.minimum(t, s)
    return (g + 1) * (h + 1) / (g + h + 1) * (m / t) ** g * (m / s) ** h * m / (t * s)


def _open(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["snapshot"])
            return header, {name: file.get_tensor(name) for name in file.keys() if tensors}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise PellucidError(f"the snapshot {path} is damaged ({why}); remove it and take the others.") from None


def _hash(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([header["length"], header["updates"], header["learnt"]]).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
