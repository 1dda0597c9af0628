"""A run: the folder in which a training lives.

runs/NAME/  recipe.toml  metrics.jsonl  checkpoints/step_0001000/  samples/step_0001000.png
            evaluations/step_0001000.json  ema/0001000-power-0.05.safetensors
"""

import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .. import files
from ..checkpoint import folders, latest, mend, number, prune, save
from ..data import Dataset
from ..denoiser import Denoiser
from ..ema import forget, store
from ..errors import PellucidError, integer
from ..objective import Objective
from ..world import ALONE, World
from .guards import ROLLBACKS, Bad, report
from .learner import Learner, Progress
from .plan import Plan
from .record import Record
from .signals import Ear, Stopped, listening
from .watch import Watch, lams

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """Where a training is kept, and how often. `meta` goes into every checkpoint; `draw` makes a sample grid, `measure`
    an evaluation; `beside` are texts by the names of their files, written once the run is ours and may go on.
    Power averages are stored in ema/ for other lengths to be made of them.

    At least `keep` checkpoints that verify are kept, and the one that training would go back to.
    """

    folder: Path
    meta: dict[str, Any] = field(default_factory=dict)
    save_every: int = 1000
    draw_every: int = 1000
    log_every: int = 50
    keep: int = 2
    draw: Callable[[Denoiser, Path], None] | None = None
    measure: Callable[[Denoiser, Path], None] | None = None
    measure_every: int = 1000
    beside: Mapping[str, str] = field(default_factory=dict)
    watch: Watch = Watch()
    snapshot_every: int = 1000

    def __post_init__(self) -> None:
        if self.keep < 2:
            raise PellucidError(f"keep is {self.keep}; expected 2 checkpoints or more, so that one may be damaged.")
        for name in ("save_every", "draw_every", "log_every", "measure_every", "snapshot_every"):
            integer(name, getattr(self, name))

    def fit(self, learner: Learner) -> Generator[Progress, None, None]:
        """Train to the end, from the newest whole checkpoint if there is one, and keep the record.

        Told to stop by a signal, it saves and raises `Stopped` after the step.
        """
        world = learner.world
        record = Record(self.folder / "metrics.jsonl" if world.leads else None)
        with self._ours(world), listening() as ear, ExitStack() as stack:
            self._begin(learner, record)
            with world.agreed():
                record.journal = stack.enter_context(closing(self.watch.open(self.folder, world.leads)))
            self._look(learner, record, ear, made=True)  # what a stop came before
            for progress in learner.fit():
                self._log(progress, learner, record)
                kept = self._keep(learner, record)
                if learner.step == progress.step:  # and was not rolled back
                    self._look(learner, record, ear)
                yield progress
                if told := next(filter(None, world.heard(ear.heard)), None):
                    if not kept:
                        self._keep(learner, record, told=True)
                    raise Stopped(f"stopped by {told} and kept at step {learner.step} in {self.folder}")

    @contextmanager
    def _ours(self, world: World) -> Iterator[None]:
        """Inside, the folder is this world's alone."""
        with ExitStack() as stack:
            with world.agreed():
                if world.leads:
                    files.make(self.folder)
                    stack.enter_context(files.alone(self.folder))
            yield

    def _begin(self, learner: Learner, record: Record) -> None:
        """Take up the newest checkpoint, or make the first, which is what training goes back to at worst."""
        world = learner.world
        with world.agreed():
            if world.leads:
                mend(self.folder)
        with world.agreed():
            held = bool(folders(self.folder))
            if held:
                found = latest(self.folder)
                learner.restore(found)
                record.resume(found.meta.get("record", {}), cut=True)
            elif record:
                missing = f"{self.folder} has a record but no checkpoint"
                raise PellucidError(f"{missing}; put them back, or take another folder.")
        if not held:
            self._save(learner, record)
        with world.agreed():
            if world.leads:
                self._forget(learner)
            for name, text in self.beside.items() if world.leads else ():
                with files.whole(self.folder / name) as file:
                    file.write_text(text, "utf-8")

    def _log(self, progress: Progress, learner: Learner, record: Record) -> None:
        if not progress.fault:
            record.hear(progress.loss, *learner.by_level())
        due = self._due(learner, self.log_every)
        if not (due or progress.fault):
            return
        with learner.world.agreed():
            if progress.fault:
                suspects = learner.suspects(learner.guard.bad[-1].samples)
                rows, levels = zip(*suspects, strict=True) if suspects else ((), ())
                record.write({"step": progress.step, "fault": progress.fault, "rows": rows, "levels": levels})
            if due:
                means = record.means(lams(learner.objective, learner.model.path))
                record.write({**progress._asdict(), **means, **self.watch.pace(progress.rate)})

    def _keep(self, learner: Learner, record: Record, told: bool = False) -> bool:
        """Save or roll back, where that is due or we are told to; whether the state is now in a checkpoint."""
        last, sound = learner.step == learner.plan.steps, not learner.guard.streak
        wanted = told or (self._due(learner, self.save_every) and (sound or last))
        if learner.guard.lost or (wanted and not learner.is_finite()):
            self._roll_back(learner, record)
        elif wanted:
            self._save(learner, record)
        else:
            return False
        return True

    def _roll_back(self, learner: Learner, record: Record) -> None:
        """To the last good checkpoint, at a lower rate; the third time is the last."""
        fallen, step = learner.guard, learner.step
        if not fallen.lost:
            fallen = fallen.skip(Bad(step, "a weight is not finite", ()))
        with learner.world.agreed():
            found = latest(self.folder, good=True)
            learner.restore(found)
            learner.guard = fallen.rolled_back(learner.guard)
            record.resume(found.meta.get("record", {}))
        with learner.world.agreed():
            went = {"rolled_back_from": step, "lr": learner.rate, "skipped": fallen.skipped}
            record.write({"step": learner.step, **went})
            for folder in folders(self.folder) if learner.world.leads else ():
                if number(folder) > learner.step:  # kept on the way that led nowhere
                    files.remove(folder)
            if learner.world.leads:
                self._forget(learner)
        if learner.guard.rollbacks == ROLLBACKS:
            raise PellucidError(report(learner.guard, learner.suspects))

    def _forget(self, learner: Learner) -> None:
        """Remove what was made after the step at which it stands: on a way that led nowhere, or that is gone again."""
        forget(self.folder / "ema", learner.ema.updates)
        for made in (*self.folder.glob("samples/step_*.png"), *self.folder.glob("evaluations/step_*.json")):
            step = made.stem.removeprefix("step_")
            if step.isdecimal() and int(step) > learner.step:
                made.unlink()

    def _save(self, learner: Learner, record: Record) -> None:
        """Write a checkpoint, then prune."""
        good = learner.step % self.save_every == 0 and not learner.guard.streak
        meta = {**self.meta, **learner.meta(), "good": good, "record": record.mark()}
        save(self.folder / "checkpoints" / f"step_{learner.step:07d}", learner.tensors(), meta, learner.world)
        with learner.world.agreed():
            if learner.world.leads:
                prune(self.folder, self.keep)

    def _look(self, learner: Learner, record: Record, ear: Ear, made: bool = False) -> None:
        """Where they are due: snapshots of the averages; and of the one that is sampled, what its loss is worth and,
        from the run's fixed noise, a picture and an evaluation. made: those that are there stay as they are.
        """
        step, ask = learner.step, partial(self._ask, learner, ear)
        if step and self._due(learner, self.snapshot_every):
            store(self.folder / "ema", learner.ema, learner.world)
        sheet = self.folder / "samples" / f"step_{step:07d}.png"
        figures = self.folder / "evaluations" / f"step_{step:07d}.json"
        if self.watch.look and step:
            ask(self.watch.every, record.looked == step, self.watch.look, partial(record.look, step))
        if self.draw:
            draw, there = partial(_made, self.draw, sheet), made and sheet.exists()
            ask(self.draw_every, there, draw, lambda _: record.journal.picture(sheet, step))
        if self.measure and step:
            measure, there = partial(_made, self.measure, figures), made and figures.exists()
            ask(self.measure_every, there, measure, lambda _: None)

    def _ask(
        self,
        learner: Learner,
        ear: Ear,
        every: int,
        there: bool,
        work: Callable[[Denoiser], T],
        then: Callable[[T], None],
    ) -> None:
        """Ask something of the averaged model, where that is due and not there yet, and keep what comes of it; nothing
        does if it is told to stop meanwhile, and a run that goes on makes up for it."""
        if not self._due(learner, every) or learner.world.told(there):
            return
        model = learner.averaged()  # what is dropped in the midst must not be the model in training
        with learner.world.agreed():
            if learner.world.leads and not ear.heard and (found := ear.drop(partial(work, model))):
                then(found)

    def _due(self, learner: Learner, every: int) -> bool:
        return learner.step % every == 0 or learner.step == learner.plan.steps


def _made(work: Callable[[Denoiser, Path], None], path: Path, model: Denoiser) -> bool:
    """Let a file be made of a model; whether it was."""
    files.make(path.parent)
    work(model, path)
    return path.exists()


def train(
    model: Denoiser,
    data: Dataset,
    plan: Plan | None = None,
    objective: Objective | None = None,
    *,
    run: Run | str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    world: World = ALONE,
) -> Denoiser:
    """Train `model` (in place) on `data`; returns a copy that holds the EMA weights, ready to sample.

    run: a folder to keep the training in, resumed if it holds a checkpoint; told to stop by SIGTERM, SIGINT, SIGUSR1 or
    SIGHUP, training is kept there and ends the process with exit code 75. progress: called after each step.
    world: the processes that train together; each calls this with the same arguments.
    """
    learner = Learner(model, data, plan, objective, world)
    keeper = Run(Path(run)) if isinstance(run, str | Path) else run
    with closing(keeper.fit(learner) if keeper else learner.fit()) as steps:
        for step in steps:
            if progress:
                progress(step)
    return learner.averaged()


def sized(
    model: Denoiser,
    data: Dataset,
    plan: Plan,
    objective: Objective,
    minutes: float,
    processes: int = 1,
    trials: int = 8,
) -> Plan:
    """`plan` with as many steps as fit in `minutes` here, by the pace of a few steps of a copy.

    processes: so many share a batch.
    """
    share = max(1, plan.batch // processes)
    trial = replace(plan, batch=share, accumulate=min(plan.accumulate, share))
    copied = Learner(copy.deepcopy(model), data, trial, objective)
    copied.advance()
    began = time.perf_counter()
    for _ in range(trials):
        copied.advance()
    pace = (time.perf_counter() - began) / trials
    return replace(plan, steps=max(1, int(minutes * 60 / pace)))
