"""Entrants: every system under the same budget of minutes, from the same data and network, to n samples.

What is named in systems/*.toml trains and draws as its recipe says; a folder in which it was stopped goes on. `reflow`
spends half the budget on a flow and half on the pairs that it makes; `gan` plays for all of it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoint import build, folders, latest
from ..config import Recipe, shipped
from ..data import Dataset, load
from ..denoiser import Denoiser
from ..drawing import Drawing, is_picture
from ..errors import unknown
from ..sampling import Counted
from ..systems import gan, reflow
from ..training import Learner, Run

Show = Callable[[int, int, str], None]
"""Called with (done, of how many, words)."""
PAIRS = 2048
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
    ways = {"gan": _gan, "reflow": _reflow}
    return [Entrant(name, known[name], ways.get(name, _diffusion(name))) for name in names]


def _diffusion(system: str) -> Callable[[str, Dataset, Path, float, int, int, Show], Drawn]:
    def enter(source: str, data: Dataset, folder: Path, minutes: float, n: int, seed: int, show: Show) -> Drawn:
        recipe = Recipe.load(source, [f"train.minutes={minutes}", f"train.seed={seed}"], system)
        return _drawn(recipe, data, folder, n, seed, show)

    return enter


def _reflow(source: str, data: Dataset, folder: Path, minutes: float, n: int, seed: int, show: Show) -> Drawn:
    kept, half = folder / "pairs.npz", [f"train.minutes={minutes / 2}", f"train.seed={seed}"]
    flow, steps, seconds = _trained(Recipe.load(source, half, "flow"), data, folder / "flow", show)
    if not kept.exists():
        began = time.perf_counter()
        label = torch.arange(PAIRS) % len(data.classes) if data.classes else None
        reflow.save(kept, reflow.pairs(flow, PAIRS, label, steps=12, seed=seed + 1))
        seconds += time.perf_counter() - began
    again = Recipe.load(source, half, "flow")
    second = _drawn(again, load(str(kept), held_out=0.0), folder, n, seed, show, flow)
    return second._replace(steps=second.steps + steps, seconds=second.seconds + seconds)


def _gan(source: str, data: Dataset, folder: Path, minutes: float, n: int, seed: int, show: Show) -> Drawn:
    began, game = time.perf_counter(), gan.GAN(data, gan.Rules(seed=seed))
    while (spent := time.perf_counter() - began) < 60 * minutes:
        loss, _ = game.advance()
        show(int(spent), int(60 * minutes), f"step {game.step}, the generator's loss {loss:.2f}")
    label, start = _labels(data, n), time.perf_counter()
    x = game.draw(n, label, seed)
    return Drawn(x, label, game.step, spent, 1, 100 * (time.perf_counter() - start) / n)


def _labels(data: Dataset, n: int) -> Tensor | None:
    return torch.arange(n) % len(data.classes) if data.classes else None


def _trained(
    recipe: Recipe, data: Dataset, folder: Path, show: Show, start: Denoiser | None = None
) -> tuple[Denoiser, int, float]:
    """The recipe's model, trained in `folder` or gone on with there; its steps and seconds."""
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    model = recipe.build(data)
    if start is not None:
        model.load_state_dict(start.state_dict())
    held = latest(folder).meta["recipe"]["train"]["steps"] if folders(folder) else None
    recipe = recipe.for_steps(held) if held else recipe
    plan = recipe.plan(model, data)
    recipe, seconds = recipe.for_steps(plan.steps), 0.0
    learner = Learner(model, data, plan, recipe.aim())
    for report in Run(folder, {"recipe": recipe.model_dump()}, save_every=max(50, plan.steps // 4)).fit(learner):
        seconds = report.seconds
        show(report.step, report.steps, f"loss {report.loss:.4f}")
    return build(latest(folder)), plan.steps, seconds


def _drawn(
    recipe: Recipe, data: Dataset, folder: Path, n: int, seed: int, show: Show, start: Denoiser | None = None
) -> Drawn:
    """n samples of the recipe's trained model, as its recipe draws them, the classes in turn."""
    model, steps, seconds = _trained(recipe, data, folder, show, start)
    batch = 64 if is_picture(data.shape) else 4096
    table = recipe.sample.model_dump() | {"run": str(folder), "n": n, "seed": seed, "batch": batch}
    order = Drawing.parse(table | {"labels": tuple(range(len(data.classes)))})
    counted, began = Counted(model), time.perf_counter()
    x = order.draw(counted, lambda done, total: show(done, total, "drawing"))
    return Drawn(x, order.label, steps, seconds, counted.calls / n, 100 * (time.perf_counter() - began) / n, model)
