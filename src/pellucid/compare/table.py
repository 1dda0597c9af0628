"""The table of a comparison, in Markdown and in HTML: a row for each system, best figures in bold."""

import html
from importlib.resources import files

from ..explain.chapter import Picture, Table
from ..explain.report import block
from ..metrics import Figure
from .row import REAL, Row

COLUMNS: dict[str, tuple[str, bool]] = {
    "frechet": ("Fréchet", False),
    "kid": ("kernel", False),
    "precision": ("precision", True),
    "recall": ("recall", True),
    "coverage": ("coverage", True),
    "c2st": ("told apart", False),
    "energy": ("energy", False),
    "copy_ratio": ("copy ratio", True),
    "class_accuracy": ("read right", True),
    "bits": ("bits/dim", False),
}
"""Figures that are shown, in this order: their heading, and whether more is better. The rest is in the JSON."""


def cells(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows of the table, as Markdown."""
    shown = [key for key in COLUMNS if any(key in row.figures for row in rows)]
    best = {key: _best(rows, key) for key in shown}
    head = ("system", *(COLUMNS[key][0] for key in shown), "calls", "s per 100", "steps", "minutes")
    body = []
    for row in rows:
        real = row.system == REAL
        middle = [_cell(row.figures.get(key), row.system == best[key]) for key in shown]
        spent = f"{row.calls:g}", f"{row.drawing:.2g}", f"{row.steps}", f"{row.seconds / 60:.2g}"
        last = ("",) * len(spent) if real else spent
        body.append((row.system, *middle, *last))
    return head, body


def _best(rows: list[Row], key: str) -> str | None:
    """The system with the best figure; for the copy ratio there is none."""
    found = [(row.figures[key].value, row.system) for row in rows if key in row.figures and row.system != REAL]
    if not found or key == "copy_ratio":
        return None
    return (max if COLUMNS[key][1] else min)(found)[1]


def _cell(figure: Figure | None, best: bool) -> str:
    if figure is None:
        return ""
    text = f"{figure.value:.3g} ± {figure.error:.1g}"
    return f"**{text}**" if best else text


def markdown(rows: list[Row]) -> str:
    """The table as Markdown."""
    head, body = cells(rows)
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join([' --- ', *[' ---: '] * (len(head) - 1)])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)]) + "\n"


def document(title: str, words: str, command: str, rows: list[Row], pictures: dict[str, str]) -> str:
    """The same in Markdown, for a page of a project: `command` made it; `pictures` are the grids' places by system."""
    parts = [f"# {title}", f"{words} Figures and their standard errors; the best of each is bold."]
    parts += [f"```sh\n{command}\n```", markdown(rows).rstrip()]
    for row in rows:
        shown = [f"![Samples of {row.system}.]({pictures[row.system]})"] if row.system in pictures else []
        parts += [f"## {row.system}", row.what, *shown]
    return "\n\n".join(parts) + "\n"


def page(title: str, words: str, rows: list[Row], grids: list[Picture]) -> str:
    """A page that opens anywhere: the table, then what each system draws."""
    head, body = cells(rows)
    bold = [tuple(f"<b>{c[2:-2]}</b>" if c.startswith("**") else html.escape(c) for c in row) for row in body]
    table = block(
        Table(head, tuple(bold), "Figures and their standard errors. Real data: held-out against training data.")
    )
    style = files("pellucid.explain").joinpath("report.css").read_text("utf-8")
    what = "".join(f"<dt>{html.escape(row.system)}</dt><dd>{html.escape(row.what)}</dd>" for row in rows)
    pictures = "".join(map(block, grids))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)} · pellucid</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{style}</style></head><body><header><h1>{html.escape(title)}</h1><p class="sub">{words}</p></header>'
        f"<main>{table}<dl>{what}</dl>{pictures}</main></body></html>\n"
    )
