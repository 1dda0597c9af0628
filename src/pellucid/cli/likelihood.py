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


def likelihood(
    run: Annotated[str, typer.Argument(help="The folder of a run.")],
    data: Annotated[str, typer.Option(help="test or train of the run's own data, or another source.")] = "test",
    kind: Annotated[str, typer.Option(help="discrete, continuous, flow, or all of them.")] = "all",
    n: Annotated[int, typer.Option("-n", "--n", "--num-samples", min=2, help="The first so many.")] = 100,
    steps: Annotated[int, typer.Option(min=1, help="Of the discrete chain.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is drawn.")] = 2,
    divergence: Annotated[str, typer.Option(help="exact or hutchinson; by default exact up to 16 dimensions.")] = "",
    sampler: Annotated[str, typer.Option(help="Of the flow: deterministic; dopri5 chooses its steps.")] = "dpmpp-3m",
    flow_steps: Annotated[int, typer.Option(min=1, help="Of that sampler.")] = 50,
    dequantise: Annotated[str, typer.Option(help="Of pictures, for the flow: uniform or normal.")] = "uniform",
    unconditional: Annotated[bool, typer.Option("--unconditional", help="Withhold the labels.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    batch: Annotated[int, typer.Option("--batch", "--batch-size", min=1, help="How many at a time.")] = 64,
    per_sample: Annotated[Path | None, typer.Option(help="An .npz: nats, bits and error of every sample.")] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Bound and measure log p of data, in nats and in bits per dimension, each with its standard error."""
    import torch

    from .. import checkpoint, likelihood
    from ..config import Recipe
    from ..data import load
    from ..files import check_writable
    from ..grids import Lam

    if kind != "all" and kind not in KINDS:
        raise unknown("kind", kind, ["all", *KINDS])
    if per_sample is not None:
        if per_sample.suffix != ".npz":
            raise PellucidError(f"cannot write {per_sample}; expected an .npz.")
        check_writable(per_sample)
    found = checkpoint.latest(Path(run))
    recipe = Recipe.load(run)
    own = data in ("test", "train")
    source = recipe.read() if own else load(data, size=recipe.data.size, channels=recipe.data.channels)
    split = "train" if data == "train" or source.test is None and not own else "test"
    part = source.train if split == "train" else source.test
    x, cond = source.batch(torch.arange(min(n, len(part.x) if part is not None else 0)), split)  # type: ignore[arg-type]
    model = checkpoint.build(found).to(device(on))
    heard = {} if unconditional or not own or "label" not in cond else {"label": cond["label"]}
    grain = 2 / 255 if source.pictures else 0.0
    low = grain or 1e-3
    common: dict[str, Any] = {"cond": heard, "grain": grain, "rounds": rounds, "seed": seed, "batch": batch}
    flowing = {"divergence": divergence or None, "dequantise": dequantise, "sampler": sampler, "steps": flow_steps}
    settings: dict[str, dict[str, Any]] = {
        "discrete": {"steps": steps, "grid": Lam(sigma_min=low), "std": source.std},
        "continuous": {"low": low, "std": source.std},
        "flow": {**flowing, "low": 1e-3},
    }
    rows: list[Likelihood] = []
    with progress("measuring") as show:
        for name in KINDS if kind == "all" else (kind,):
            measure = getattr(likelihood, name)
            rows.append(measure(model, x, progress=partial(_say, show, name), **common, **settings[name]))
    if per_sample is not None:
        _keep(per_sample, rows)
    plain = [_plain(row) for row in rows]
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
    answer(table(lines), {"run": run, "data": data, "n": len(x), "dims": x[0].numel(), "rows": plain}, json)


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
