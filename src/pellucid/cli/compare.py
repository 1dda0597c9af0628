"""`pellucid compare`: systems under one budget, one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PellucidError
from .console import answer, progress, tell

if TYPE_CHECKING:
    from ..compare import Row


def compare(
    systems: Annotated[list[str], typer.Argument(help="ddpm, edm, flow, reflow, gan, ...: see pellucid list systems.")],
    data: Annotated[str, typer.Option(help="A recipe, for its data, network and pace.")] = "digits",
    minutes: Annotated[float, typer.Option(help="Of training, for each.")] = 3.0,
    n: Annotated[int, typer.Option("-n", "--n", help="Samples of each.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of training and of drawing.")] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The folder; by default compare-DATA.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="A .md for table and grids; the pictures go to figures/ beside it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Train and draw from several systems under one budget, and print one table. Goes on where it was stopped."""
    from .. import compare as room
    from ..config import Recipe
    from ..files import check_writable

    if not 0 < minutes < 1e5 or n < 20:
        raise PellucidError(f"minutes is {minutes} and n {n}; expected a positive number, and 20 samples or more.")
    if page is not None and page.suffix != ".md":
        raise PellucidError(f"the page is {page}; expected a Markdown file, such as docs/compare.md.")
    if page is not None:
        check_writable(page)
    field, recipe = room.entrants(list(dict.fromkeys(systems))), Recipe.load(data, [f"train.seed={seed}"])
    dataset = recipe.read()
    folder = out or Path(f"compare-{Path(data).stem}")
    asked: dict[str, Any] = {"data": data, "minutes": minutes, "n": n, "seed": seed}
    room.agree(folder, asked)
    rows = [room.real(folder / "real", dataset, n, seed)]
    for entrant in field:
        row = room.read(folder / entrant.name / "row.json")
        if row is None:
            tell(f"{entrant.name}: {entrant.what}")
            with progress(entrant.name) as show:
                drawn = entrant.enter(data, dataset, folder / entrant.name, minutes, n, seed, show)
            row = room.keep(folder / entrant.name, entrant, drawn, dataset, seed)
        rows.append(row)
        report(folder, rows, asked)
    if page is not None:
        publish(page, folder, rows, asked)
    plain = [{**row._asdict(), "figures": {k: f._asdict() for k, f in row.figures.items()}} for row in rows]
    answer(f"{room.markdown(rows)}\n{folder / 'report.html'} shows what each draws", plain, json)


def report(folder: Path, rows: "list[Row]", asked: dict[str, Any]) -> None:
    """Write what there is so far: table.md and report.html."""
    from .. import compare as room
    from ..files import whole

    words = told(asked)
    with whole(folder / "table.md") as file:
        file.write_text(room.markdown(rows), "utf-8")
    with whole(folder / "report.html") as file:
        file.write_text(room.page("Systems side by side", words, rows, room.grids(folder, rows)), "utf-8")


def told(asked: dict[str, Any]) -> str:
    """What was compared, in a sentence."""
    return "{data}: {minutes:g} minutes of training and {n} samples each, seed {seed}.".format(**asked)


def publish(page: Path, folder: Path, rows: "list[Row]", asked: dict[str, Any]) -> None:
    """Write the page of a project: the table, the command that made it, and the grids beside it."""
    from .. import compare as room
    from ..files import whole

    names = " ".join(row.system for row in rows if row.system != room.REAL)
    command = f"pellucid compare {names} --data {asked['data']} --minutes {asked['minutes']:g} -n {asked['n']}"
    pictures = {}
    for picture in room.grids(folder, rows):
        pictures[picture.name] = f"figures/{page.stem}-{picture.name}.png"
        with whole(page.parent / pictures[picture.name]) as file:
            file.write_bytes(picture.files["png"])
    with whole(page) as file:
        file.write_text(room.document("Systems side by side", told(asked), command, rows, pictures), "utf-8")
