"""The command `pellucid`: options in, the library called, a picture or a sentence out.

Nothing heavy is imported before a command runs, so that `pellucid --help` answers at once. A user's mistake is one
sentence and exit code 2; a figure that misses its bar is exit code 1; never a traceback for either.
"""

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NoReturn

import typer

from ..errors import PellucidError, is_short_of_memory
from ..files import MISTAKEN
from . import classify, compare, data, demo, ema, evaluate, explain, likelihood, listing, reflow, sample, train, tune
from .launch import is_launched

app = typer.Typer(
    help="Diffusion models in one equation: x_t = alpha(t) x0 + sigma(t) eps.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: list[Callable[..., None]] = [demo.demo, train.train, sample.sample, explain.explain, explain.verify]
COMMANDS += [evaluate.evaluate, likelihood.likelihood, tune.tune, compare.compare, classify.classify]
COMMANDS += [reflow.reflow, ema.ema, listing.list_, listing.show]
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"))(command)
app.add_typer(data.group, name="data")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while others compute slow both many times
    warnings.showwarning = lambda message, *_: print(f"pellucid: {message}", file=sys.stderr)
    try:
        code = app(given or ["--help"], prog_name="pellucid", standalone_mode=False, obj=given)
    except PellucidError as error:  # of several processes all have met it, and the first says it
        code = 2 if is_launched() and os.environ["RANK"] != "0" else _refuse(str(error), 2)
    except typer.TyperException as error:
        code = _refuse(_misuse(error, given), 2)
    except (MemoryError, RecursionError, OverflowError) as error:
        code = _refuse(f"too much was asked for ({str(error) or type(error).__name__}); ask for less.", 2)
    except RuntimeError as error:
        if not is_short_of_memory(error):
            raise  # not a user's mistake but ours
        code = _refuse("there is not memory enough for this; ask for less, such as a smaller --batch.", 2)
    except OSError as error:  # the disk is full, or a file went away under us
        mistaken = error.errno in MISTAKEN - {errno.ENOENT}
        said = f"{(error.strerror or str(error)).lower()}: {error.filename or 'while writing'}"
        again = "" if mistaken else "; what was there before is whole: mend the disk and give the same command again"
        code = _refuse(f"{said}{again}.", 2 if mistaken else 74)
    sys.exit(code or 0)


def _refuse(sentence: str, code: int) -> int:
    print(f"pellucid: {sentence}", file=sys.stderr)
    return code


def _misuse(error: typer.TyperException, given: Sequence[str]) -> str:
    """Typer's complaint, with what was got, what was expected and what to do."""
    if near := getattr(error, "possibilities", None):
        return f"{error.message[0].lower()}{error.message[1:]}; did you mean {near[0]}?"
    options = getattr(getattr(error, "param", None), "opts", [])
    for option, got in pairwise(part for word in given for part in word.split("=", 1)):
        if option in options and error.message.startswith("Input should be "):
            expected = re.sub(r"^(?=greater|less)", "a number ", error.message.removeprefix("Input should be "))
            return f"{option} is {got!r}; expected {expected}."
    command = getattr(getattr(error, "ctx", None), "command_path", "pellucid")
    complaint = " ".join(error.format_message().split())
    return complaint if complaint.endswith("?") else f"{complaint.rstrip('.')}; see {command} --help."
