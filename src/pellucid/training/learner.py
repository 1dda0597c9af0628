"""The learner: the whole state of a training run, and the step that moves it on.

The learning rate is a function of the step:  lr(n) = lr min(1, (n + 1)/warmup) decay(n/steps).
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..checkpoint import Checkpoint, flatten_optimizer, restore_optimizer
from ..data import Dataset
from ..denoiser import Denoiser
from ..ema import EMA
from ..errors import PellucidError
from ..noise import ORDER, words
from ..objective import Objective

DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * min(done, 1.0))) / 2,
    "linear": lambda done: 1 - min(done, 1.0),
}


@dataclass(frozen=True)
class Plan:
    """How long and how fast: `steps` of `batch` samples, AdamW at `lr` with `warmup` steps and a decay, EMA."""

    steps: int = 5000
    batch: int = 128
    seed: int = 0
    lr: float = 1e-3
    warmup: int = 100
    decay: Literal["constant", "cosine", "linear"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise PellucidError(f"{name} is {getattr(self, name)}; expected a whole number, 1 or more.")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise PellucidError(f"{name} is {getattr(self, name)}; expected a positive number.")
        if not 0 <= self.ema < 1:
            raise PellucidError(f"ema is {self.ema}; expected a decay from 0 (none) to below 1, such as 0.999.")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.lr * min(1.0, (step + 1) / max(self.warmup, 1)) * DECAYS[self.decay](step / self.steps)


class Progress(NamedTuple):
    """What one step has to say. `loss` and `grad` (the gradient's norm) are its own, `seconds` since the loop began."""

    step: int
    steps: int
    images: int
    loss: float
    grad: float
    lr: float
    seconds: float
    rate: float  # images a second
    left: float  # seconds


class Learner:
    """A model in training: weights, EMA, optimiser and the number of steps done. Nothing else changes."""

    def __init__(
        self, model: Denoiser, data: Dataset, plan: Plan | None = None, objective: Objective | None = None
    ) -> None:
        if model.shape != data.shape:
            raise PellucidError(f"the model takes shape {model.shape}, the data has {data.shape}; make them equal.")
        self.model, self.data = model, data
        self.plan, self.objective = plan or Plan(), objective or Objective()
        self.ema = EMA(model, decay=self.plan.ema)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), self.plan.lr, self.plan.betas, weight_decay=self.plan.weight_decay, fused=True
        )
        self.step = 0

    def advance(self) -> tuple[float, float]:
        """One step: (mean loss, norm of the gradient)."""
        plan, first = self.plan, self.step * self.plan.batch
        index = torch.arange(first, first + plan.batch)
        x0, cond = self.data.batch(order(plan.seed, len(self.data.train.x), index))
        device = self.model.device
        cond = {name: value.to(device) for name, value in cond.items()}
        loss = self.objective(self.model.train(), x0.to(device), cond, plan.seed, index).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan.clip, foreach=True)
        if not math.isfinite(norm.item()):
            raise PellucidError(
                f"the loss became {loss.item()} at step {self.step} (lr {plan.rate(self.step):.2g}); "
                "nothing of that step was kept: lower optim.lr and train again."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = plan.rate(self.step)
        self.optimizer.step()
        self.ema.update(self.model)
        self.step += 1
        return loss.item(), norm.item()

    def fit(self) -> Iterator[Progress]:
        """Train to the end of the plan, from wherever the state stands."""
        began, first = time.perf_counter(), self.step
        while self.step < self.plan.steps:
            loss, grad = self.advance()
            seconds = time.perf_counter() - began
            pace = seconds / (self.step - first)
            left = pace * (self.plan.steps - self.step)
            images, rate = self.step * self.plan.batch, self.plan.batch / pace
            lr = self.plan.rate(self.step - 1)
            yield Progress(self.step, self.plan.steps, images, loss, grad, lr, seconds, rate, left)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The state as named tensors, for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optim": flatten_optimizer(self.optimizer),
        }

    def restore(self, found: Checkpoint) -> None:
        """Take the state of a checkpoint; that of another model or seed is refused."""
        try:
            self._is_mine(found.meta)
            self.model.load_state_dict(found.tensors["model"])
            self.step = int(found.meta["step"])
            self.ema.load_state_dict(found.tensors["ema"], self.step)
            restore_optimizer(self.optimizer, found.tensors["optim"])
        except PellucidError:
            raise
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".:")
            raise PellucidError(f"the checkpoint cannot be gone on from ({why}); take another run folder.") from None

    def _is_mine(self, meta: dict[str, Any]) -> None:
        mine = json.loads(json.dumps({**self.model.config(), "seed": self.plan.seed}))
        theirs = {"seed": self.plan.seed, **meta["config"]} | ({"seed": meta["seed"]} if "seed" in meta else {})
        for key in mine.keys() - {"data_std"}:  # measured: its last digits are the machine's
            if mine[key] != theirs[key]:
                difference = f"{key} = {theirs[key]!r}, not {mine[key]!r}"
                raise PellucidError(f"the checkpoint has {difference}; take another run folder.")


def order(seed: int, n: int, index: Tensor) -> Tensor:
    """[b] rows of the data: counter i of a run reads row perm(seed, i // n)[i % n]."""
    rows = torch.empty_like(index)
    for epoch in (index // n).unique().tolist():
        here = index // n == epoch
        rows[here] = _permutation(seed, n, epoch)[index[here] % n]
    return rows


@lru_cache(maxsize=2)
def _permutation(seed: int, n: int, epoch: int) -> Tensor:
    high, low = words(seed, torch.arange(n), epoch, ORDER, 2).unbind(1)
    return (high << 31 | low >> 1).argsort(stable=True)
