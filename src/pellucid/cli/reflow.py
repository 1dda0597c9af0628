"""`pellucid reflow`: a run learns once more, from the pairs of noise and data that it makes."""

from collections.abc import Mapping
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import PellucidError
from .console import answer, asked, device, progress
from .train import kept, others, place, trained

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..config import Recipe


def reflow(
    run: Annotated[str, typer.Argument(help="A run: a flow, or any other model, whose flow is then taken.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the new run, as optim.lr=1e-3.")
    ] = None,
    kind: Annotated[
        Literal["flow", "step"], typer.Option(help="flow: straighter ways | step: one step from noise to their ends.")
    ] = "flow",
    pairs: Annotated[int | None, typer.Option(min=20, help="How many the run makes.", show_default="4096")] = None,
    name: Annotated[str | None, typer.Option(help="The new run's name; by default RUN-reflow, or RUN-step.")] = None,
    runs: Annotated[Path, typer.Option("--runs", "--output-dir", help="Where runs are kept.")] = Path("runs"),
    resume: Annotated[
        bool | None, typer.Option("--resume/--fresh", help="Go on with the run of that name | begin another beside it.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="train.steps")] = None,
    minutes: Annotated[float | None, typer.Option(help="train.minutes")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the pairs.", show_default="1")] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Straighten a flow by learning again from its own pairs, or distil it into one step, and say how well."""
    import torch

    from .. import checkpoint, drawing
    from ..config import named
    from ..data import load
    from ..files import whole
    from ..systems import reflow as system
    from ..training import Learner
    from ..training.run import sized

    found = checkpoint.latest(Path(run))
    end = {"flow": "reflow", "step": "step"}[kind]
    folder = runs / (f"{Path(run).resolve().name}-{end}" if name is None else named(name))
    if resume is False:  # named before its recipe, which says where its pairs lie
        folder, resume = next(other for other in others(folder) if not other.exists()), None
    wanted = asked(settings, {"train.steps": steps, "train.minutes": minutes})
    folder, recipe = place(again(found, folder, kind, wanted), folder, resume)
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    teacher, file = checkpoint.build(found).to(device(on)), Path(recipe.data.source)
    if not begun(file, {"pairs": pairs, "seed": seed, "step of the run": found.meta["step"]}):
        n, seed = pairs or 4096, 1 if seed is None else seed
        label = torch.arange(n) % len(classes) if (classes := drawing.names(found)) else None
        with progress("pairs") as show:
            made = system.pairs(teacher, n, label, seed=seed, progress=lambda done, n: show(done, n, ""))
        with whole(file.with_suffix(".json")) as told:
            told.write_text(dumps({"pairs": n, "seed": seed, "step of the run": found.meta["step"]}), "utf-8")
        system.save(file, made)
    data = load(file)
    model = system.student(found.meta["config"], teacher, recipe.train.seed).to(device(on))
    aim = system.at_once(recipe.objective.drop) if kind == "step" else recipe.aim()
    plan = recipe.for_steps(recipe.train.steps or 1).plan(model, data)
    plan = sized(model, data, plan, aim, recipe.train.minutes) if recipe.train.minutes else plan
    limit, recipe = recipe.train.minutes, recipe.for_steps(plan.steps)
    trained(kept(recipe, folder, limit), Learner(model, data, plan, aim), "the same command")
    new = checkpoint.build(checkpoint.latest(folder))
    label = torch.arange(256) % len(classes) if (classes := drawing.names(found)) else None
    measures: dict[str, Any] = {"one step misses": [system.missed(each, data) for each in (teacher, new)]}
    if kind == "flow":
        measures["bend"] = [system.straightness(each, label=label) for each in (teacher, new)]
    said = "; ".join(f"{what} {before}, then {after}" for what, (before, after) in measures.items())
    plain = {what: [each._asdict() for each in both] for what, both in measures.items()}
    answer(f"{folder}: {said}. Draw from it: pellucid sample {folder}", {"run": str(folder), **plain}, json)


def begun(file: Path, asked: Mapping[str, int | None]) -> bool:
    """Whether the pairs are there; those that were made otherwise than is asked are refused."""
    told = file.with_suffix(".json")
    made = loads(told.read_text("utf-8")) if told.exists() and file.exists() else {}
    for key, value in asked.items():
        if value is not None and made.get(key, value) != value:
            raise PellucidError(f"{file} has {key} = {made[key]}, not {value}; take another --name, or --fresh.")
    return file.exists()


def again(found: "Checkpoint", folder: Path, kind: str, wanted: list[str]) -> "Recipe":
    """The recipe of the new run: that of the old one, on straight lines, from the pairs that lie beside it."""
    from ..config import Recipe

    row = ["path=flow", "prediction=velocity", "objective.times=uniform", "objective.weight=unit"]
    row += [f"data.source={folder / 'pairs.npz'}", "objective.coupling=independent", "sample.guidance=1.0"]
    row += ["data.augment=[]", "sample.sampler=euler", "sample.grid=uniform"]
    row += [f"sample.steps={1 if kind == 'step' else 8}"]
    return Recipe.of(found, [*row, *wanted])
