"""The sections of a recipe: what each setting is called, what it may be, and what an expert would choose."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from ..errors import PellucidError
from ..noise import Kind
from ..settings import Calls, Count, Natural, Part, Section, Share

Decay = Annotated[float, Field(ge=0, lt=1)]


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
