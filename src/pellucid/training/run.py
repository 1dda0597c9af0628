"""A run: the folder in which a training lives.

runs/NAME/  recipe.toml  metrics.jsonl  checkpoints/step_0001000/  samples/step_0001000.png
"""

import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checkpoint import folders, latest, save
from ..data import Dataset
from ..denoiser import Denoiser
from ..objective import Objective
from .learner import Learner, Plan, Progress


@dataclass(frozen=True)
class Run:
    """Where a training is kept, and how often. `meta` goes into every checkpoint; `draw` makes a sample grid."""

    folder: Path
    meta: dict[str, Any] = field(default_factory=dict)
    save_every: int = 1000
    draw_every: int = 1000
    log_every: int = 50
    keep: int = 2
    draw: Callable[[Denoiser, Path], None] | None = None

    def fit(self, learner: Learner) -> Iterator[Progress]:
        """Train to the end, resuming from the newest whole checkpoint, and keep the record."""
        if folders(self.folder):
            learner.restore(latest(self.folder))
            self._rewind(learner.step)
        elif self.draw:
            self.picture(learner)
        losses: list[float] = []
        for progress in learner.fit():
            losses.append(progress.loss)
            last = progress.step == progress.steps
            if progress.step % self.log_every == 0 or last:
                self._log(progress, sum(losses) / len(losses))
                losses.clear()
            if progress.step % self.save_every == 0 or last:
                self.save(learner)
            if self.draw and (progress.step % self.draw_every == 0 or last):
                self.picture(learner)
            yield progress

    def save(self, learner: Learner) -> Path:
        """Write a checkpoint, then prune all but the newest `keep`."""
        meta = {**self.meta, "step": learner.step, "images": learner.step * learner.plan.batch}
        meta |= {"config": learner.model.config(), "seed": learner.plan.seed, "classes": list(learner.data.classes)}
        done = save(self.folder / "checkpoints" / f"step_{learner.step:07d}", learner.tensors(), meta)
        for old in folders(self.folder)[self.keep :]:
            shutil.rmtree(old)
        return done

    def picture(self, learner: Learner) -> None:
        """Samples of the EMA weights from the run's fixed noise."""
        assert self.draw is not None
        path = self.folder / "samples" / f"step_{learner.step:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with learner.ema.applied(learner.model.eval()):
            self.draw(learner.model, path)

    def _log(self, progress: Progress, loss: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        row = {**progress._asdict(), "loss": loss, "time": time.time()}
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def _rewind(self, step: int) -> None:
        """Drop the rows that a killed run wrote after its last checkpoint: they will be written again."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            rows = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            path.write_text("".join(f"{row}\n" for row in rows))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")  # a torn last line


def train(
    model: Denoiser,
    data: Dataset,
    plan: Plan | None = None,
    objective: Objective | None = None,
    *,
    run: Run | str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Denoiser:
    """Train `model` (in place) on `data`; returns a copy that holds the EMA weights, ready to sample.

    run: a folder to keep the training in, resumed if it holds a checkpoint. progress: called after each step.
    """
    learner = Learner(model, data, plan, objective)
    keeper = Run(Path(run)) if isinstance(run, str | Path) else run
    for report in keeper.fit(learner) if keeper else learner.fit():
        if progress:
            progress(report)
    with learner.ema.applied(model):
        return copy.deepcopy(model).eval().requires_grad_(False)


def sized(model: Denoiser, data: Dataset, plan: Plan, objective: Objective, minutes: float, trials: int = 8) -> Plan:
    """`plan` with as many steps as fit in `minutes` here, by the pace of a few steps of a copy."""
    copied = Learner(copy.deepcopy(model), data, plan, objective)
    copied.advance()
    began = time.perf_counter()
    for _ in range(trials):
        copied.advance()
    pace = (time.perf_counter() - began) / trials
    return replace(plan, steps=max(1, int(minutes * 60 / pace)))
