"""Tables of what is registered, made while the pages are built:

```{parts} pellucid.samplers.registry
```
"""

import importlib
import inspect
from collections.abc import Iterator
from html import escape
from typing import Any

from docutils import nodes
from plain import typeset
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pellucid.registry import Registry

HEAD = "<tr><th>name</th><th>other names</th><th>options</th><th>what it is</th></tr>"


class Parts(SphinxDirective):
    """One row for each name of a registry: its other names, its options and their defaults, what it is."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, attribute = self.arguments[0].rsplit(".", 1)
        rows = "".join(f"<tr>{row}</tr>" for row in table(getattr(importlib.import_module(module), attribute)))
        shown = f'<table class="docutils align-default"><thead>{HEAD}</thead><tbody>{rows}</tbody></table>'
        return [nodes.raw("", f'<div class="table-wrapper docutils container">{shown}</div>', format="html")]


def table(registry: "Registry[Any]") -> Iterator[str]:
    """The cells of each row."""
    for name in registry.names():
        if name in registry.presets:
            options = registry.describe(registry.presets[name])
            what = f"a setting of <code>{options.pop('name')}</code>"
        elif name in registry.settings:
            base, options = registry.settings[name]
            what = f"a setting of <code>{base}</code>"
        else:
            cls = registry.classes[name]
            options = _defaults(cls)
            what = typeset((inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " "))
        settings = [_code([key if value is None else f"{key} = {value!r}"]) for key, value in options.items()]
        cells = _code([name]), _code(registry.aliases_of(name)), "<br>".join(settings), what
        yield "".join(f"<td>{cell}</td>" for cell in cells)


def _defaults(cls: type) -> dict[str, Any]:
    """The options of a class and their defaults, None where there is none."""
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.name not in ("shape", "context")]
    return {p.name: None if p.default is p.empty else p.default for p in parameters}


def _code(words: list[str]) -> str:
    return ", ".join(f'<code class="docutils literal notranslate">{escape(word)}</code>' for word in words)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("parts", Parts)
    return {"parallel_read_safe": True}
