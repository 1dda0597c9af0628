r"""Watching: what a loss means, while it falls.

    held-out    mean of loss_i over samples that nobody learns from, with s/sqrt n
    excess      mean of loss_i(model) - loss_i(exact) >= 0

A training loss has no zero of its own: the noise cannot be known from x_t, and how far not hangs on the path, the
weight and the data. The exact denoiser of the training data (`oracle.Empirical`) has the least loss there is on it, so
what is above it is what the network has not learnt. Both denoisers meet the same data in the same noise at the same
times, frozen for the run, so that the difference is known better than either. A network that has reached 0 knows the
data by heart; the held-out loss says what that is worth.

Losses by level are those of training, for each eighth of the times drawn: every level is met equally often, whatever
the law of the times.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as File
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..conditioning import is_labelled
from ..coupling import Independent
from ..data import Dataset
from ..denoiser import Denoiser
from ..metrics.estimate import Estimate
from ..objective import Objective
from ..objective.weight import Chain
from ..oracle import EXACT, Empirical
from ..paths import Path
from ..predictions import Prediction
from ..types import Batch, Cond, Times, along
from .trackers import Journal, Journals, Tracker, needed, opened

LEVELS = 8
MOST = 200_000_000  # numbers in a training set whose exact denoiser is asked: CIFAR-10 has 154 million
FROZEN = 1 << 62  # the number of the first frozen sample: training never gets there
SAMPLES = 512


class Exact(NamedTuple):
    """The exact denoiser of a training set, which answers as a network of this path and prediction would."""

    data: Empirical
    path: Path
    prediction: Prediction

    def answer(self, x: Batch, t: Times, cond: Cond | None = None) -> tuple[Batch, None]:
        """a x0 + b eps, and no spread."""
        held = None if cond is None else {name: value.cpu() for name, value in cond.items()}
        pair = self.data.at(self.path)(x.cpu().double(), t, held)
        a, b = (along(weight, pair.x0) for weight in self.prediction.row(self.path, t))
        return (a * pair.x0 + b * pair.eps).to(x), None


def exact(model: Denoiser, data: Dataset, objective: Objective) -> Exact | None:
    """The least loss there is; none for data too large to ask, or seen otherwise than as it is, and none where the
    network lowers the loss by a variance too."""
    seen = not objective.augment and isinstance(objective.coupling, Independent) and data.train.noise is None
    spread = isinstance(objective.weight, Chain) and model.config()["net"].get("out", model.shape[0]) > model.shape[0]
    if not seen or spread or data.train.x.numel() > MOST:
        return None
    x, cond = data.batch(torch.arange(len(data.train.x)))
    return Exact(
        Empirical(x, cond.get("label") if is_labelled(model.conditioner) else None), model.path, model.prediction
    )


@torch.no_grad()
def losses(model: Denoiser | Exact, data: Dataset, objective: Objective, seed: int, n: int, split: Any) -> Tensor:
    """[n] the training loss of samples spread over a split, at frozen times in frozen noise; nothing is augmented."""
    half = data.test if split == "test" else data.train
    assert half is not None
    plain, found = replace(objective, augment=(), bound=0.0), []
    rows = torch.arange(n) * len(half.x) // n  # each as often as any other
    device = model.device if isinstance(model, Denoiser) else torch.device("cpu")
    for part in torch.arange(n).split(128):
        x0, cond = data.batch(rows[part], split)
        lesson = plain.lesson(x0, cond, seed, FROZEN + part).to(device)
        found.append(plain(model, lesson, seed).cpu().double())  # type: ignore[arg-type]
    return torch.cat(found)


def held_out(model: Denoiser, data: Dataset, objective: Objective, seed: int = 0, n: int = SAMPLES) -> Estimate | None:
    """The loss on samples held out, if there are any."""
    if data.test is None:
        return None
    return mean(losses(model, data, objective, seed, n, "test"))


def excess(model: Denoiser, data: Dataset, objective: Objective, seed: int = 0, n: int = SAMPLES) -> Estimate | None:
    """The training loss above the least there is; None where that cannot be asked (see `exact`)."""
    least = exact(model, data, objective)
    if least is None:
        return None
    both = [losses(who, data, objective, seed, n, "train") for who in (model, least)]
    return mean(both[0] - both[1])


def mean(values: Tensor) -> Estimate:
    """Their mean, and its standard error."""
    return Estimate(values.mean().item(), values.std().item() / len(values) ** 0.5)


def look(data: Dataset, objective: Objective, seed: int, n: int = SAMPLES) -> Callable[[Denoiser], dict[str, float]]:
    """What a row of the record says of a model: its held-out and its excess loss, with their standard errors."""

    def say(model: Denoiser) -> dict[str, float]:
        row: dict[str, float] = {}
        asked = n if data.train.x.numel() <= EXACT else max(2, n // 4)  # the exact denoiser looks at all of them
        for name, ask, some in (("held_out", held_out, n), ("excess", excess, asked)):
            if found := ask(model, data, objective, seed, some):
                row |= {name: found.value, f"{name}_error": found.error}
        return row

    return say


def by_level(objective: Objective, seed: int, index: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """[LEVELS] the sums of the losses of samples number `index` in each eighth of the times, and how many they are."""
    place = (objective.times.numbers(seed, index) * LEVELS).long()
    sums = torch.zeros(LEVELS, dtype=torch.float64).index_add(0, place, losses.cpu().double())
    return sums, torch.bincount(place, minlength=LEVELS)


def lams(objective: Objective, path: Path) -> list[float]:
    """lam in the middle of each eighth of the times."""
    middles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    with torch.no_grad():
        return [round(lam, 4) for lam in path.lam(objective.times.times(middles, path)).tolist()]


class Work(NamedTuple):
    """The floating-point operations that a sample costs, forth and back, and the most that were measured a second."""

    sample: float
    peak: float

    def row(self, rate: float) -> dict[str, float]:
        """At so many samples a second."""
        return {"flops": self.sample * rate, "of_peak": self.sample * rate / self.peak}


def work(model: Denoiser, data: Dataset, objective: Objective, precision: str, devices: int = 1) -> Work:
    """Counted on a copy with two samples; the peak is that of a matrix product in the same precision on each device."""
    copied, index = copy.deepcopy(model).eval(), torch.arange(2)
    x0, cond = data.batch(index % len(data.train.x))
    with FlopCounterMode(display=False) as counter:
        objective(copied, objective.lesson(x0, cond, 0, index).to(model.device), 0).mean().backward()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Work(counter.get_total_flops() / 2, devices * peak(model.device, dtype))


def peak(device: torch.device, dtype: torch.dtype, turns: int = 4) -> float:
    """Operations a second in the best of a few matrix products."""
    n = 768 if device.type == "cpu" else 8192
    a, best = torch.ones(n, n, device=device, dtype=dtype), float("inf")
    for _ in range(turns):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


@dataclass(frozen=True)
class Watch:
    """Who is told what goes on, with the settings of the run: each row of the record, with the pace of the work, and
    how a model does now and then.

    look: what is said of the averaged model, `every` so many steps.
    """

    trackers: Sequence[Tracker] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    work: Work | None = None
    look: Callable[[Denoiser], dict[str, float]] | None = None
    every: int = 1000

    def __post_init__(self) -> None:
        for tracker in self.trackers:
            needed(tracker.module)

    def open(self, folder: File, leads: bool) -> Journal:
        """The journals of the run in `folder`, as one; where another process leads, none."""
        return Journals({each.module: opened(each, folder, self.settings) for each in self.trackers if leads})

    def pace(self, rate: float) -> dict[str, float]:
        """What is known of the work, at so many samples a second."""
        return self.work.row(rate) if self.work else {}
