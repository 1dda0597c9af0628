"""Docstrings are plain text, written for people who read the source. Here they become pages, as they stand:

indented lines, and paragraphs in columns     shown letter for letter: formulas, tables
paragraphs that begin `name: ...`             a list of names
`words in backquotes`                         code
everything else                               prose, its symbols typeset; no sign has a hidden meaning
"""

import html
import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sphinx.application import Sphinx

from pellucid.explain.mathematics import prose

NAME = re.compile(r"([a-z]\w*): ")


def page(lines: list[str]) -> Iterator[str]:
    """A plain docstring as HTML."""
    for shown, group in groupby(_paragraphs(lines), key=_is_shown):
        if shown:  # neighbours that are shown letter for letter are one block
            text = textwrap.dedent("\n\n".join("\n".join(paragraph) for paragraph in group))
            yield f'<pre class="plain">{html.escape(text)}</pre>'
            continue
        for paragraph in group:
            if NAME.match(paragraph[0]):
                yield f"<ul>{''.join(_names(paragraph))}</ul>"
            else:
                yield f"<p>{typeset(' '.join(paragraph))}</p>"


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines between blank ones; a change of indentation from or to the margin also parts them."""
    for (filled, _), group in groupby(lines, key=lambda line: (bool(line.strip()), line.startswith(" "))):
        if filled:
            yield list(group)


def _is_shown(paragraph: list[str]) -> bool:
    """Indented, or in columns: two lines whose second part begins at the same place."""
    gaps = [match.end() for line in paragraph if (match := re.match(r"\S.*? {2,}(?=\S)", line))]
    return paragraph[0].startswith(" ") or len(gaps) > len(set(gaps))


def _names(paragraph: list[str]) -> Iterator[str]:
    _, *parts = re.split(r"^([a-z]\w*): ", "\n".join(paragraph), flags=re.MULTILINE)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        yield f"<li><code>{name}</code>: {typeset(text)}</li>"


def typeset(text: str) -> str:
    """A sentence with its symbols typeset; in a sentence, mean is a word."""
    return "mean".join(map(prose, re.split(r"\bmean\b", text)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Docstrings are made pages; what Python says by itself of the fields of a tuple is left out."""

    def process(app: Sphinx, what: str, name: str, part: Any, options: Any, lines: list[str]) -> None:
        if lines:
            shown = "\n".join(page(lines)).splitlines()
            lines[:] = [".. raw:: html", "", *(f"   {line}" for line in shown), ""]

    def skip(app: Sphinx, what: str, name: str, part: Any, skip: bool, options: Any) -> bool | None:
        return True if str(getattr(part, "__doc__", "")).startswith("Alias for field number") else None

    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
