"""What decides the last bits of a training beside its recipe: a run that goes on with others is told of it."""

import warnings
from collections.abc import Mapping

import torch

from ..nets.kernels import version


def machine(device: torch.device) -> dict[str, str]:
    """The arithmetic that trains on a device, by the names of its parts."""
    found = {"torch": torch.__version__, "device": device.type}
    if device.type == "cpu":
        found |= {"threads": str(torch.get_num_threads()), "kernels": version()}
    return found


def compare(was: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Warn of a machine that reckons otherwise than the one that trained so far."""
    other = [f"{name} {was[name]}, not {now.get(name)}" for name in was if was[name] != now.get(name)]
    if other:
        trained = f"the checkpoint was trained with {', '.join(other)}"
        warnings.warn(f"{trained}: the run goes on, but not to the last bit as it would have.", stacklevel=2)
