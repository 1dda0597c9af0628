"""`pellucid sample`: from a run, or from a picture that tells how it was drawn, to pictures."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PellucidError
from .console import answer, device, progress, tell

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint


def sample(
    run: Annotated[str | None, typer.Argument(help="The folder of a run, or of one checkpoint.")] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", "--num-samples", help="How many.")] = None,
    label: Annotated[
        str | None, typer.Option("--label", "--class", help="A class or several: 3, cat, 0,1,2, all, none.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", "--guidance-scale", "--cfg-scale", help="1: none; 0: no condition.")
    ] = None,
    interval: Annotated[
        tuple[float, float] | None, typer.Option("--guidance-interval", help="The times t between which it acts.")
    ] = None,
    rescale: Annotated[
        float | None, typer.Option("--guidance-rescale", "--rescale", help="From 0 (none) to 1.")
    ] = None,
    rule: Annotated[str | None, typer.Option("--guidance-rule", help="See pellucid list guidances.")] = None,
    classifier: Annotated[
        Path | None, typer.Option("--classifier", "--classifier-path", help="A run that leads: pellucid classify.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Keep this share of each estimate in range, such as 0.995.")
    ] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", "--scheduler", help="See pellucid list samplers.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", "--num-inference-steps", help="Of the sampler.")] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", "--schedule", help="See pellucid list grids; fitted: pellucid tune.")
    ] = None,
    eta: Annotated[float | None, typer.Option(help="The share of noise: 0 is DDIM, 1 is DDPM.")] = None,
    noise: Annotated[
        str | None, typer.Option(help="independent, or brownian: more steps draw the same picture finer.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Sample i of a seed is the same picture everywhere.")] = None,
    first: Annotated[int | None, typer.Option(help="The number of the first sample.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", "--batch-size", help="How many at a time.")] = None,
    exact: Annotated[bool | None, typer.Option("--exact", help="Equal to the last bit whatever the batch.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", "--output", help="x.png (a grid), x.npz, or a folder of PNGs.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="A PNG to draw again; other options change its settings.")] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Draw samples from a trained run."""
    from .. import checkpoint, drawing, sampling

    leads = None if classifier is None else str(classifier)
    if like is not None:
        base = drawing.of_png(like)
        found = drawing.find(run) if run else drawing.find(base.run, base.weights)
    elif run is not None:
        found = drawing.find(run)
        base = drawing.of_run(run, found, label, leads)
    else:
        raise PellucidError("there is nothing to draw from; give a run, such as runs/digits, or --like a picture.")
    asked: dict[str, Any] = {"n": n, "seed": seed, "first": first, "batch": batch, "exact": exact}
    asked |= {"guidance": guidance, "interval": interval, "rescale": rescale}
    asked |= {"rule": rule, "threshold": threshold, "classifier": leads}
    asked |= {"sampler": sampler, "steps": steps, "grid": grid, "noise": noise}
    asked |= {"labels": drawing.labels(label, found, leads or base.classifier)} if label is not None else {}
    if grid is not None and grid.lower() == "fitted":
        asked |= fitted(base.run if run is None else run, found, sampler, steps)
    order = base.changed({key: value for key, value in asked.items() if value is not None}, eta)
    model = sampling.Counted(checkpoint.build(found).to(device(on)))
    out = out or Path(f"{Path(order.run).name}.png")
    drawing.check(out, model.shape)
    began = time.perf_counter()
    with progress("drawing") as show:
        x = order.draw(model, lambda done, total: show(done, total, ""))
    order.check_finite(x)
    order.write(x, out)
    seconds = time.perf_counter() - began
    calls = model.calls / order.n
    said = f"{out}: {len(x)} samples in {seconds:.1f} s, {calls:g} calls of the network each"
    answer(said, {"out": str(out), "seconds": seconds, "calls": calls, **order.plain()}, json)


def fitted(run: str, found: "Checkpoint", sampler: str | None, steps: int | None) -> dict[str, Any]:
    """What --grid fitted stands for: the sampler, steps and times that were fitted to the run."""
    from .. import drawing, fitting, samplers

    fit = fitting.find(run, None if sampler is None else samplers.names.split(sampler)[0], steps)
    if said := fitting.remark(fit, run, drawing.fingerprint(found), found.meta["step"]):
        tell(said)
    return {"sampler": fit.sampler, "steps": fit.steps, "grid": {"name": "fitted", "at": fit.at}}
