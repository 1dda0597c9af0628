"""A recipe: everything that decides what is trained and how it is drawn.

A key that does not exist, a value of the wrong kind, a part that nobody registered: one sentence says which.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, PositiveFloat, model_validator

from .. import grids, guidance, paths, predictions, samplers
from ..checkpoint import Checkpoint
from ..coupling import registry as couplings
from ..data import Dataset, Progress, augment, packed
from ..denoiser import Denoiser
from ..ema import registry as averages
from ..errors import PellucidError
from ..objective import Objective
from ..objective import times as times_registry
from ..objective import weights as weight_registry
from ..registry import Registry
from ..settings import Part, Section, is_section
from ..training import Plan
from ..training.optimisers import registry as optimisers
from ..training.run import sized
from ..training.trackers import registry as trackers
from .sections import Aim, Data, Eval, Optim, Sample, Train
from .source import as_system, find
from .toml import flat, override, written

MAY_CHANGE = (
    *("name", "train.steps", "train.minutes", "train.save", "train.sample", "train.snapshot", "sample.", "eval."),
    *("train.threads", "train.accumulate", "train.workers", "train.compile", "train.parallel", "train.track"),
)
"""What may differ when a run goes on: how long it takes and what it shows, not what it learns."""

NOWHERE = "path/to/"
"""Begins the source of a recipe that works on the user's own pictures."""


def named(name: str) -> str:
    """A run's name, which is a folder's."""
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise PellucidError(f"name is {name!r}; expected the name of one folder, such as digits.")
    return name


class Recipe(Section):
    """A diffusion model from its data to its samples."""

    name: Annotated[str, AfterValidator(named)]
    data: Data
    path: Part = "cosine"
    prediction: Part = "v"
    net: Part = "unet"
    conditioner: Part | None = None  # "label" where the data has classes, else "none"
    clock: Literal["time", "lam", "edm", "index"] = "time"
    variance: Literal["fixed", "learned"] = "fixed"  # of the reverse step; a learned one takes channels of its own
    data_std: PositiveFloat | None = None  # measured
    objective: Aim = Aim()
    optim: Optim = Optim()
    train: Train
    sample: Sample = Sample()
    eval: Eval = Eval()

    @model_validator(mode="after")
    def _parts_exist(self) -> Self:
        """A misspelt part is found when the recipe is read, not when its turn comes."""
        parts: list[tuple[Registry[Any], Part]] = [
            (paths.registry, self.path),
            (predictions.registry, self.prediction),
            (times_registry, self.objective.times),
            (weight_registry, self.objective.weight),
            (couplings, self.objective.coupling),
            (optimisers, self.optim.method),
            (samplers.registry, self.sample.sampler),
            (grids.registry, self.sample.grid),
        ]
        parts += [(augment.registry, part) for part in self.data.augment]
        parts += [(trackers, part) for part in self.train.track]
        parts += [(averages, part) for part in self.optim.averages]
        for registry, part in parts:
            registry.make(part)
        guidance.made(self.sample.rule, scale=self.sample.guidance)
        return self

    @staticmethod
    def load(spec: str | Path, overrides: Sequence[str] = (), system: str | None = None) -> "Recipe":
        """The recipe that `spec` means, as a system of the literature would have it, with `key.sub=value` overrides.

        spec: the name of a shipped recipe, a .toml file, the folder of a run, or a source of data, which the recipe
        "toy-2d" (if it holds points) or "pictures" then trains on. system: ddpm, edm, flow, ...: its mathematics over
        the recipe's data, network and pace.
        """
        table = find(str(spec))
        if system is not None:
            table = as_system(table, system)
        for setting in overrides:
            override(table, setting)
        return Recipe.parse(table)

    @staticmethod
    def of(found: Checkpoint, overrides: Sequence[str] = ()) -> "Recipe":
        """The recipe that a checkpoint was trained by, whatever its run's recipe.toml says since, with overrides."""
        if "recipe" not in found.meta:
            missing = "the run was not trained from a recipe, which would say what its data are"
            raise PellucidError(f"{missing}; take one that was, or evaluate it with --data.")
        table = deepcopy(found.meta["recipe"])
        for setting in overrides:
            override(table, setting)
        return Recipe.parse(table)

    def goes_on(self, earlier: "Recipe") -> "Recipe":
        """This recipe as it continues a run that `earlier` began; what cannot change on the way is refused."""
        old, new = flat(earlier.model_dump()), flat(self.model_dump())
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE):
                values = f"{key} = {old.get(key)!r}, not {new.get(key)!r}"
                raise PellucidError(f"the run {earlier.name} has {values}; take another --name, or --fresh.")
        return self.for_steps(earlier.train.steps if self.train.minutes else self.train.steps)

    def for_steps(self, steps: int | None) -> "Recipe":
        """The same recipe, trained for so many steps."""
        return self.model_copy(update={"train": self.train.model_copy(update={"steps": steps, "minutes": None})})

    def read(self, progress: Progress | None = None) -> Dataset:
        """The data, pictures packed at the first time; progress(done, total) is called while they are decoded."""
        if self.data.source.startswith(NOWHERE) and not Path(self.data.source).exists():
            raise PellucidError(f"{self.name} does not bring pictures; say where yours are: --data FOLDER, say.")
        return packed(self.data.source, size=self.data.size, channels=self.data.channels, progress=progress)

    def build(self, data: Dataset) -> Denoiser:
        """The untrained model for `data`, its weights drawn from the recipe's seed."""
        labels = {"name": "label", "classes": len(data.classes)} if data.classes else {"name": "none"}
        given = {"name": self.conditioner} if isinstance(self.conditioner, str) else self.conditioner or labels
        std = self.data_std or data.std
        net = {"name": self.net} if isinstance(self.net, str) else self.net
        told = {**labels, **given} if given.get("name") == labels["name"] else given
        if self.data.augment and not (data.pictures and len(data.shape) == 3):
            raise PellucidError(f"data.augment changes pictures, and {data.name} holds none; leave it out.")
        if count := augment.features(self.aim().augment):
            told = {"name": "augmented", "base": told, "features": count}
        config = {
            "shape": list(data.shape),
            "net": net | ({"out": 2 * data.shape[0]} if self.variance == "learned" else {}),
            "conditioner": told,
            "path": self.path,
            "prediction": {"name": "edm", "sd": std} if self.prediction == "edm" else self.prediction,  # its own scale
            "data_std": std,
            "spectrum": data.spectrum,
            "clock": self.clock,
        }
        return Denoiser.from_config(config, self.train.seed)

    def aim(self) -> Objective:
        """The objective."""
        times = times_registry.make(self.objective.times)
        weight, coupling = weight_registry.make(self.objective.weight), couplings.make(self.objective.coupling)
        return Objective(
            times,
            weight,
            self.objective.drop,
            self.objective.span,
            bound=self.objective.bound,
            coupling=coupling,
            augment=tuple(augment.registry.make(part) for part in self.data.augment),
        )

    def plan(self, model: Denoiser, data: Dataset, processes: int = 1) -> Plan:
        """The plan of training; where only minutes are given, a few steps of a copy tell how many fit."""
        names = ("batch", "seed", "accumulate", "precision", "workers", "compile", "parallel")
        settings = self.optim.model_dump() | {name: getattr(self.train, name) for name in names}
        settings["method"] = optimisers.make(self.optim.method)
        settings["averages"] = tuple(averages.make(part) for part in self.optim.averages)
        if self.train.minutes:
            return sized(model, data, Plan(**settings), self.aim(), self.train.minutes, processes)
        return Plan(steps=self.train.steps or 1, **settings)

    def toml(self) -> str:
        """This recipe, complete, as the TOML that `load` reads."""
        table = self.model_dump(exclude_none=True)
        sections = [key for key, field in Recipe.model_fields.items() if is_section(field.annotation)]
        lines = [f"{key} = {written(value)}" for key, value in table.items() if key not in sections]
        for section in sections:
            lines += ["", f"[{section}]", *(f"{key} = {written(value)}" for key, value in table[section].items())]
        return "\n".join(lines) + "\n"
