"""pellucid: diffusion models, one equation, end to end.

x_t = alpha(t) x0 + sigma(t) eps
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Batcher": "batcher",
    "Denoiser": "denoiser",
    "Repath": "denoiser",
    "Objective": "objective",
    "CFG": "guidance",
    "PellucidError": "errors",
    "sample": "sampling",
    "trajectory": "sampling",
    "train": "training",
    "load": "checkpoint",
}
_ROOMS = {
    *("batcher", "checkpoint", "conditioning", "config", "data", "denoiser", "ema", "errors", "explain", "fitting"),
    *("grids", "guidance", "likelihood", "metrics", "nets", "noise", "objective", "oracle", "paths", "pictures"),
    *("predictions", "registry", "samplers", "sampling", "training", "types"),
}

__all__ = [*_HOMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    """Rooms are opened when they are first asked for: importing pellucid costs nothing."""
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'pellucid' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from .batcher import Batcher as Batcher
    from .checkpoint import load as load
    from .denoiser import Denoiser as Denoiser
    from .denoiser import Repath as Repath
    from .errors import PellucidError as PellucidError
    from .guidance import CFG as CFG
    from .objective import Objective as Objective
    from .sampling import sample as sample
    from .sampling import trajectory as trajectory
    from .training import train as train
