"""What is asked: a model on the path and under the guidance of one's choice, and its conditions; and how often."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..conditioning import Conditions, asked
from ..denoiser import Repath
from ..errors import PellucidError, integer
from ..guidance import CFG, Rule, registry
from ..paths import Path
from ..types import Batch, Denoised, Model, Times, Wrapper

Guidance = Callable[[Model], Model]
Asked = Guidance | float | str | Mapping[str, Any] | None
"""A guidance as it may be asked for: a scale, any guidance, or the table of a registered one."""


def prepare(
    model: Model,
    n: int,
    cond: Conditions,
    guidance: Asked,
    path: Path | str | None,
) -> tuple[Model, dict[str, Tensor]]:
    """The model with path and guidance around it, and its conditions as tensors that lead with n."""
    check(n)
    if path is not None:
        model = Repath(model, path)
    if guidance is None:
        return model, asked(model, cond, n)
    rule: Guidance = CFG(guidance) if isinstance(guidance, int | float) else registry.resolve(guidance)
    if not callable(rule):
        raise PellucidError(f"guidance is {guidance!r}; expected a scale, a guidance, or the table of one.")
    model = rule(model)
    conditions = asked(model, cond, n)
    if isinstance(rule, Rule) and not conditions and not rule.idle:
        raise PellucidError(
            f"guidance is {rule.scale:g}, and there is no condition to strengthen; give one, such as "
            "cond={'label': 3}, or leave guidance out."
        )
    return model, conditions


def check(n: int, *, seed: int = 0, first: int = 0, batch: int = 1) -> tuple[int, int, int, int]:
    """n, seed, first and batch; refuses counts below 1, and numbers that no noise has: a seed and each sample's number
    are below 2**63."""
    n, batch = integer("n", n), integer("batch", batch)
    seed, first = integer("seed", seed, 0), integer("first", first, 0)
    for name, value in (("seed", seed), ("first + n - 1", first + n - 1)):
        if value >= 2**63:
            raise PellucidError(f"{name} is {value}; expected a number below 2**63.")
    return n, seed, first, batch


class Counted(Wrapper):
    """A model that counts: how many samples it has been asked about, `calls`, all told."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.calls = 0

    def __call__(self, x: Batch, t: Times, cond: Mapping[str, Tensor] | None = None) -> Denoised:
        self.calls += len(x)
        return self.model(x, t, cond)
