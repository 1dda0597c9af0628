"""The plan of a training run: how long, how fast, and with what care.

    lr(n) = lr min(1, (n + 1)/warmup) decay(n),    n = 0, 1, 2 ...

A decay is a function of the step and the plan; a roll-back halves what comes of it (see guards.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..ema import Average
from ..errors import PellucidError, integer
from . import optimisers
from .optimisers import Optimiser

DECAYS: "dict[str, Callable[[int, Plan], float]]" = {
    "constant": lambda n, plan: 1.0,
    "cosine": lambda n, plan: (1 + math.cos(math.pi * min(n / plan.steps, 1.0))) / 2,
    "linear": lambda n, plan: 1 - min(n / plan.steps, 1.0),
    "rsqrt": lambda n, plan: min(1.0, math.sqrt(max(plan.warmup, 1) / (n + 1))),  # Vaswani et al. 2017, eq. 3
}
PRECISIONS, PARALLELS = ("float32", "bf16"), ("ddp", "fsdp")


@dataclass(frozen=True)
class Plan:
    """How long and how fast: `steps` of `batch` samples, at `lr` with `warmup` steps and a decay, EMA.

    method      the optimiser, or its name; its betas, and the weight decay of matrices and kernels
    averages    further averages beside the one that is sampled
    accumulate  parts in which a batch is worked off, one after the other, to take less memory
    precision   of the network's arithmetic, "float32" or "bf16"; weights and their average are float32 in any case
    workers     threads that make the next batches meanwhile; None: 2 beside an accelerator, none beside a CPU
    compile     torch.compile the blocks that the network repeats (without the kernels of nets/kernels)
    parallel    how several processes share the model (see parallel.py)
    """

    steps: int = 5000
    batch: int = 128
    seed: int = 0
    method: Optimiser | str = "adamw"
    lr: float = 1e-3
    warmup: int = 100
    decay: Literal["constant", "cosine", "linear", "rsqrt"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    averages: tuple[Average, ...] = ()
    accumulate: int = 1
    precision: Literal["float32", "bf16"] = "float32"
    workers: int | None = None
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "batch": 1, "accumulate": 1, "seed": 0, "warmup": 0, "workers": 0}.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, integer(name, value, least))
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise PellucidError(f"{name} is {getattr(self, name)}; expected a positive number.")
        if not 0 <= self.weight_decay < math.inf:
            raise PellucidError(f"weight_decay is {self.weight_decay}; expected 0 or a positive number.")
        for name, decay in {"ema": self.ema, "a beta": min(self.betas), "a further beta": max(self.betas)}.items():
            if not 0 <= decay < 1:
                raise PellucidError(f"{name} is {decay}; expected a decay from 0 (none) to below 1, such as 0.999.")
        for name, kinds in {"decay": DECAYS, "precision": PRECISIONS, "parallel": PARALLELS}.items():
            if getattr(self, name) not in kinds:
                raise PellucidError(f"{name} is {getattr(self, name)!r}; expected one of: {', '.join(kinds)}.")
        optimisers.registry.resolve(self.method)
        if self.accumulate > self.batch:
            raise PellucidError(f"accumulate is {self.accumulate}; expected at most the batch, {self.batch}.")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.lr * min(1.0, (step + 1) / max(self.warmup, 1)) * DECAYS[self.decay](step, self)
