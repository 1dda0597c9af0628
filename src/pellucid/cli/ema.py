"""`pellucid ema`: averages of a run's weights beside each other, on data that it has not seen; the best is kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PellucidError
from .console import answer, device, progress, table, tell

if TYPE_CHECKING:
    from torch import Tensor

    from ..ema import Snapshot
    from ..metrics.estimate import Estimate

LENGTHS = "0.01,0.02,0.03,0.05,0.07,0.1,0.14,0.2,0.25"


def ema(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    length: Annotated[
        str, typer.Option("--length", help="Of a power average: a share of the run, or several.")
    ] = LENGTHS,
    n: Annotated[int, typer.Option("-n", "--n", min=2, help="So many held-out samples, some of them twice.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where it is kept; by default in the run.")] = None,
    on: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Make averages of any length from a run's snapshots, and keep the one with the least loss on held-out data."""
    from ..checkpoint import MANIFEST, NAMES, Checkpoint, build, latest, save
    from ..config import Recipe
    from ..ema import snapshots
    from ..files import check_parent, check_replaceable
    from ..training.watch import losses, mean

    if out is not None:
        check_replaceable(out, "checkpoint", NAMES, MANIFEST)
    check_parent(out or run / "ema" / "length")
    found, kept = latest(run), snapshots(run / "ema")
    if not kept:
        raise PellucidError(f"{run / 'ema'} holds no snapshots; train with optim.averages=power.")
    recipe, made = Recipe.of(found), averages(kept, lengths(length))
    data, aim = recipe.read(), recipe.aim()
    if data.test is None:
        raise PellucidError(f"{data.name} has no held-out samples; give it more samples, or a test half.")
    beside = {name: tensors for name, tensors in found.tensors.items() if name.startswith("ema")}
    each: dict[str, Tensor] = {}
    with progress("measuring") as show:
        for name, tensors in {**beside, **{label(one): tensors for one, tensors in made.items()}}.items():
            model = build(Checkpoint({"ema": tensors}, found.meta)).to(device(on))
            each[name] = losses(model, data, aim, seed, n, "test")
            show(len(each), len(beside) + len(made), name)
    if beyond := [f"{one:g}" for one in lengths(length) if one not in made]:
        tell(f"no average of length {', '.join(beyond)} can be made of these snapshots; two powers reach further")
    best = min(made, key=lambda one: each[label(one)].mean().item())
    rows = {name: (mean(loss), mean(loss - each[label(best)])) for name, loss in each.items()}
    place = out or run / "ema" / f"length-{best:g}"
    updates = max(one.updates for one in kept)
    meta = {**found.meta, "average": {"length": best, "updates": updates}}
    save(place, {"ema": made[best]}, {key: value for key, value in meta.items() if key != "sha256"})
    plain = [{"average": name, "loss": loss._asdict(), "above": gap._asdict()} for name, (loss, gap) in rows.items()]
    words = f"{shown(rows)}\nkept is the length {best:g}. Draw from it: pellucid sample {place}"
    answer(words, {"run": str(run), "kept": str(place), "length": best, "rows": plain}, json)


def averages(kept: "list[Snapshot]", wanted: list[float]) -> "dict[float, dict[str, Tensor]]":
    """Those of the lengths wanted that can be made of the snapshots; one alone must be."""
    from ..ema import TooFar, posthoc

    made = {}
    for one in wanted:
        try:
            made[one] = posthoc(kept, one)
        except TooFar:
            if len(wanted) == 1:
                raise
    if not made:
        raise PellucidError(f"none of {len(wanted)} lengths can be made of the snapshots; give one by --length.")
    return made


def lengths(text: str) -> list[float]:
    """Lengths with commas between them."""
    try:
        return sorted({float(word) for word in text.split(",")})
    except ValueError:
        raise PellucidError(f"--length is {text!r}; expected a number such as 0.1, or several: 0.05,0.1.") from None


def label(length: float) -> str:
    """What an average of this length is called in the table."""
    return f"length {length:g}"


def shown(rows: "Mapping[str, tuple[Estimate, Estimate]]") -> str:
    """A table for people."""
    spans = {name: [f"{each.value:.5f} +- {each.error:.5f}" for each in pair] for name, pair in rows.items()}
    return table([{"average": n, "held-out loss": loss, "above the best": gap} for n, (loss, gap) in spans.items()])
