"""`pellucid train`: from a recipe, or from data alone, to a run."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from json import dumps
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PellucidError
from .console import answer, asked, device, progress, tell
from .evaluate import classed, sight, span, taken
from .launch import follow, is_launched, launch, logged

if TYPE_CHECKING:
    from ..config import Recipe
    from ..data import Dataset
    from ..denoiser import Denoiser
    from ..training import Learner, Progress, Run
    from ..world import World


def train(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A recipe (digits, toy-2d, my.toml), a run, or data: a toy, folder, .parquet, .npz.")
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the recipe, as optim.lr=1e-3.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="data.source: a folder, .zip, .parquet, hub:NAME, ...")] = None,
    system: Annotated[str | None, typer.Option(help="As ddpm, edm, flow, ... do: see pellucid list systems.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name; by default the recipe's.")] = None,
    runs: Annotated[Path, typer.Option("--runs", "--output-dir", help="Where runs are kept.")] = Path("runs"),
    resume: Annotated[
        bool | None, typer.Option("--resume/--fresh", help="Go on with the run of that name | begin another beside it.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", "--max-train-steps", help="train.steps")] = None,
    minutes: Annotated[float | None, typer.Option(help="train.minutes")] = None,
    batch: Annotated[int | None, typer.Option("--batch", "--train-batch-size", help="train.batch")] = None,
    lr: Annotated[float | None, typer.Option("--lr", "--learning-rate", help="optim.lr")] = None,
    seed: Annotated[int | None, typer.Option(help="train.seed")] = None,
    accumulate: Annotated[int | None, typer.Option(help="train.accumulate: the batch in so many parts.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", "--mixed-precision", help="float32, bf16")] = None,
    workers: Annotated[int | None, typer.Option("--workers", "--dataloader-num-workers", help="train.workers")] = None,
    save_every: Annotated[
        int | None, typer.Option("--save-every", "--checkpointing-steps", help="train.save_every")
    ] = None,
    track: Annotated[
        list[str] | None, typer.Option("--track", "--report-to", help="Tell tensorboard, wandb or trackio.")
    ] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", "--nproc-per-node", min=1, help="On so many, by torchrun; or processes, with --device cpu."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Train a model. The same command goes on with a run that was told to stop (exit code 75) or killed."""
    from ..checkpoint import folders
    from ..config import Recipe, named
    from ..world import entered

    options: dict[str, object] = {"train.steps": steps, "train.minutes": minutes, "train.batch": batch, "optim.lr": lr}
    options |= {"train.seed": seed, "train.accumulate": accumulate, "train.precision": precision}
    options |= {"train.workers": workers, "train.save_every": save_every}
    options |= {"data.source": data if data is None else dumps(data)}  # a text, whatever it looks like
    options |= {"train.track": track or None}
    recipe = Recipe.load(source, asked(settings, options), system)
    here = (
        Path(source)
        if folders(Path(source)) and name is None
        else runs / (recipe.name if name is None else named(name))
    )
    if gpus and not is_launched():
        launch(gpus, on, context.obj)
    follow()
    with entered() as world:
        with world.agreed():
            folder, recipe = place(recipe, here, resume) if world.leads else (here, recipe)
        folder, recipe = Path(world.told(str(folder))), Recipe.parse(world.told(recipe.model_dump()))
        with logged(world, folder):
            last = fit(recipe, folder, on, world)
    words = f"{folder} is trained: {last['steps']} steps. Draw from it: pellucid sample {folder}"
    if world.leads:
        answer(words, {"run": str(folder), **last}, json)


def place(recipe: "Recipe", folder: Path, resume: bool | None) -> tuple[Path, "Recipe"]:
    """Where the recipe is trained, and as what it goes on there. What was trained before is never overwritten."""
    from ..checkpoint import folders, latest
    from ..config import Recipe
    from ..files import check_parent

    held = bool(folders(folder))
    if resume and not held:
        raise PellucidError(f"there is no run at {folder} to resume; leave out --resume to begin it.")
    if resume is False:
        folder = next(other for other in others(folder) if not other.exists())
    check_parent(folder / "metrics.jsonl")
    recipe = recipe.model_copy(update={"name": folder.name})
    if not held or resume is False:
        return folder, recipe
    meta = latest(folder).meta
    if "recipe" not in meta:
        raise PellucidError(f"{folder} was not trained from a recipe; take another --name, or --fresh.")
    begun = Recipe.parse(meta["recipe"])  # as it was trained, whatever recipe.toml says since
    if recipe.train.minutes not in (None, meta.get("minutes")):
        there = f"{folder} is a run of {begun.train.steps} steps, and {recipe.train.minutes:g} minutes are asked for"
        raise PellucidError(f"{there}; say how many --steps it is to have, or take --fresh.")
    recipe = recipe.goes_on(begun)
    if (recipe.train.steps or 0) < meta["step"]:
        done = f"{folder} has {meta['step']} steps behind it, {recipe.train.steps} are asked for"
        raise PellucidError(f"{done}; ask for more, or take --fresh.")
    return folder, recipe


def others(folder: Path) -> Iterator[Path]:
    """The folder, and the names to turn to where it is taken: digits, digits-2, digits-3, ..."""
    yield folder
    yield from (folder.with_name(f"{folder.name}-{i}") for i in count(2))


def fit(recipe: "Recipe", folder: Path, on: str | None = None, world: "World | None" = None) -> dict[str, Any]:
    """Train a recipe in a run's folder, to the end or to the first interrupt; what the last step said."""
    from ..training.signals import Stopped, listening
    from ..world import ALONE

    world = world or ALONE
    with listening() as ear:  # there is nothing to keep yet
        made = ear.drop(lambda: ready(recipe, folder, on, world))
    if made is None or ear.heard:
        tell(f"stopped by {ear.heard} before the first step; go on with the same command")
        raise Stopped(f"stopped by {ear.heard} before the first step")
    again = f"pellucid train {quote(str(folder))}" + (f" --gpus {world.size}" if world.size > 1 else "")
    return trained(*made, again + (f" --device {on}" if on else ""))


def ready(recipe: "Recipe", folder: Path, on: str | None, world: "World") -> "tuple[Run, Learner]":
    """The run of a recipe and who learns in it, as yet untouched: the data is read, the model made and measured."""
    import torch

    from ..training import Learner
    from ..training.watch import look, work

    with world.agreed(), progress("reading") as show:
        data = recipe.read(lambda done, total: show(done, total, ""))
    if data.skipped:
        tell(
            f"left out {len(data.skipped)} of the pictures; the first, {data.skipped[0].name}, {data.skipped[0].reason}"
        )
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    model, aim = recipe.build(data).to(device(on)), recipe.aim()
    plan = recipe.plan(model, data, world.size)
    plan = replace(plan, steps=world.told(plan.steps))  # by the pace of the first, where they are to fit in minutes
    if minutes := recipe.train.minutes:
        tell(f"{minutes:g} minutes are {plan.steps} steps here, of {plan.batch} samples each")
    recipe = recipe.for_steps(plan.steps)
    run = kept(recipe, folder, minutes)
    done = work(model, data, aim, recipe.train.precision, world.size)  # while the model is whole
    looks = look(data, aim, recipe.train.seed)
    watch = replace(run.watch, work=done, look=looks, every=recipe.train.sample_every)
    run = replace(run, watch=watch, draw=sketch(recipe, data, folder))
    if recipe.eval.every:
        run = replace(run, measure=gauge(recipe, data, folder), measure_every=recipe.eval.every)
    return run, Learner(model, data, plan, aim, world)


def kept(recipe: "Recipe", folder: Path, minutes: float | None = None) -> "Run":
    """The run of a recipe in a folder; its steps are what was found to fit in so many minutes, now or when it began."""
    from ..checkpoint import folders, latest
    from ..training import Run
    from ..training.trackers import registry
    from ..training.watch import Watch

    train, settings = recipe.train, recipe.model_dump(mode="json", exclude_none=True)
    watch = Watch([registry.make(part) for part in train.track], settings)
    minutes = minutes or (latest(folder).meta.get("minutes") if folders(folder) else None)
    meta, beside = {"recipe": recipe.model_dump(), "minutes": minutes}, {"recipe.toml": recipe.toml()}
    run = Run(folder, meta, train.save_every, train.sample_every, beside=beside, watch=watch)
    return replace(run, snapshot_every=train.snapshot_every)


def trained(run: "Run", learner: "Learner", again: str) -> dict[str, Any]:
    """Train to the end, with a bar, or to the first interrupt, of which `again` goes on; what the last step said."""
    from ..training import Stopped
    from ..training.record import plain

    last: dict[str, Any] = {"steps": learner.plan.steps}
    try:
        with progress("training") as show:
            for report in run.fit(learner):
                last = plain(report._asdict())
                show(report.step, report.steps, words(report))
    except Stopped as stopped:
        tell(f"{stopped.sentence}; go on with: {again}")
        raise
    return last


def words(report: "Progress") -> str:
    """A step of training in a few words."""
    minutes, seconds = divmod(int(report.left), 60)
    skipped = f", {report.skipped} bad steps skipped" if report.skipped else ""
    return f"loss {report.loss:.4f}, {report.rate:.0f} samples/s, {minutes}:{seconds:02d} left{skipped}"


def sketch(recipe: "Recipe", data: "Dataset", folder: Path) -> "Callable[[Denoiser, Path], None] | None":
    """How the run's samples are drawn as training goes on: always from the same noise. None: they cannot be shown."""
    from ..drawing import Drawing, is_shown, usual

    labels = tuple(range(len(data.classes)))
    settings = recipe.sample.model_dump() | {"run": str(folder), "labels": labels, "n": usual(data.shape, labels)}
    drawing = Drawing.parse(settings)
    if not is_shown(data.shape):
        return None

    def draw(model: "Denoiser", path: Path) -> None:
        drawing.write(drawing.draw(model), path)

    return draw


def gauge(recipe: "Recipe", data: "Dataset", folder: Path) -> "Callable[[Denoiser, Path], None]":
    """How the run's samples are measured as training goes on: always the same samples, with the same eyes."""
    import torch

    from ..drawing import Drawing
    from ..evaluation import check, evaluate

    labels = tuple(range(len(data.classes)))
    settings = recipe.sample.model_dump() | {"run": str(folder), "labels": labels, "n": recipe.eval.n}
    drawing = classed(Drawing.parse(settings), data)
    check(data.train.take(torch.arange(recipe.eval.n) % len(data.train.x)), data)  # before training, not after
    eyes, judge = sight(recipe.eval.features, data, torch.device("cpu"))

    def measure(model: "Denoiser", path: Path) -> None:
        try:
            samples, seeds = taken(drawing.draw(model), drawing, data), (drawing.seed, 0)
        except PellucidError as error:  # of numbers that are not finite, say: the next ones may be
            return tell(f"{path.stem} is not measured: {error}")
        about = {"run": str(folder), "step": int(path.stem.removeprefix("step_"))}
        record = evaluate(samples, data, eyes, judge=judge, seeds=seeds, about=about).record
        record.save(path)
        row = record.row("frechet")
        tell(f"{path.stem}: {row.label} {span(row.samples)}, of real data {span(row.floor)}")

    return measure
