"""The account as one page that opens anywhere: styles and pictures inside, formulas as MathML, no script, no host."""

import base64
import html
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from .chapter import Block, Chapter, Picture, Table
from .subject import Subject

KIND = {"svg": "image/svg+xml", "png": "image/png", "gif": "image/gif"}
PREFERRED = ("svg", "gif", "png")


def page(subject: Subject, chapters: Sequence[Chapter]) -> str:
    """The HTML of a report."""
    recipe = f"<details><summary>The recipe</summary><pre>{html.escape(subject.recipe)}</pre></details>"
    return document(subject.name or subject.data.name, summary(subject), chapters, recipe if subject.recipe else "")


def document(name: str, sub: str, chapters: Sequence[Chapter], tail: str = "") -> str:
    """Chapters as one page; `sub` and `tail` are HTML."""
    title = html.escape(name)
    style = files(__package__).joinpath("report.css").read_text("utf-8")
    links = "".join(f'<a href="#{chapter.key}">{chapter.title}</a>' for chapter in chapters)
    body = "".join(f'<h2 id="{c.key}">{c.title}</h2>{"".join(map(block, c.blocks))}' for c in chapters)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · pellucid</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body><header><h1>{title}</h1>"
        f'<p class="sub">{sub}</p></header><nav>{links}</nav><main>{body}</main>{tail}</body></html>\n'
    )


def summary(subject: Subject) -> str:
    """The model in one line."""
    shape = "×".join(map(str, subject.data.shape))
    what = f"{shape} pictures" if subject.data.pictures else f"samples of {shape} numbers"
    learnt = f"trained for {subject.step:,} steps" if subject.step else "not trained yet"
    return f"A diffusion model of {html.escape(subject.data.name)}: {len(subject.data.train.x):,} {what}, {learnt}."


def block(part: Block) -> str:
    """A piece of a chapter as HTML."""
    if isinstance(part, Picture):
        source = f'<div class="scroll"><img src="{embedded(part)}" alt="{html.escape(part.alt)}"></div>'
        return f"<figure>{source}<figcaption>{part.caption}</figcaption></figure>"
    return _table(part) if isinstance(part, Table) else part


def embedded(picture: Picture) -> str:
    """The best of a picture's files as a data URI."""
    kind = next(kind for kind in PREFERRED if kind in picture.files)
    return f"data:{KIND[kind]};base64,{base64.b64encode(picture.files[kind]).decode()}"


def _table(table: Table) -> str:
    kind = "words" if table.head[0] == "" else "numbers"
    head = "".join(f"<th>{cell}</th>" for cell in table.head)
    rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in table.rows)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<figure class="{kind}"><div class="scroll">{body}</div><figcaption>{table.caption}</figcaption></figure>'


def plain(value: Any) -> Any:
    """Numbers as JSON has them: what is infinite or undefined becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
