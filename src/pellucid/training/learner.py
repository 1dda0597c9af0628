"""The learner: the whole state of a training run, and the step that moves it on.

g = grad 1/B sum_i loss_i,    theta <- method(theta, g min(1, clip/|g|), lr(n)),    ema <- lerp(ema, theta)
"""

import copy
import json
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..checkpoint import Checkpoint, flatten_optimizer, restore_optimizer
from ..coupling import Independent
from ..data import Dataset
from ..denoiser import Denoiser, seeded
from ..ema import EMA
from ..errors import PellucidError, is_short_of_memory
from ..nets.dropout import dropping
from ..noise import LOSE, ORDER, words
from ..objective import Lesson, Objective
from ..world import ALONE, World, held, placed, whole
from . import optimisers
from .ahead import ahead
from .guards import Bad, Guard, report
from .machine import compare, machine
from .parallel import Teacher, apart, shared
from .plan import Plan
from .watch import by_level

SUSPECTS = 4  # samples named for a bad step whose losses are all finite: those of the largest


class Progress(NamedTuple):
    """What one step has to say. `loss` and `grad` (the gradient's norm) are its own, `seconds` since the loop began."""

    step: int
    steps: int
    images: int
    loss: float
    grad: float
    lr: float
    skipped: int  # bad steps so far
    fault: str | None  # why this step is one of them
    seconds: float
    rate: float  # images a second
    left: float  # seconds


class Learner:
    """A model in training: weights, EMA, optimiser, what its times heard, the number of steps done, what went wrong.

    Nothing else changes but `parts`, in which a batch is worked off: more where memory is short, to the same gradient.
    """

    def __init__(
        self,
        model: Denoiser,
        data: Dataset,
        plan: Plan | None = None,
        objective: Objective | None = None,
        world: World = ALONE,
    ) -> None:
        if model.shape != data.shape:
            raise PellucidError(f"the model takes shape {model.shape}, the data has {data.shape}; make them equal.")
        self.model, self.data = model, data
        self.plan, self.world = plan or Plan(), world
        self.objective = copy.deepcopy(objective or Objective())  # its times may learn, from this run alone
        if self.plan.batch < world.size:
            raise PellucidError(f"batch is {self.plan.batch}; expected a sample or more for each of {world.size}.")
        if self.plan.compile:
            compile_blocks(model.net)
        self._bare = copy.deepcopy(model).cpu() if world.size > 1 and self.plan.parallel == "fsdp" else model
        self.teacher = shared(Teacher(model, self.objective, self.plan.seed), self.plan.parallel, world)
        self.ema = EMA(model, self.plan.ema, *self.plan.averages)
        rates = self.plan.lr, self.plan.betas, self.plan.weight_decay
        self.optimizer = optimisers.registry.resolve(self.plan.method).make(model, *rates)
        self.step, self.parts, self.guard = 0, self.plan.accumulate, Guard()
        self.losses = torch.zeros(self.plan.batch)  # of the last step
        if world.size > 1:  # torch settles the order of its sums after the first gradient: a resumed run has that order
            self.gradient(self.lesson(0))
            self.optimizer.zero_grad(set_to_none=True)

    def advance(self, lesson: Callable[[int], Lesson] | None = None) -> tuple[float, float, str | None]:
        """One step: (mean loss, norm of the gradient, what is wrong with them). A bad one changes no weight."""
        losses = self.gradient((lesson or self.lesson)(self.step))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip, foreach=True)
        self.losses, loss, grad = losses, losses.mean().item(), whole(norm).item()
        if fault := self.guard.fault(loss, grad):
            self.guard = self.guard.skip(Bad(self.step, fault, self._suspected(losses)))
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
            self.objective.hear(self.model.path, losses, self.plan.seed, self.counters(self.step))
            self.optimizer.step()
            self.ema.update(self.model)
            self.guard = self.guard.sound(grad)
        self.step += 1
        return loss, grad, fault

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.plan.rate(self.step) * self.guard.rate

    def counters(self, step: int) -> Tensor:
        """[batch] the numbers of a step's samples, counted from the first of the run."""
        return torch.arange(step * self.plan.batch, (step + 1) * self.plan.batch)

    def lesson(self, step: int) -> Lesson:
        """What a step learns from: a function of the seed and the step alone, on the CPU; this process's rows of it."""
        index, mine = self.counters(step), self.world.rows(self.plan.batch)
        alone = isinstance(self.objective.coupling, Independent)  # or else a sample's noise hangs on the whole batch
        index = index[mine] if alone else index
        x0, cond = self.data.batch(self.rows(index))
        lesson = self.objective.lesson(x0, cond, self.plan.seed, index)
        return lesson if alone else lesson.split(self.world.size)[self.world.rank]

    def rows(self, index: Tensor) -> Tensor:
        """The rows of the data that samples number `index` are."""
        return order(self.plan.seed, len(self.data.train.x), index)

    def gradient(self, lesson: Lesson) -> Tensor:
        """[batch] losses; the gradient of their mean is left in the parameters. Memory runs short: in smaller parts.

        Not in a world, where the others are in the midst of it.
        """
        while True:
            try:
                return self._gradient(lesson)
            except RuntimeError as error:
                if not is_short_of_memory(error) or self.parts >= self.plan.batch or self.world.size > 1:
                    raise
            self.parts = min(2 * self.parts, self.plan.batch)  # here, where the frames that hold memory are gone
            self.optimizer.zero_grad(set_to_none=True)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _gradient(self, lesson: Lesson) -> Tensor:
        model, share = self.model.train(), self.world.size / self.plan.batch
        found: list[Tensor] = []
        split = lesson.split(min(self.parts, self.plan.batch // self.world.size))  # as many for all of a world
        cast = torch.autocast(model.device.type, torch.bfloat16, enabled=self.plan.precision == "bf16")
        seed = sha256(f"{self.plan.seed} {self.step}".encode()).digest()[:4]
        with seeded(int.from_bytes(seed), model.device):  # for networks that draw for themselves
            for part in split:
                own, last = dropping(model.net, partial(self._lost, part.number)), part is split[-1]
                with own, apart(self.teacher, last):
                    with cast:
                        loss = self.teacher(part.to(model.device))
                    if not found:  # now, and not before: what it frees is wanted at once
                        self.optimizer.zero_grad(set_to_none=True)
                    (loss.sum() * share).backward()  # of which the world takes the mean
                found.append(loss.detach())
        losses = self.world.joined(torch.cat(found), self.plan.batch)
        self.objective.even(model.path, losses, self.plan.seed, self.counters(self.step))
        return losses

    def _lost(self, index: Tensor, layer: int) -> Tensor:
        """[b] the keys by which samples number `index` drop activations in a layer."""
        return words(self.plan.seed, index, layer, LOSE, 1)[:, 0]

    def fit(self) -> Generator[Progress, None, None]:
        """Train to the end of the plan, from wherever the state stands. Who listens may set it back meanwhile."""
        steps, batch, workers = self.plan.steps, self.plan.batch, self.plan.workers
        if workers is None:
            workers = 0 if self.model.device.type == "cpu" else 2
        began, done = time.perf_counter(), 0
        with ahead(self.lesson, workers, steps) as lesson:
            while self.step < steps:
                lr = self.rate
                loss, grad, fault = self.advance(lesson)
                done += 1
                seconds = time.perf_counter() - began
                pace = seconds / done
                timing = seconds, batch / pace, pace * (steps - self.step)
                yield Progress(self.step, steps, self.step * batch, loss, grad, lr, self.guard.skipped, fault, *timing)
                if self.guard.lost:
                    raise PellucidError(report(self.guard, self.suspects))

    def by_level(self) -> tuple[list[float], list[int]]:
        """The last step's losses by level: their sums, and how many they are."""
        sums, counts = by_level(self.objective, self.plan.seed, self.counters(self.step - 1), self.losses)
        return sums.tolist(), counts.tolist()

    def suspects(self, samples: Sequence[int]) -> list[tuple[int, float]]:
        """(row of the data, noise level sigma/alpha) of samples by their numbers."""
        index, path = torch.tensor(samples, dtype=torch.int64), self.model.path
        with torch.no_grad():
            levels = torch.exp(-path.lam(self.objective.draw(path, self.plan.seed, index)))
        return list(zip(self.rows(index).tolist(), levels.tolist(), strict=True))

    def _suspected(self, losses: Tensor) -> tuple[int, ...]:
        """The counters of the samples whose loss is not finite, or else of those with the largest."""
        wrong = (~losses.isfinite()).nonzero().flatten()
        found = wrong if len(wrong) else losses.topk(min(SUSPECTS, len(losses))).indices
        return tuple(sorted(self.counters(self.step)[found.cpu()].tolist()))

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The state as named tensors, for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            **self.ema.groups(),
            "optim": flatten_optimizer(self.optimizer),
            **({"times": heard} if (heard := self.objective.memory()) else {}),
        }

    def meta(self) -> dict[str, Any]:
        """The rest of the state as plain data, for a manifest, with all that says what is trained."""
        return {
            "step": self.step,
            "images": self.step * self.plan.batch,
            **self._course(),
            "parts": self.parts if self.parts > self.plan.accumulate else 1,  # what memory asked for, not the plan
            "updates": self.ema.updates,
            "guard": self.guard.describe(),
            "data": self.data.mark,
            "machine": machine(self.model.device),
            "config": self.model.config(),
        }

    def is_finite(self) -> bool:
        """Whether every number of the state is finite."""
        groups = self.tensors().values()
        return not self.world.any(not all(bool(held(value).isfinite().all()) for g in groups for value in g.values()))

    def averaged(self) -> Denoiser:
        """The model with its averaged weights, ready to sample: a copy, and whole on every process."""
        model = copy.deepcopy(self._bare).to(self.model.device)
        model.load_state_dict({name: whole(value) for name, value in self.ema.groups()["ema"].items()})
        return model.eval().requires_grad_(False)

    def restore(self, found: Checkpoint) -> None:
        """Take the state of a checkpoint; that of another model, seed or batch, or of other classes, is refused."""
        try:
            self._is_mine(found.meta)
            own = self.model.state_dict()
            self.model.load_state_dict({n: placed(v, own.get(n)) for n, v in found.tensors["model"].items()})
            self.step = int(found.meta["step"])
            self.parts = max(self.plan.accumulate, int(found.meta.get("parts", 1)))
            self.guard = Guard.read(found.meta["guard"]) if "guard" in found.meta else Guard()
            self.ema.load(found.tensors, int(found.meta.get("updates", self.step)))
            restore_optimizer(self.optimizer, found.tensors["optim"])
            self.objective.recall(found.tensors.get("times", {}))
        except PellucidError:
            raise
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".:")
            raise PellucidError(f"the checkpoint cannot be gone on from ({why}); take another run folder.") from None

    def _course(self) -> dict[str, Any]:
        """What the numbers of the steps and samples mean, and the optimiser's state."""
        method = optimisers.registry.describe(optimisers.registry.resolve(self.plan.method))
        plan, data = self.plan, self.data
        said = {"seed": plan.seed, "batch": plan.batch, "method": method}
        return said | {"rows": len(data.train.x), "classes": list(data.classes)}

    def _is_mine(self, meta: dict[str, Any]) -> None:
        course = self._course()
        mine = json.loads(json.dumps(self.model.config() | course))
        theirs = meta["config"] | {key: meta.get(key, mine[key]) for key in course}
        for key in mine.keys() - {"data_std", "spectrum"}:  # measured: its last digits are the machine's
            if mine[key] != theirs[key]:
                difference = f"{key} = {theirs[key]!r}, not {mine[key]!r}"
                raise PellucidError(f"the checkpoint has {difference}; take another run folder.")
        if meta.get("data", self.data.mark) != self.data.mark:
            warnings.warn("the data has changed since the run began; it goes on with what is there now.", stacklevel=2)
        compare(meta.get("machine", {}), machine(self.model.device))


def compile_blocks(net: nn.Module) -> None:
    """Compile, in place, what a network repeats: one program serves all blocks of a kind, so that it is soon made."""
    for blocks in net.modules():
        if isinstance(blocks, nn.ModuleList):
            for block in blocks:
                block.compile()


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
