"""What an account is made of: chapters of words, pictures and tables, with the numbers behind them."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Picture(NamedTuple):
    """One picture in one or more formats: `name`.suffix for each of `files`. The caption is HTML, `alt` plain words."""

    name: str
    files: Mapping[str, bytes]
    alt: str
    caption: str


class Table(NamedTuple):
    """Cells are HTML."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


Block = str | Picture | Table
"""A piece of a chapter; text is HTML."""


class Chapter(NamedTuple):
    """One part of the account. `numbers` go to numbers.json under `key`."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    numbers: dict[str, Any]
