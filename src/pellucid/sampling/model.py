"""What is asked: a model on the path and under the guidance of one's choice, and its conditions; and how often."""

from collections.abc import Callable, Mapping

from torch import Tensor

from ..conditioning import Conditions, spread
from ..denoiser import Repath
from ..errors import PellucidError
from ..guidance import CFG
from ..paths import Path
from ..types import Batch, Denoised, Model, Times, Wrapper

Guidance = Callable[[Model], Model]


def prepare(
    model: Model,
    n: int,
    cond: Conditions,
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
    return model, {name: value.to(model.device) for name, value in spread(cond, n).items()}


class Counted(Wrapper):
    """A model that counts: how many samples it has been asked about, `calls`, all told."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.calls = 0

    def __call__(self, x: Batch, t: Times, cond: Mapping[str, Tensor] | None = None) -> Denoised:
        self.calls += len(x)
        return self.model(x, t, cond)
