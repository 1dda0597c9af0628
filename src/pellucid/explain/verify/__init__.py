"""Verify: every theorem, measured on distributions whose answers are known.

`verify()` proves them all in float64; the tests and `pellucid verify` read its rows. A theorem is one function whose
docstring is its statement: to register it (theorem.py) is to have it proved. Those about samplers are proved of one of
each kind, or of those that are asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from ...samplers import Sampler
from . import equation as equation
from . import laws as laws
from . import orders as orders
from . import steps as steps
from .certificate import Certificate, certify, page, tolerances
from .theorem import THEOREMS, TRIALS, Check, Row, all_samplers, one_of_each_kind

__all__ = ["Certificate", "Row", "all_samplers", "certify", "page"]
__all__ += ["proofs", "prove", "statements", "tolerances", "verify"]

Samplers = Mapping[str, Sampler] | None
"""By name; without them, one of each kind."""


def statements() -> dict[str, str]:
    """What each theorem says, in one sentence."""
    return {name: (check.__doc__ or "").split("\n")[0] for name, check in {**THEOREMS, **TRIALS}.items()}


def proofs(samplers: Samplers = None) -> list[tuple[str, str, Check]]:
    """(theorem, the sampler if it is about one, its proof)."""
    found = samplers if samplers is not None else one_of_each_kind()
    out = [(name, "", check) for name, check in THEOREMS.items()]
    return out + [(name, of, partial(trial, of, s)) for name, trial in TRIALS.items() for of, s in found.items()]


def prove(name: str, samplers: Samplers = None) -> Iterator[Row]:
    """The rows of one theorem, as they are measured."""
    for theorem, _, check in proofs(samplers):
        if theorem == name:
            yield from (row._replace(theorem=name) for row in check())


def verify(progress: Callable[[int, int, str], None] | None = None, samplers: Samplers = None) -> list[Row]:
    """All rows of all theorems. `progress` hears (proofs done, how many there are, the one under way)."""
    rows, todo = list[Row](), proofs(samplers)
    for done, (name, of, check) in enumerate(todo):
        if progress:
            progress(done, len(todo), f"{name}: {of}" if of else name)
        rows += [row._replace(theorem=name) for row in check()]
    if progress:
        progress(len(todo), len(todo), "")
    return rows
