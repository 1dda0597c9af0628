"""What is explained: a model, the data it is of, how it learns and how it draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..conditioning import is_labelled
from ..data import Dataset
from ..denoiser import Denoiser
from ..grids import Grid
from ..guidance import Rule, made
from ..noise import TRAIN, Kind, normal
from ..objective import Objective
from ..oracle import EXACT, Empirical, Oracle
from ..paths import Path
from ..registry import Registry
from ..samplers import Sampler
from ..sampling import Scheme, Step, extent, trajectory
from ..types import Batch, Model

CLOUD = 2000  # points that show a law in the plane


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, trained for `step` steps.

    At step 0 nothing has been learnt: the exact denoiser of the training data, which is what endless training of a
    network without limits would end in, draws in the model's place. `recipe` is the text that made the model.
    """

    model: Denoiser
    data: Dataset
    objective: Objective = field(default_factory=Objective)
    sampler: Sampler | str = "scales"
    steps: int = 20
    grid: Grid | str = "scales"
    source: Kind = "independent"
    guidance: float = 1.0
    rule: str | Mapping[str, Any] = "cfg"  # of the guidance
    step: int = 0
    name: str = ""
    recipe: str = ""
    seed: int = 0

    @property
    def path(self) -> Path:
        """The model's path."""
        return self.model.path

    @property
    def scheme(self) -> Scheme:
        """The sampler and the times at which it asks the model."""
        return Scheme.make(self.path, self.sampler, self.steps, self.grid, self.source, extent(self.artist))

    @property
    def dims(self) -> int:
        """Numbers in one sample."""
        return self.data.train.x[0].numel()

    @property
    def second_moment(self) -> float:
        """E|x0|^2 per dimension."""
        return self.data.mean**2 + self.data.std**2

    @property
    def conditional(self) -> bool:
        """Whether the model hears labels."""
        return is_labelled(self.model.conditioner) and self.data.train.label is not None

    @property
    def guide(self) -> Rule:
        """The guidance."""
        return made(self.rule, scale=self.guidance)

    @property
    def guided(self) -> bool:
        """Whether guidance changes what is drawn."""
        return self.conditional and not self.guide.idle

    def cond(self, label: Tensor) -> dict[str, Tensor]:
        """The model's conditions; a class of which there are no training data is withheld: nothing is known of it."""
        if not self.conditional or self.data.train.label is None:
            return {}
        unknown = ~torch.isin(label, self.data.train.label)
        return {"label": label} | ({"drop": unknown} if unknown.any() else {})

    def turns(self, n: int) -> dict[str, Tensor]:
        """The conditions of n samples, every class in turn."""
        return self.cond(torch.arange(n) % max(1, len(self.data.classes)))

    @property
    def columns(self) -> int:
        """Of a sheet of samples: one for each class where that fits."""
        return len(self.data.classes) if self.conditional and 2 <= len(self.data.classes) <= 12 else 8

    def draw_batch(self, n: int, split: Literal["train", "test"] = "train") -> tuple[Batch, dict[str, Tensor]]:
        """n samples of the data (or all, if there are fewer), spread over the split, with the model's conditions."""
        part = self.data.train if split == "train" else self.data.test
        if part is None:
            return torch.empty(0), {}
        index = torch.linspace(0, len(part.x) - 1, min(n, len(part.x))).long()
        x, cond = self.data.batch(index, split)
        return x, self.cond(cond["label"]) if self.conditional else {}

    def noise(self, n: int, step: int) -> Batch:
        """Noise for n samples that no other part of an account has seen: `step` numbers the draw."""
        return normal(self.seed, torch.arange(n), step, self.data.shape, stream=TRAIN)

    @cached_property
    def exact(self) -> Oracle | None:
        """The exact denoiser of the training data; none if they are too many to be asked."""
        return self._by_heart() if self.data.train.x.numel() <= EXACT else None

    @cached_property
    def artist(self) -> Model:
        """Who draws: the model, or before training the exact denoiser of (as many as can be asked of) the data."""
        return self.model if self.step else self.exact or self._by_heart()

    def _by_heart(self) -> Oracle:
        x, cond = self.draw_batch(EXACT // self.dims)
        return Empirical(x, cond.get("label")).at(self.path)

    @cached_property
    def walk(self) -> list[Step]:
        """From noise to data, with the default sampler: the samples of every class in turn, or a cloud of points."""
        n = 6 * self.columns if self.data.pictures else CLOUD
        steps = trajectory(
            self.artist,
            n,
            sampler=self.sampler,
            steps=self.steps,
            grid=self.grid,
            noise=self.source,
            seed=self.seed,
            cond=self.turns(n),
            guidance=self.guide if self.guided and self.step else None,
        )
        return [Step(t, x.float().cpu(), None if x0 is None else x0.float().cpu()) for t, x, x0 in steps]

    def lams(self, n: int) -> Tensor:
        """n half log-SNRs that matter: sigma/alpha from 80, or the path's end, down to 0.01."""
        end = self.path.lam(torch.ones((), dtype=torch.float64)).clamp(min=-4.38)
        return torch.linspace(float(end) + 1e-6, 4.6, n, dtype=torch.float64)


def called(registry: Registry[Any], part: Any) -> str:
    """The name by which users know a part: its preset's, or its class's."""
    made = registry.resolve(part)
    return next((name for name, preset in registry.presets.items() if preset == made), registry.describe(made)["name"])
