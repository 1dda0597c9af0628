"""`pellucid likelihood`: how probable a run holds data to be, three ways in one table."""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PellucidError, unknown
from .console import Show, answer, device, progress, table

if TYPE_CHECKING:
    from ..likelihood import Likelihood

KINDS = "discrete", "continuous", "flow"
ORDER = {  # what theory says of one kind above another
    ("discrete", "continuous"): "more steps lose less, where less noise means a smaller error (Kingma et al. 2021)",
    ("continuous", "flow"): "equal for an exact denoiser; else a flow has a density of its own (Song et al. 2021)",
}


def likelihood(
    run: Annotated[str, typer.Argument(help="The folder of a run.")],
    data: Annotated[str, typer.Option(help="test or train of the run's own data, or another source.")] = "test",
    kind: Annotated[str, typer.Option(help="discrete, continuous, flow, or all of them.")] = "all",
    n: Annotated[int, typer.Option("-n", "--n", "--num-samples", min=2, help="The first so many.")] = 100,
    steps: Annotated[int, typer.Option(min=2, help="Of the discrete chain; the last is the decoder.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is drawn.")] = 2,
    divergence: Annotated[str, typer.Option(help="exact or hutchinson; by default exact up to 16 dimensions.")] = "",
    sampler: Annotated[str, typer.Option(help="Of the flow: deterministic; dopri5 chooses its steps.")] = "dpmpp-3m",
    flow_steps: Annotated[int, typer.Option(min=1, help="Of that sampler.")] = 50,
    times: Annotated[str, typer.Option(help="Of the continuous bound: wiener, uniform, logit-normal, ...")] = "wiener",
    dequantise: Annotated[
        str, typer.Option(help="Of pictures: noise, whose bin the decoder tells; uniform or normal within the bin.")
    ] = "noise",
    unconditional: Annotated[bool, typer.Option("--unconditional", help="Withhold the labels.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    batch: Annotated[int, typer.Option("--batch", "--batch-size", min=1, help="How many at a time.")] = 64,
    per_sample: Annotated[Path | None, typer.Option(help="An .npz: nats, bits and error of every sample.")] = None,
    plot: Annotated[Path | None, typer.Option(help="An .svg or .png: the terms of the bounds against t.")] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Bound and measure log p of data, in nats and in bits per dimension, each with its standard error."""

    from .. import checkpoint, likelihood, objective
    from ..conditioning import is_labelled
    from ..config import Recipe
    from ..data import load
    from ..files import check_writable, whole
    from ..grids import Lam
    from ..metrics.sets import spaced

    if kind != "all" and kind not in KINDS:
        raise unknown("kind", kind, ["all", *KINDS])
    for place, kinds in ((per_sample, (".npz",)), (plot, (".svg", ".png"))):
        if place is not None:
            if place.suffix not in kinds:
                raise PellucidError(f"cannot write {place}; expected an {' or '.join(kinds)}.")
            check_writable(place)
    if plot and kind == "flow":
        raise PellucidError("the flow has no terms to plot against t; leave --kind out, or take discrete.")
    spread = likelihood.grain.registry.resolve(dequantise)
    draws = None if times == "wiener" else objective.times.resolve(times)
    solver = likelihood.Solver.make(sampler, flow_steps, "lam", 1e-3)
    trace = likelihood.divergence.registry.resolve(divergence) if divergence else None
    found = checkpoint.latest(Path(run))
    recipe = Recipe.of(found)
    own = data in ("test", "train")
    source = recipe.read() if own else load(data, size=recipe.data.size, channels=recipe.data.channels)
    split = "train" if data == "train" or source.test is None and not own else "test"
    part = source.train if split == "train" else source.test
    if part is None:
        raise PellucidError(f"{source.name} has no held-out samples; take --data train, or data with a test half.")
    x, cond = source.batch(spaced(len(part.x), n), split)  # type: ignore[arg-type]
    if len(x) < 2:
        raise PellucidError(f"there is {len(x)} sample; expected 2 or more, for an error to be known.")
    model = checkpoint.build(found).to(device(on))
    labelled = own and not unconditional and is_labelled(model.conditioner)
    heard = {"label": cond["label"]} if labelled and "label" in cond else {}
    grain = 2 / 255 if source.pictures else 0.0
    low = spread.level(grain, 1e-3) if grain else 1e-3
    points = spread if grain and not spread.level(grain, 0.0) else None  # in the bins, for the bounds too
    std = source.std or 0.5  # of data that are all alike there is none
    common: dict[str, Any] = {"cond": heard, "grain": grain, "rounds": rounds, "seed": seed, "batch": batch}
    settings: dict[str, dict[str, Any]] = {
        "discrete": {"steps": steps, "grid": Lam(sigma_min=low), "std": std, "dequantise": points},
        "continuous": {"low": low, "std": std, "times": draws, "dequantise": points},
        "flow": {"divergence": trace, "dequantise": spread, "sampler": solver.sampler, "steps": flow_steps, "low": low},
    }
    rows: list[Likelihood] = []
    with progress("measuring") as show:
        for name in KINDS if kind == "all" else (kind,):
            measure = getattr(likelihood, name)
            rows.append(measure(model, x, progress=partial(_say, show, name), **common, **settings[name]))
    if per_sample is not None:
        _keep(per_sample, rows)
    if plot is not None:
        from ..explain.bounds import terms

        with whole(plot) as temporary:
            temporary.write_bytes(terms(rows, plot.suffix[1:]).files[plot.suffix[1:]])
    plain, order = [_plain(row) for row in rows], _order(rows)
    answer(
        _words(plain, order),
        {"run": run, "data": data, "n": len(x), "dims": x[0].numel(), "rows": plain, "order": order},
        json,
    )


def _words(plain: list[dict[str, Any]], order: list[dict[str, Any]]) -> str:
    lines = [
        {
            "kind": p["kind"],
            "bits/dim": f"{p['bits']['value']:.4f} +- {p['bits']['error']:.4f}",
            "nats": f"{p['nats']['value']:.2f} +- {p['nats']['error']:.2f}",
            "of that, drawn": "–" if p["drawn"] is None else f"{p['drawn']:.2g}",
            **{"terms": ", ".join(f"{name} {term['value']:.2f}" for name, term in p["terms"].items())},
            "calls": f"{p['calls']:.0f}",
            "seconds": f"{p['seconds']:.1f}",
        }
        for p in plain
    ]
    pairs = [
        {
            "order, bits/dim": f"{p['above']} >= {p['below']}",
            "by": f"{p['bits']['value']:.4f} +- {p['bits']['error']:.4f}",
            "holds": "yes" if p["holds"] else "no",
            "theory": p["theory"],
        }
        for p in order
    ]
    return "\n\n".join(table(each) for each in (lines, pairs) if each)


def _order(rows: "list[Likelihood]") -> list[dict[str, Any]]:
    """How much each kind costs above the next, in the same samples, and whether that is 0 or more but for its error."""
    from ..likelihood import estimate

    found = []
    by = {row.kind: row for row in rows}
    for (above, below), theory in ORDER.items():
        if above in by and below in by:
            apart = estimate(by[above].bits - by[below].bits)
            holds = apart.value >= -1.96 * apart.error
            found.append({"above": above, "below": below, "bits": apart._asdict(), "holds": holds, "theory": theory})
    return found


def _say(show: Show, name: str, done: int, total: int) -> None:
    show(done, total, name)


def _plain(row: "Likelihood") -> dict[str, Any]:
    """One way of measuring, ready for JSON."""
    drawn = row.drawing()
    return {
        "kind": row.kind,
        "bits": row.rate()._asdict(),
        "nats": row.mean()._asdict(),
        "drawn": None if math.isnan(drawn) else drawn,
        "terms": {name: row.mean(name)._asdict() for name in row.terms},
        "calls": row.calls,
        "seconds": row.seconds,
    }


def _keep(path: Path, rows: "list[Likelihood]") -> None:
    """nats, bits and the error of what was drawn, of every sample and kind."""
    import numpy as np

    from ..files import whole

    arrays = {
        f"{row.kind}_{name}": value.numpy()
        for row in rows
        for name, value in (("nats", row.nats), ("bits", row.bits), ("error", row.chance))
    }
    with whole(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
