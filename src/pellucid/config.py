"""Recipes: everything that decides what is trained and how it is drawn, as TOML.

`key.sub=value` on the command line overrides one setting, its value read as TOML. A key that does not exist, a value
of the wrong kind, a part that nobody registered: one sentence says which.
"""

import json
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, model_validator

from . import grids, guidance, paths, predictions, samplers
from .checkpoint import folders
from .coupling import registry as couplings
from .data import Dataset, Progress, augment, packed, toys
from .denoiser import Denoiser
from .ema import registry as averages
from .errors import PellucidError, unknown
from .noise import Kind
from .objective import Objective
from .objective import times as times_registry
from .objective import weights as weight_registry
from .registry import Registry
from .settings import Calls, Count, Natural, Part, Section, Share, is_section
from .training import Plan
from .training.optimisers import registry as optimisers
from .training.run import sized
from .training.trackers import registry as trackers

MAY_CHANGE = (
    *("name", "train.steps", "train.minutes", "train.save", "train.sample", "train.snapshot", "sample.", "eval."),
    *("train.threads", "train.accumulate", "train.workers", "train.compile", "train.parallel", "train.track"),
)
"""What may differ when a run goes on: how long it takes and what it shows, not what it learns."""

NOWHERE = "path/to/"
"""Begins the source of a recipe that works on the user's own pictures."""

Decay = Annotated[float, Field(ge=0, lt=1)]


def named(name: str) -> str:
    """A run's name, which is a folder's."""
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise PellucidError(f"name is {name!r}; expected the name of one folder, such as digits.")
    return name


def several(parts: Any) -> Any:
    """A list of parts; one alone is a list of one."""
    return [parts] if isinstance(parts, str | dict) else parts


class Data(Section):
    """Which data: a toy, "digits", a folder or .zip of pictures, a .parquet or .npz file, "hub:NAME", a store."""

    source: Annotated[str, Field(min_length=1)]
    size: Count | None = None  # side of the pictures; as they are
    channels: Literal[1, 3] | None = None  # grey or colour; as they are
    augment: Annotated[tuple[Part, ...], BeforeValidator(several)] = ()  # in turn, such as ["flip"] or ["edm"]


class Aim(Section):
    """What training lowers: the times it looks at, the weight of each, how often a condition is withheld."""

    times: Part = "stratified"
    weight: Part = "unit"
    drop: Share = 0.1
    bound: Annotated[float, Field(ge=0)] = 0.0  # how much of the variational bound, where the variance is learned
    coupling: Part = "independent"  # of noise and data
    span: tuple[Share, Share] = (1e-5, 1 - 1e-5)  # quantiles of the times, between which they are drawn


class Optim(Section):
    """The optimiser, the course of its learning rate, and the moving average of the weights."""

    method: Part = "adamw"
    lr: PositiveFloat = 1e-3
    warmup: Natural = 100  # steps
    decay: Literal["constant", "cosine", "linear", "rsqrt"] = "cosine"  # rsqrt: sqrt(warmup/step)
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: PositiveFloat = 1.0
    ema: Decay = 0.999
    averages: Annotated[tuple[Part, ...], BeforeValidator(several)] = ()  # beside it, such as ["power"]


class Train(Section):
    """How long, on what batches, from which seed, and what is written on the way."""

    steps: Count | None = None
    minutes: PositiveFloat | None = None  # or instead: as many steps as fit
    batch: Count = 128
    seed: Natural = 0
    save_every: Count = 1000  # steps
    sample_every: Count = 1000  # steps
    snapshot_every: Count = 1000  # steps: of power averages, for pellucid ema
    threads: Annotated[int, Field(gt=0, le=1024)] | None = None  # as many as torch takes
    accumulate: Count = 1  # parts in which a batch is worked off, to take less memory
    precision: Literal["float32", "bf16"] = "float32"  # of the network's arithmetic, not of its weights
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None  # threads that make batches; 2 beside an accelerator
    compile: bool = False  # torch.compile the blocks that the network repeats
    parallel: Literal["ddp", "fsdp"] = "ddp"  # the model on several devices: whole on each, or in shares
    track: Annotated[tuple[Part, ...], BeforeValidator(several)] = ()  # who is told: tensorboard, wandb, trackio

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            found = "neither steps nor" if self.steps is None else "both steps and"
            raise PellucidError(f"train has {found} minutes; say how long by one of them, such as train.steps=2000.")
        return self


class Sample(Section):
    """How samples are drawn where nothing else is asked for."""

    sampler: Part = "scales"
    steps: Calls = 20
    grid: Part = "scales"
    noise: Kind = "independent"
    guidance: float = 1.0
    rule: Part = "cfg"  # of the guidance


class Eval(Section):
    """How samples are measured as training goes on; without `every`, they are not."""

    every: Count | None = None  # steps
    n: Count = 500  # samples
    features: str | None = None  # what suits the data


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
        rule = {"name": self.sample.rule} if isinstance(self.sample.rule, str) else self.sample.rule
        guidance.registry.make({**rule, "scale": self.sample.guidance})
        return self

    @staticmethod
    def load(spec: str | Path, overrides: Sequence[str] = (), system: str | None = None) -> "Recipe":
        """The recipe that `spec` means, as a system of the literature would have it, with `key.sub=value` overrides.

        spec: the name of a shipped recipe, a .toml file, the folder of a run, or a source of data, which the recipe
        "toy-2d" or "pictures" then trains on. system: ddpm, edm, flow, ...: its mathematics over the recipe's data,
        network and pace.
        """
        table = _find(str(spec))
        if system is not None:
            table = _as_system(table, system)
        for setting in overrides:
            _override(table, setting)
        return Recipe.parse(table)

    def goes_on(self, earlier: "Recipe") -> "Recipe":
        """This recipe as it continues a run that `earlier` began; what cannot change on the way is refused."""
        old, new = _flat(earlier.model_dump()), _flat(self.model_dump())
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
        lines = [f"{key} = {_toml(value)}" for key, value in table.items() if key not in sections]
        for section in sections:
            lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in table[section].items())]
        return "\n".join(lines) + "\n"


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of a nested table under its dotted key."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def shipped(room: Literal["recipes", "systems"] = "recipes") -> dict[str, str]:
    """The recipes, or the systems, that come with pellucid: their TOML by name."""
    found = [file for file in files(__package__).joinpath(room).iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): file.read_text("utf-8") for file in sorted(found, key=lambda f: f.name)}


def _find(spec: str) -> dict[str, Any]:
    """The table that `spec` means (see Recipe.load)."""
    path, recipes = Path(spec), shipped()
    if not spec:
        raise PellucidError("the source is empty; expected a recipe, a run, or a source of data.")
    if spec in recipes:
        return tomllib.loads(recipes[spec])
    if (path / "recipe.toml").is_file():
        return _read(path / "recipe.toml")
    if folders(path):
        raise PellucidError(f"{path} is a run without its recipe.toml; put it back, or give another source.")
    if path.suffix == ".toml":
        return {"name": path.stem, **_read(path)}
    toy = spec.lower() in toys.registry.aliases
    if toy or path.exists() or spec.startswith("hub:"):
        table = tomllib.loads(recipes["toy-2d" if toy else "pictures"])
        data = {"source": spec} if path.suffix == ".npz" else {**table["data"], "source": spec}  # arrays stay
        return table | {"name": Path(path.resolve().name.removeprefix("hub:")).stem, "data": data}
    if len(path.parts) > 1 or path.suffix:
        raise PellucidError(f"there is no {spec}; expected a recipe, a run, or a source of data.")
    raise unknown("recipe or source of data", spec, [*recipes, *toys.registry.names()])


def _as_system(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The table with a system's parts in place of its own; of sections and the network, what the system names."""
    known = shipped("systems")
    if name not in known:
        raise unknown("system", name, known)
    own = {key: {"name": value} if key == "net" and isinstance(value, str) else value for key, value in table.items()}
    for key, value in tomllib.loads(known[name]).items():
        own[key] = {**own.get(key, {}), **value} if key in ("net", "objective", "sample") else value
    return own | {"name": f"{table['name']}-{name}"}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PellucidError(f"cannot read the recipe {path}: {(error.strerror or str(error)).lower()}.") from None
    except ValueError as error:
        raise PellucidError(f"the recipe {path} is not TOML: {str(error).rstrip('.')}.") from None


def _override(table: dict[str, Any], setting: str) -> None:
    """Set one `key.sub=value` in the table; a part written as its name becomes the table of that name."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise PellucidError(f"{setting!r} is no setting; expected key=value, such as optim.lr=1e-3.")
    *outer, last = key.strip().split(".")
    for word in outer:
        inner = table.get(word, {})
        table[word] = {"name": inner} if isinstance(inner, str) else inner
        table = table[word]
        if not isinstance(table, dict):
            raise PellucidError(f"{key.strip()!r} is no setting: {word!r} has no settings of its own.")
    table[last] = _value(text.strip())
    if rival := {"train.steps": "minutes", "train.minutes": "steps"}.get(key.strip()):
        table.pop(rival, None)


def _value(text: str) -> Any:
    """A value as TOML has it; anything else is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers, true and false are the same in both
