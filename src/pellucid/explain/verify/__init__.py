"""Verify: every theorem, measured on distributions whose answers are known.

`verify()` proves them all in float64; the tests and `pellucid verify` read its rows. A theorem is one function whose
docstring is its statement: to register it (theorem.py) is to have it proved.
"""

from collections.abc import Callable, Iterator

from . import equation as equation
from . import laws as laws
from . import orders as orders
from . import steps as steps
from .certificate import Certificate, certify, page
from .theorem import THEOREMS, Row

__all__ = ["Certificate", "Row", "certify", "page", "prove", "statements", "verify"]


def statements() -> dict[str, str]:
    """What each theorem says, in one sentence."""
    return {name: (check.__doc__ or "").split("\n")[0] for name, check in THEOREMS.items()}


def prove(name: str) -> Iterator[Row]:
    """The rows of one theorem, as they are measured."""
    for row in THEOREMS[name]():
        yield row._replace(theorem=name)


def verify(progress: Callable[[int, int, str], None] | None = None) -> list[Row]:
    """All rows of all theorems. `progress` hears (theorems proved, how many there are, the one under way)."""
    rows: list[Row] = []
    for done, name in enumerate(THEOREMS):
        if progress:
            progress(done, len(THEOREMS), name)
        rows += prove(name)
    if progress:
        progress(len(THEOREMS), len(THEOREMS), "")
    return rows
