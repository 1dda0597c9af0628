"""`pellucid explain` and `pellucid verify`: a model's own account, and the theorems that it stands on."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import unknown
from .console import answer, progress, table


def explain(
    what: Annotated[str, typer.Argument(help="A run; or a recipe or data, of which nothing has been learnt yet.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of a recipe, as path=flow.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", "--output", help="The folder to write.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise that is shown.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Write a model's own account: pictures, numbers, and one report.html that opens offline."""
    from .. import checkpoint, grids, samplers
    from .. import explain as account
    from ..config import Recipe

    found = checkpoint.latest(Path(what)) if checkpoint.folders(Path(what)) else None
    recipe = Recipe.load(what, settings or [])
    with progress("reading") as show:
        data = recipe.read(lambda done, total: show(done, total, ""))
    subject = account.Subject(
        model=checkpoint.build(found) if found else recipe.build(data),
        data=data,
        objective=recipe.aim(),
        sampler=samplers.registry.make(recipe.sample.sampler),
        steps=recipe.sample.steps,
        grid=grids.registry.make(recipe.sample.grid),
        guidance=recipe.sample.guidance,
        step=found.meta["step"] if found else 0,
        name=recipe.name,
        recipe=recipe.toml(),
        seed=seed,
    )
    out = out or (Path(what) / "explain" if found else Path(f"{recipe.name}-explained"))
    with progress("explaining") as show:
        page = account.explain(subject, out, lambda done, total: show(done, total, ""))
    answer(f"{page} tells all; its pictures and numbers.json lie beside it", {"report": str(page)}, json)


def verify(
    what: Annotated[str, typer.Argument(help="theorems, or samplers: order and bias of each of them.")] = "theorems",
    out: Annotated[Path | None, typer.Option("-o", "--out", "--output", help="The page of samplers to write.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Prove the arithmetic: measure every theorem where the answer is known, and print the table."""
    if what not in ("theorems", "samplers"):
        raise unknown("proof", what, ["theorems", "samplers"])
    if what == "samplers":
        _certify(out, json)
        return
    from ..explain.verify import verify as prove

    with progress("proving") as show:
        rows = prove(show)
    missed = [row for row in rows if not row.holds]
    summary = f"{len(rows)} measurements, {len(missed)} missed"
    lines = [{**row._asdict(), "measured": f"{row.measured:.3g}"} for row in rows]
    answer(f"{table(lines)}\n\n{summary}", {"rows": [row._asdict() for row in rows], "missed": len(missed)}, json)
    raise typer.Exit(1 if missed else 0)


def _certify(out: Path | None, json: bool) -> None:
    from ..explain.verify import certify, page

    with progress("measuring") as show:
        found = list(certify(show))
    if out:
        out.write_text(page(found))
    answer(f"{out} holds the tables" if out else page(found), [each.plain() for each in found], json)
