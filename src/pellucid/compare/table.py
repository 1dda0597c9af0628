"""The table of a comparison, in Markdown and in HTML: a row for each system, the best figures in bold."""

import html
import math

from ..explain.chapter import Chapter, Picture, Table
from ..explain.report import document as explained
from ..metrics import Figure
from ..metrics.estimate import Z
from .row import REAL, Row

COLUMNS = {
    "frechet": ("Fréchet", "less"),
    "kid": ("kernel", "less"),
    "precision": ("precision", "more"),
    "recall": ("recall", "more"),
    "coverage": ("coverage", "near"),
    "c2st": ("told apart", "less"),
    "energy": ("energy", "less"),
    "copy_ratio": ("copy ratio", "near"),
    "class_accuracy": ("read right", "more"),
    "bits": ("bits/dim", "less"),
}
"""Figures that are shown, in this order: their heading, and which are better, as their metric has it; near: to real
data's. The rest is in the JSON."""


def cells(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heading and rows of the table, as Markdown."""
    shown = [key for key in COLUMNS if any(key in row.figures for row in rows)]
    best = {key: _best(rows, key) for key in shown}
    head = ("system", *(COLUMNS[key][0] for key in shown), "calls", "s per 100", "steps", "minutes")
    body = []
    for row in rows:
        real = row.system == REAL
        middle = [_cell(row.figures.get(key), row.system in best[key]) for key in shown]
        spent = f"{row.calls:g}", f"{row.drawing:.2g}", f"{row.steps}", f"{row.seconds / 60:.2g}"
        last = ("",) * len(spent) if real else spent
        body.append((row.system, *middle, *last))
    return head, body


def _best(rows: list[Row], key: str) -> set[str]:
    """The systems that score best: one, and those that chance alone may have put behind it."""
    real = next((row.figures[key].value for row in rows if row.system == REAL and key in row.figures), None)
    found = {row.system: row.figures[key] for row in rows if key in row.figures and row.system != REAL}
    better = COLUMNS[key][1]
    if not found or (better == "near" and real is None):
        return set()
    cost = {"less": lambda value: value, "more": lambda value: -value, "near": lambda value: abs(value - real)}[better]
    best = min(found.values(), key=lambda figure: cost(figure.value))
    behind = {system: cost(figure.value) - cost(best.value) for system, figure in found.items()}
    return {system for system, gap in behind.items() if gap <= Z * math.hypot(found[system].error, best.error)}


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
    bold = "bold: the best of each, and what chance alone may have put behind it."
    parts = [f"# {title}", f"{words} Figures and their standard errors; {bold}"]
    parts += [f"```sh\n{command}\n```", markdown(rows).rstrip()]
    for row in rows:
        shown = [f"![Samples of {row.system}.]({pictures[row.system]})"] if row.system in pictures else []
        parts += [f"## {row.system}", row.what, *shown]
    return "\n\n".join(parts) + "\n"


def page(title: str, words: str, rows: list[Row], grids: list[Picture]) -> str:
    """A page that opens anywhere: the table, then what each system draws."""
    head, body = cells(rows)
    bold = [tuple(f"<b>{c[2:-2]}</b>" if c.startswith("**") else html.escape(c) for c in row) for row in body]
    table = Table(head, tuple(bold), "Figures and their standard errors. Real data: held-out against training data.")
    what = "".join(f"<dt>{html.escape(row.system)}</dt><dd>{html.escape(row.what)}</dd>" for row in rows)
    chapters = [
        Chapter("figures", "Figures", (table,), {}),
        Chapter("systems", "Systems", (f"<dl>{what}</dl>", *grids), {}),
    ]
    return explained(title, words, chapters)
