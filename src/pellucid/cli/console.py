"""How long work shows itself: a bar on a terminal, a line every few seconds elsewhere. All of it goes to stderr."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import PellucidError

if TYPE_CHECKING:
    import torch

Show = Callable[[int, int, str], None]
"""show(done, total, words)"""
DEVICES = "cpu", "cuda", "mps", "xpu"
QUIET = 5.0  # seconds between two lines where there is no terminal


@contextmanager
def progress(title: str) -> Iterator[Show]:
    """Yields the function by which the work says how far it is."""
    if sys.stderr.isatty():
        yield from _bar(title)
    else:
        yield _lines(title)


def _bar(title: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=None, words="")
        yield lambda done, total, words: bars.update(task, completed=done, total=total, words=words)


def _lines(title: str) -> Show:
    last = time.monotonic()

    def show(done: int, total: int, words: str) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= QUIET:
            last = time.monotonic()
            print(f"{title} {done}/{total} {words}".rstrip(), file=sys.stderr, flush=True)

    return show


def device(name: str | None) -> "torch.device":
    """The device of that name; without one, the graphics card if there is one."""
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if name.partition(":")[0] not in DEVICES:
            raise NotImplementedError
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise PellucidError(f"there is no device {name!r} here; expected cpu, cuda or cuda:1.") from None


def asked(settings: Sequence[str] | None, options: Mapping[str, object]) -> list[str]:
    """KEY=VALUE of the settings and of the options that are given; options win."""
    return [*(settings or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]


def tell(line: str) -> None:
    """A remark on the way."""
    print(f"pellucid: {line}", file=sys.stderr)


def answer(words: str, data: Any, as_json: bool) -> None:
    """What a command found, for a reader or for a program."""
    print(json.dumps(data, indent=1) if as_json else words)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys, under one heading."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160)
    grid = Table(*rows[0], box=SIMPLE, pad_edge=False)
    for row in rows:
        grid.add_row(*(_cell(value) for value in row.values()))
    with console.capture() as captured:
        console.print(grid, markup=False)
    return "\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return ", ".join(value) if isinstance(value, list) else str(value)
