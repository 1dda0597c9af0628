"""TOML: a setting read from the command line, a value written, a table without its nesting.

`key.sub=value` overrides one setting of a table, its value read as TOML.
"""

import json
import re
import tomllib
from typing import Any

from ..errors import PellucidError

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def override(table: dict[str, Any], setting: str) -> None:
    """Set one `key.sub=value` in the table; a part written as its name becomes the table of that name."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise PellucidError(f"{setting!r} is no setting; expected key=value, such as optim.lr=1e-3.")
    *outer, last = key.strip().split(".")
    for word in outer:
        inner = table.get(word, {})
        table[word] = {"name": inner} if isinstance(inner, str) else inner
        table = table[word]
        if not isinstance(table, dict):
            raise PellucidError(f"{key.strip()!r} is no setting: {word!r} has no settings of its own.")
    table[last] = _value(text.strip())
    if rival := {"train.steps": "minutes", "train.minutes": "steps"}.get(key.strip()):
        table.pop(rival, None)


def _value(text: str) -> Any:
    """A value as TOML has it, or a number as people write it: .5, 2. or 007; anything else is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return float(text) if NUMBER.fullmatch(text) else text


def written(value: Any) -> str:
    """A value as TOML has it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers, true and false are the same in both


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of a nested table under its dotted key."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
