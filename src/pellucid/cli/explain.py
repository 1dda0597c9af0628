"""`pellucid explain` and `pellucid verify`: a model's own account, and the theorems that it stands on."""

from json import loads
from pathlib import Path
from typing import Annotated

import typer

from ..errors import PellucidError, unknown
from ..files import check_writable, whole
from .console import answer, progress, table


def explain(
    what: Annotated[str, typer.Argument(help="A run; or a recipe or data, of which nothing has been learnt yet.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of a recipe, as path=flow.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", "--output", help="The folder to write.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise that is shown.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Write a model's own account: pictures, numbers, and one report.html that opens offline."""
    from .. import checkpoint, grids, samplers
    from .. import explain as account
    from ..config import Recipe

    found = checkpoint.latest(Path(what)) if checkpoint.is_kept(Path(what)) else None
    recipe = Recipe.of(found, settings or []) if found else Recipe.load(what, settings or [])
    with progress("reading") as show:
        data = recipe.read(lambda done, total: show(done, total, ""))
    subject = account.Subject(
        model=checkpoint.build(found) if found else recipe.build(data),
        data=data,
        objective=recipe.aim(),
        sampler=samplers.registry.make(recipe.sample.sampler),
        steps=recipe.sample.steps,
        grid=grids.registry.make(recipe.sample.grid),
        source=recipe.sample.noise,
        guidance=recipe.sample.guidance,
        rule=recipe.sample.rule,
        step=found.meta["step"] if found else 0,
        name=recipe.name,
        recipe=recipe.toml(),
        seed=seed,
    )
    beside = Path(what) / "explain" if checkpoint.folders(Path(what)) else Path(f"{recipe.name}-explained")
    out = out or beside  # nothing is put into a checkpoint
    with progress("explaining") as show:
        page = account.explain(subject, out, lambda done, total: show(done, total, ""))
    diagnosis = loads((page.parent / "numbers.json").read_text("utf-8")).get("diagnosis")
    advice = f"\n{diagnosis['advice']}" if diagnosis else ""
    answer(
        f"{page} tells all; its pictures and numbers.json lie beside it{advice}",
        {"report": str(page), "diagnosis": diagnosis},
        json,
    )


def verify(
    what: Annotated[
        str,
        typer.Argument(help="theorems (a minute); samplers (the order and bias of each: minutes); or one of these."),
    ] = "theorems",
    every: Annotated[
        bool, typer.Option("--all", help="Prove them of every sampler, not of one of each kind: minutes.")
    ] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", "--output", help="The page of samplers to write.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Prove the arithmetic: measure every theorem where the answer is known, and print the table."""
    if what == "theorems" and out:
        raise PellucidError(
            f"--out is {out}, but only samplers have a page; take pellucid verify samplers --out {out}."
        )
    if what != "theorems" and every:
        raise PellucidError(f"--all is for theorems; take pellucid verify --all, or pellucid verify {what} without it.")
    if what == "theorems":
        _prove(every, json)
    else:
        _certify(what, out, json)


def _prove(every: bool, json: bool) -> None:
    from ..explain.verify import all_samplers
    from ..explain.verify import verify as prove

    with progress("proving") as show:
        rows = prove(show, all_samplers() if every else None)
    missed = [row for row in rows if not row.holds]
    summary = f"{len(rows)} measurements, {len(missed)} missed"
    lines = [{**row._asdict(), "measured": f"{row.measured:.3g}"} for row in rows]
    answer(f"{table(lines)}\n\n{summary}", {"rows": [row._asdict() for row in rows], "missed": len(missed)}, json)
    raise typer.Exit(1 if missed else 0)


def _certify(what: str, out: Path | None, json: bool) -> None:
    from ..explain.verify import certificate
    from ..samplers import registry

    chosen = None
    if what != "samplers":
        if what.lower() not in registry.aliases:
            raise unknown("proof", what, ["theorems", "samplers", *registry.aliases])
        chosen = {what: registry.make(what)}
    if out:
        check_writable(out)
    with progress("measuring") as show:
        found = list(certificate.certify(show, chosen))
        adapted = certificate.tolerances(chosen)
    if out:
        with whole(out) as place:
            place.write_text(certificate.page(found, adapted))
    words = "\n".join(certificate.tables(found, adapted))
    data = {"samplers": [each.plain() for each in found], "adaptive": adapted}
    answer(f"{out} holds the tables" if out else words, data, json)
