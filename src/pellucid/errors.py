"""What a user can do wrong, said in one sentence: what was got, what was expected, what to do."""

from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from operator import index


class PellucidError(ValueError):
    """A mistake at the door. Its text is one sentence; the command prints it alone and exits with code 2."""


def integer(name: str, value: object, least: int = 1) -> int:
    """The whole number, `least` or more, that a value is: also one of numpy's or torch's."""
    with suppress(TypeError):
        if not isinstance(value, bool) and (found := index(value)) >= least:  # type: ignore[arg-type]
            return found
    raise PellucidError(f"{name} is {value!r}; expected a whole number, {least} or more.")


def is_short_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get memory, which it says in many words."""
    said = str(error).lower()
    return "alloc" in said or "out of memory" in said


def unknown(what: str, got: object, known: Iterable[str], few: Iterable[str] = ()) -> PellucidError:
    """The error for a name that is not in `known`: the nearest match if there is one, else all names, or the `few`."""
    names = sorted(known)
    near = get_close_matches(str(got).lower(), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(few or names)}."
    return PellucidError(f"unknown {what} {str(got)!r}; {hint}")
