"""`pellucid explain` and `pellucid verify`: a model's own account, and the theorems it stands on."""

from typing import Annotated

import typer


def explain(
    what: Annotated[str, typer.Argument(help="A run, a recipe, or data.")],
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Write a model's own account in pictures and numbers."""


def verify(json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Run the theorems and print the table."""
