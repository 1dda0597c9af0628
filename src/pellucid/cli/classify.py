"""`pellucid classify`: a classifier that sees through noise, to lead models by."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import answer, asked, device
from .train import kept, place, trained


def classify(
    source: Annotated[str, typer.Argument(help="A recipe, a run or data: its classes are learnt, its network taken.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the recipe, as optim.lr=1e-3.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The run's name; by default NAME-classifier.")] = None,
    runs: Annotated[Path, typer.Option("--runs", "--output-dir", help="Where runs are kept.")] = Path("runs"),
    resume: Annotated[
        bool | None, typer.Option("--resume/--fresh", help="Go on with the run of that name | begin another beside it.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="train.steps")] = None,
    minutes: Annotated[float | None, typer.Option(help="train.minutes")] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Train a classifier of noisy samples. Lead a model by it: pellucid sample RUN --classifier IT --guidance 3."""
    import torch

    from .. import checkpoint
    from ..config import Recipe, named
    from ..systems import classifier

    recipe = Recipe.load(source, asked(settings, {"train.steps": steps, "train.minutes": minutes}))
    folder, recipe = place(recipe, runs / (f"{recipe.name}-classifier" if name is None else named(name)), resume)
    data = recipe.read()
    model = recipe.build(data)
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    plan = recipe.for_steps(recipe.train.steps or 1).plan(model, data)
    learner = classifier.learner(model.config(), data, plan, recipe.train.minutes, device(on))
    limit, recipe = recipe.train.minutes, recipe.for_steps(learner.plan.steps)
    trained(kept(recipe, folder, limit), learner, "the same command")
    read = classifier.accuracy(checkpoint.classifier(checkpoint.latest(folder)), data)
    plain: dict[str, Any] = {"run": str(folder), "steps": recipe.train.steps}
    plain |= {"read": {f"{level:g}": figure._asdict() for level, figure in read.items()}}
    levels = ", ".join(f"{figure.value:.0%} at sigma/alpha {level:g}" for level, figure in read.items())
    said = f"{folder} reads of held-out samples {levels}. Lead by it: pellucid sample RUN --classifier {folder}"
    answer(said, plain, json)
