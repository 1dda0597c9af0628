"""What is asked: a model on the path and under the guidance of one's choice, and its conditions; and how often."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..denoiser import Repath
from ..errors import PellucidError
from ..guidance import CFG
from ..paths import Path
from ..types import Batch, Denoised, Model, Times, Wrapper

Guidance = Callable[[Model], Model]


def prepare(
    model: Model,
    n: int,
    cond: Mapping[str, Tensor | int] | None,
    guidance: Guidance | float | None,
    path: Path | str | None,
) -> tuple[Model, dict[str, Tensor]]:
    """The model with path and guidance around it, and its conditions as tensors that lead with n."""
    if not isinstance(n, int) or n < 1:
        raise PellucidError(f"n is {n!r}; expected a whole number, 1 or more.")
    if path is not None:
        model = Repath(model, path)
    if guidance is not None:
        model = (CFG(guidance) if isinstance(guidance, int | float) else guidance)(model)
    if not isinstance(cond, Mapping | None):
        raise PellucidError(f"cond is {cond!r}; expected values by name, such as {{'label': 3}}.")
    return model, {name: _spread(name, value, n).to(model.device) for name, value in (cond or {}).items()}


def _spread(name: str, value: Tensor | int, n: int) -> Tensor:
    """One value of a condition for each of n samples."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise PellucidError(f"condition {name!r} is {value!r}; expected a number, or a tensor of {n}.") from None
    if name == "label" and (tensor.is_floating_point() or tensor.is_complex() or tensor.dim() > 1):
        raise PellucidError(f"condition 'label' is {value!r}; expected a whole number, or one for each of {n} samples.")
    spread = tensor.expand(n) if tensor.dim() == 0 else tensor
    if len(spread) != n:
        raise PellucidError(f"condition {name!r} has {len(tensor)} values, not {n}; give one, or one for each.")
    return spread


class Counted(Wrapper):
    """A model that counts: how many samples it has been asked about, `calls`, all told."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.calls = 0

    def __call__(self, x: Batch, t: Times, cond: Mapping[str, Tensor] | None = None) -> Denoised:
        self.calls += len(x)
        return self.model(x, t, cond)
