"""`pellucid tune`: the times that suit a run, for a budget of calls."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PellucidError
from .console import answer, device, progress, table

if TYPE_CHECKING:
    from ..drawing import Drawing
    from ..fitting import Exact, Fit
    from ..samplers import Sampler
    from ..types import Model


def tune(
    run: Annotated[str, typer.Argument(help="The folder of a run, or of one checkpoint.")],
    nfe: Annotated[str, typer.Option(help="How often the model may be asked for a sample; several: 6,8,12.")] = "8",
    sampler: Annotated[
        str | None, typer.Option("--sampler", "--samplers", help="One, several (ddim,unipc), or auto: the best three.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", "--class", help="As for sample.")] = None,
    guidance: Annotated[float | None, typer.Option(help="As for sample; by default the recipe's.")] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Samples to fit on, and as many others to measure on.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples to fit on; the others have the next one.")] = 0,
    fine: Annotated[int, typer.Option(help="Steps of the solution that is taken for exact.")] = 200,
    minutes: Annotated[float | None, typer.Option(min=0, help="The most that polishing takes in all.")] = None,
    batch: Annotated[int, typer.Option("--batch", "--batch-size", help="How many at a time.")] = 64,
    plot: Annotated[Path | None, typer.Option(help="A PNG of the times, beside those of the stock grids.")] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Fit a grid to a run: find the times at which a sampler ends nearest to the exact samples, and keep them there."""
    from .. import checkpoint, drawing, fitting

    budgets, found = counts(nfe), drawing.find(run)
    asked = {"guidance": guidance, "n": n, "seed": seed, "batch": batch}
    order = drawing.of_run(run, found, label).changed({key: v for key, v in asked.items() if v is not None})
    choices = named(sampler, order)
    for choice in choices:
        for budget in budgets:
            fitting.refuse(choice, budget, fine)
    if plot:
        check_picture(plot)
    exact = followed(order, checkpoint.build(found).to(device(on)), fine)
    about = {"weights": drawing.fingerprint(found), "step": found.meta["step"], "seed": seed}
    about |= {"labels": order.labels, "guidance": order.guidance}
    fits: list[Fit] = []
    for fit in search(exact, budgets, choices, sampler == "auto", math.inf if minutes is None else 60 * minutes):
        fits.append(fit.model_copy(update={"run": about}))
        fitting.save(Path(run), fits[-1:])
    if plot:
        picture(exact, fits, plot)
    answer(report(run, fits), [fit.model_dump(mode="json") for fit in fits], json)


def counts(text: str) -> list[int]:
    """6,8 -> [6, 8]"""
    if not all(word.strip().isdecimal() for word in text.split(",")):
        raise PellucidError(f"nfe is {text!r}; expected a number of calls, such as 8, or several: 6,8,12.")
    return [int(word) for word in text.split(",")]


def named(text: str | None, order: "Drawing") -> "list[Sampler]":
    """The samplers that are asked for; without any, the run's own."""
    from .. import fitting
    from ..samplers import names, registry

    if text is None:
        return [registry.resolve(order.sampler)]
    words = fitting.deterministic() if text == "auto" else text.split(",")
    return [registry.make(names.split(word.strip())[0]) for word in words]


def check_picture(plot: Path) -> None:
    """Refuse a place for the picture before the work begins."""
    from ..explain import style
    from ..files import check_writable

    style.need()
    if plot.suffix.lower() != ".png":
        raise PellucidError(f"cannot write {plot}; expected a .png.")
    check_writable(plot)


def followed(order: "Drawing", model: "Model", fine: int) -> "Exact":
    """The exact way of the samples of an order."""
    from .. import fitting

    settings = order.settings()
    how = {"seed": order.seed, "batch": order.batch, "cond": settings["cond"], "guidance": settings["guidance"]}
    with progress("following") as show:
        return fitting.follow(model, order.n, fine=fine, progress=lambda done, total: show(done, total, ""), **how)


def search(exact: "Exact", budgets: list[int], choices: "list[Sampler]", few: bool, seconds: float) -> "Iterator[Fit]":
    """A fit for each budget and sampler; where only a few are wanted, for the most promising of them."""
    from .. import fitting

    with progress("fitting") as show:
        plan = [(nfe, s) for nfe in budgets for s in (fitting.choose(exact, nfe, choices) if few else choices)]
        for i, (nfe, sampler) in enumerate(plan):
            said = f"{fitting.called(sampler)} at {nfe} calls"

            def hear(error: float, i: int = i, said: str = said) -> None:
                show(i, len(plan), f"{said}: {error:.4g}")

            yield fitting.fit(exact, nfe, sampler, seconds=seconds / len(plan), progress=hear)
        show(len(plan), len(plan), "")


def picture(exact: "Exact", fits: "list[Fit]", plot: Path) -> None:
    """Draw the times of the fits beside those of the best stock grids."""
    from ..explain import points
    from ..files import whole

    with whole(plot) as temporary:
        temporary.write_bytes(points.draw(exact, fits).files["png"])


def report(run: str, fits: "list[Fit]") -> str:
    """The fits as a table, and what to do with them."""
    from .. import fitting

    rows: list[dict[str, Any]] = [
        {
            "sampler": fitting.called(fit.made),
            "calls": fit.nfe,
            "steps": fit.steps,
            "error": "{:.4g} +- {:.2g}".format(*fit.error),
            "best stock grid": fit.best,
            "its error": "{:.4g} +- {:.2g}".format(*fit.stock[fit.best]),
            "gain": "{:.1%} +- {:.1%}".format(*fit.gain),
        }
        for fit in fits
    ]
    best = min(fits, key=lambda fit: (fit.nfe != fits[-1].nfe, fit.error[0]))
    draw = f"pellucid sample {run} --grid fitted"
    idle = [f"{fitting.called(f.made)} at {f.nfe} calls" for f in fits if f.gain[0] <= f.gain[1]]
    said = f"\n\nno gain is sure over the best stock grid: {', '.join(idle)}; that grid serves as well" if idle else ""
    return f"{table(rows)}{said}\n\nkept in {Path(run) / 'fitted.json'}; draw with {fitting.called(best.made)}: {draw}"
