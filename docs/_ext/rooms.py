"""The account of a room of the house, made from its source while the pages are built:

```{room} samplers       every module of the room, by name
```{commands}            every command of the command line, with its arguments and options
"""

import pkgutil
from collections.abc import Iterator
from html import escape
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Room(SphinxDirective):
    """What the modules of a room say of themselves."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        accounts = "\n".join(told(name) for name in modules(f"pellucid.{self.arguments[0]}"))
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n{accounts}\n```")


def modules(name: str) -> Iterator[str]:
    """A module and, where it is a package, the modules within."""
    yield name
    for found in pkgutil.iter_modules(getattr(import_module(name), "__path__", [])):
        yield from modules(f"{name}.{found.name}")


def told(name: str) -> str:
    """The directive for a module. Of a package only what it defines itself: the rest is told where it is made."""
    module = import_module(name)
    own = ", ".join(word for word, thing in vars(module).items() if getattr(thing, "__module__", None) == name)
    package = f"   :members: {own}\n" if own else "   :no-members:\n"
    return f".. automodule:: {name}\n{package if hasattr(module, '__path__') else ''}"


class Commands(SphinxDirective):
    """What the command says of itself."""

    def run(self) -> list[nodes.Node]:
        import typer

        from pellucid.cli import app

        group: Any = typer.main.get_command(app)
        return [nodes.raw("", account(*item), format="html") for item in flat(group.commands)]


def flat(commands: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its name, those within others too: data pack, data check."""
    for name, command in commands.items():
        within = getattr(command, "commands", None)
        yield from flat(within, f"{before}{name} ") if within else [(f"{before}{name}", command)]


def account(name: str, command: Any) -> str:
    """A command as HTML: its line, what it does, a row for each argument and option."""
    line = " ".join([name, *(shown(p) for p in command.params if p.param_type_name == "argument")])
    rows = "".join(f"<tr><td>{names(p)}</td><td>{meaning(p)}</td></tr>" for p in command.params)
    table = f'<table class="docutils align-default"><tbody>{rows}</tbody></table>'
    head = f'<h2 id="{name.replace(" ", "-")}">{name}</h2>'
    return f'{head}<pre class="plain">pellucid {escape(line)}</pre><p>{command.help}</p>{table}'


def names(parameter: Any) -> str:
    """The names of an option, or the word that stands for an argument."""
    option = parameter.param_type_name == "option"
    words = [*parameter.opts, *parameter.secondary_opts] if option else [shown(parameter)]
    return ", ".join(f'<code class="docutils literal notranslate">{escape(word)}</code>' for word in words)


def shown(parameter: Any) -> str:
    """An argument as a usage line has it."""
    word = parameter.metavar or parameter.name.upper()
    return word if parameter.required or word.startswith("[") else f"[{word}]"


def meaning(parameter: Any) -> str:
    """The help, and the default where there is one to tell."""
    default = parameter.default
    told = f" ({escape(str(default))})" if default is not None and default is not False else ""
    return escape(parameter.help or "") + told


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("room", Room)
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
