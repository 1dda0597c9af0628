"""The command `pellucid`: options in, the library called, a picture or a sentence out.

Nothing heavy is imported before a command runs, so that `pellucid --help` answers at once. A user's mistake is one
sentence and exit code 2; a figure that misses its bar is exit code 1; never a traceback for either.
"""

import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import typer

from ..errors import PellucidError
from .demo import demo
from .explain import explain, verify
from .listing import list_, show
from .sample import sample
from .train import train

app = typer.Typer(
    help="Diffusion models in one equation: x_t = alpha(t) x0 + sigma(t) eps.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, train, sample, explain, verify, list_, show):
    app.command(command.__name__.rstrip("_"))(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = lambda message, *_: print(f"pellucid: {message}", file=sys.stderr)
    try:
        code = app(given or ["--help"], prog_name="pellucid", standalone_mode=False)
    except PellucidError as error:
        code = _refuse(str(error), 2)
    except typer.TyperException as error:
        code = _refuse(_one_line(error.format_message()), 2)
    except OSError as error:  # the disk is full, or a file went away under us
        code = _refuse(f"{error.strerror or error}: {error.filename or 'while writing'}.", 74)
    sys.exit(code or 0)


def _refuse(sentence: str, code: int) -> int:
    print(f"pellucid: {sentence}", file=sys.stderr)
    return code


def _one_line(usage: str) -> str:
    """Typer's message about a misuse, with where to look further."""
    return f"{' '.join(usage.split()).rstrip('.')}; see pellucid --help."
