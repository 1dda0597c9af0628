"""Entrants: every system under the same budget of minutes, from the same data and network, to n samples.

What is named in systems/*.toml trains and draws as its recipe says; a folder in which it was stopped goes on. `adm`
spends a quarter of the budget on the classifier that leads it, `reflow` half on a flow and half on the pairs that it
makes; `gan` plays for all of it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .. import checkpoint
from ..checkpoint import folders, latest
from ..config import Recipe, shipped
from ..data import Dataset, load
from ..denoiser import Denoiser, NoisyClassifier
from ..drawing import Drawing, is_picture
from ..errors import unknown
from ..files import whole
from ..guidance import Classifier
from ..sampling import Counted, Guidance
from ..systems import classifier, gan, reflow
from ..training import Learner, Run

Show = Callable[[int, int, str], None]
"""Called with (done, of how many, words)."""
PAIRS = 2048
LED = 2.0  # the scale at which a classifier leads
OWN = {
    "gan": "A generative adversarial network of DCGAN's size, non-saturating, with R1 (Goodfellow et al. 2014).",
    "reflow": "2-rectified flow (Liu et al. 2022): a flow learns once more, from the pairs that it made.",
}


class Drawn(NamedTuple):
    """What an entrant made: samples in model units, their labels, and what they cost."""

    x: Tensor
    label: Tensor | None
    steps: int
    seconds: float
    calls: float
    drawing: float  # seconds for a hundred samples
    model: Denoiser | None = None


class Entrant(NamedTuple):
    """A system by name, and how it takes part: enter(source, data, folder, minutes, n, seed, show)."""

    name: str
    what: str
    enter: Callable[[str, Dataset, Path, float, int, int, Show], Drawn]


def entrants(names: list[str]) -> list[Entrant]:
    """The systems of these names, in order."""
    known = {name: text.splitlines()[0].lstrip("# ") for name, text in shipped("systems").items()} | OWN
    for name in names:
        if name not in known:
            raise unknown("system", name, known)
    ways = {"adm": _adm, "gan": _gan, "reflow": _reflow}
    return [Entrant(name, known[name], ways.get(name, _diffusion(name))) for name in names]


def _diffusion(system: str) -> Callable[[str, Dataset, Path, float, int, int, Show], Drawn]:
    def enter(source: str, data: Dataset, folder: Path, minutes: float, n: int, seed: int, show: Show) -> Drawn:
        recipe = Recipe.load(source, [f"train.minutes={minutes}", f"train.seed={seed}"], system)
        return _drawn(recipe, data, folder, n, seed, show)

    return enter


def _adm(source: str, data: Dataset, folder: Path, minutes: float, n: int, seed: int, show: Show) -> Drawn:
    """Where data have classes, a classifier leads the model to them, which hears them too."""
    led = 0.75 if data.classes else 1.0
    recipe = Recipe.load(source, [f"train.minutes={led * minutes}", f"train.seed={seed}"], "adm")
    if not data.classes:
        return _drawn(recipe, data, folder, n, seed, show)
    reader, steps, seconds = _reader(recipe, data, folder / "classifier", minutes - led * minutes, show)
    guide = lambda model: Classifier(reader.on(model.path), LED, hears=True)(model)  # noqa: E731
    drawn = _drawn(recipe, data, folder, n, seed, show, guide=guide)
    return drawn._replace(steps=drawn.steps + steps, seconds=drawn.seconds + seconds)


def _reader(
    recipe: Recipe, data: Dataset, folder: Path, minutes: float, show: Show
) -> tuple[NoisyClassifier, int, float]:
    """Who reads the classes of the recipe's data through noise, trained in `folder` or gone on with there."""
    held, model = _held(folder), recipe.build(data)
    plan = recipe.for_steps(held or 1).plan(model, data)
    learner = classifier.learner(model.config(), data, plan, None if held else minutes)
    for report in _run(folder, recipe, learner.plan.steps).fit(learner):
        show(report.step, report.steps, f"its classifier, loss {report.loss:.4f}")
    return checkpoint.classifier(latest(folder)), learner.plan.steps, spent(folder)


def _reflow(source: str, data: Dataset, folder: Path, minutes: float, n: int, seed: int, show: Show) -> Drawn:
    kept, half = folder / "pairs.npz", [f"train.minutes={minutes / 2}", f"train.seed={seed}"]
    flow, steps, seconds = _trained(Recipe.load(source, half, "flow"), data, folder / "flow", show)
    told = kept.with_suffix(".json")
    if not (kept.exists() and told.exists()):
        began = time.perf_counter()
        label = torch.arange(PAIRS) % len(data.classes) if data.classes else None
        reflow.save(kept, reflow.pairs(flow, PAIRS, label, steps=12, seed=seed + 1))
        with whole(told) as file:
            file.write_text(json.dumps({"seconds": time.perf_counter() - began}), "utf-8")
    seconds += json.loads(told.read_text("utf-8"))["seconds"]
    again = Recipe.load(source, half, "flow")
    second = _drawn(again, load(str(kept), held_out=0.0), folder, n, seed, show, flow)
    return second._replace(steps=second.steps + steps, seconds=second.seconds + seconds)


def _gan(source: str, data: Dataset, folder: Path, minutes: float, n: int, seed: int, show: Show) -> Drawn:
    rules = gan.Rules(seed=seed)
    if not is_picture(data.shape):  # points are cheap: larger batches, and an end that is at rest
        rules = replace(rules, batch=256, lr=1e-3, left=0.0)
    found = latest(folder) if folders(folder) else None
    rules = gan.Rules(**found.meta["config"]["game"]) if found else gan.sized(data, rules, minutes)
    game, seconds = gan.GAN(data, rules), 0.0
    if found:
        game.restore(found)
        seconds = float(found.meta.get("seconds", 0.0))
    began = time.perf_counter() - seconds
    while game.step < rules.steps:
        loss, _ = game.advance()
        if game.step % max(50, rules.steps // 4) == 0 or game.step == rules.steps:
            seconds = time.perf_counter() - began
            meta = {**game.meta(), "seconds": seconds}
            checkpoint.save(folder / "checkpoints" / f"step_{game.step:07d}", game.tensors(), meta)
            checkpoint.prune(folder, 2)
        show(game.step, rules.steps, f"the generator's loss {loss:.2f}")
    label, start = _labels(data, n), time.perf_counter()
    x = game.draw(n, label, seed)
    return Drawn(x, label, game.step, seconds, 1, 100 * (time.perf_counter() - start) / n)


def _labels(data: Dataset, n: int) -> Tensor | None:
    return torch.arange(n) % len(data.classes) if data.classes else None


def _trained(
    recipe: Recipe, data: Dataset, folder: Path, show: Show, start: Denoiser | None = None
) -> tuple[Denoiser, int, float]:
    """The recipe's model, trained in `folder` or gone on with there; its steps and seconds."""
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    model, held = recipe.build(data), _held(folder)
    if start is not None:
        model.load_state_dict(start.state_dict())
    plan = (recipe.for_steps(held) if held else recipe).plan(model, data)
    for report in _run(folder, recipe, plan.steps).fit(Learner(model, data, plan, recipe.aim())):
        show(report.step, report.steps, f"loss {report.loss:.4f}")
    return checkpoint.build(latest(folder)), plan.steps, spent(folder)


def spent(folder: Path) -> float:
    """The seconds of training that led to a run's last row: of every process that went on with it, by its record."""
    total = seconds = wrote = 0.0
    for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if "seconds" in row:
            anew = row["time"] - row["seconds"] >= wrote  # its loop began after the row before
            total += row["seconds"] - (0.0 if anew else seconds)
            seconds, wrote = row["seconds"], row["time"]
    return total


def _held(folder: Path) -> int | None:
    """The steps that a training in `folder` was to have, if one was begun there."""
    return latest(folder).meta["recipe"]["train"]["steps"] if folders(folder) else None


def _run(folder: Path, recipe: Recipe, steps: int) -> Run:
    return Run(folder, {"recipe": recipe.for_steps(steps).model_dump()}, save_every=max(50, steps // 4))


def _drawn(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    n: int,
    seed: int,
    show: Show,
    start: Denoiser | None = None,
    guide: Guidance = lambda model: model,
) -> Drawn:
    """n samples of the recipe's trained model, as its recipe draws them and the guide leads, the classes in turn."""
    model, steps, seconds = _trained(recipe, data, folder, show, start)
    batch = 64 if is_picture(data.shape) else 4096
    table = recipe.sample.model_dump() | {"run": str(folder), "n": n, "seed": seed, "batch": batch}
    order = Drawing.parse(table | {"labels": tuple(range(len(data.classes)))})
    counted, began = Counted(model), time.perf_counter()
    x = order.draw(guide(counted), lambda done, total: show(done, total, "drawing"))
    return Drawn(x, order.label, steps, seconds, counted.calls / n, 100 * (time.perf_counter() - began) / n, model)
