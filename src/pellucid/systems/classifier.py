r"""A classifier of noisy samples, by which a model that knows no classes is led to them (Dhariwal & Nichol 2021).

    loss = -log p(y | x_t),   t ~ p(t):   a model's data, network and path, with a channel for each class
    score(x_t | y) = score(x_t) + w grad log p(y | x_t)                             (guidance/gradient.py)

How much noise hides is seen in how many of the held-out samples it still names.
"""

from typing import Any, Literal, cast

import torch

from ..data import Dataset
from ..denoiser import Denoiser, NoisyClassifier
from ..errors import PellucidError
from ..metrics.estimate import Figure, share
from ..metrics.sets import spaced
from ..noise import START, normal
from ..objective import Naming, Stratified
from ..training import Learner, Plan
from ..training.run import sized

LEVELS = 0.1, 0.5, 1.0, 2.0, 4.0
"""sigma/alpha at which it is looked at."""


def learner(
    config: dict[str, Any], data: Dataset, plan: Plan, minutes: float | None = None, device: torch.device | None = None
) -> Learner:
    """Who learns on a device to read the data's classes through noise, with the network and path of a model's `config`.

    minutes: as many steps as fit in them, in place of the plan's.
    """
    if not data.classes:
        raise PellucidError(f"{data.name} has no classes to read; expected data that has, such as digits.")
    model = NoisyClassifier.from_config(config | {"classes": len(data.classes)}, plan.seed).to(device)
    taught, aim = cast(Denoiser, model), Naming(Stratified())  # a learner asks no more of it than it has
    return Learner(taught, data, sized(taught, data, plan, aim, minutes) if minutes else plan, aim)


@torch.no_grad()
def accuracy(model: NoisyClassifier, data: Dataset, n: int = 500, seed: int = 0) -> dict[float, Figure]:
    """The share of held-out samples that are named rightly at each of LEVELS."""
    split: Literal["train", "test"] = "train" if data.test is None else "test"
    part = data.train if data.test is None else data.test
    x0, cond = data.batch(spaced(len(part.x), n), split)
    found = {}
    for i, level in enumerate(LEVELS):
        t = model.path.time(-torch.tensor(level, dtype=torch.float64).log()).clamp(max=1).expand(len(x0))
        eps = normal(seed, torch.arange(len(x0)), i, model.shape, stream=START, dtype=x0.dtype)
        said = model(model.path.mix(x0, eps, t).to(model.device), t).argmax(1).cpu()
        found[level] = share(said == cond["label"])
    return found
