"""Names for parts. To register a class is to list, document, configure and test it: nothing else is edited.

A part is written in a recipe as its name, or as a table of its name and options:  "cosine"  or
{name = "cosine", s = 0.008}. Options are the keyword parameters of its class; nothing in data ever names code.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, Generic, TypeVar

from .errors import PellucidError, unknown

T = TypeVar("T", bound=type)
Part = TypeVar("Part")


class Registry(Generic[Part]):
    """The parts of one family, by name."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.classes: dict[str, type] = {}
        self.presets: dict[str, Part] = {}
        self.aliases: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable[[T], T]:
        """Class decorator: lists the class under `name`, and records the options of each object made from it."""

        def add(cls: T) -> T:
            self.classes[name] = cls
            self._alias(name, aliases)
            if not is_dataclass(cls):
                _record_options(cls)
            return cls

        return add

    def preset(self, name: str, part: Part, *aliases: str) -> None:
        """List `part`, an object of a registered class, under a name of its own."""
        self.presets[name] = part
        self._alias(name, aliases)

    def _alias(self, name: str, aliases: tuple[str, ...]) -> None:
        self.aliases |= {alias.lower(): name for alias in (name, *aliases)}

    def names(self) -> list[str]:
        """All names, without the aliases."""
        return sorted({*self.classes, *self.presets})

    def aliases_of(self, name: str) -> list[str]:
        """The other names by which users know `name`."""
        return sorted(alias for alias, target in self.aliases.items() if target == name and alias != name)

    def resolve(self, part: Part | str | Mapping[str, Any]) -> Part:
        """`part` itself, or the one that a name or table stands for."""
        return self.make(part) if isinstance(part, str | Mapping) else part

    def make(self, spec: str | Mapping[str, Any], *context: Any) -> Part:
        """Build a part from its name or its table. `context` comes before the options (a network's shape, say)."""
        if not isinstance(spec, str | Mapping):
            raise PellucidError(f"{self.family} is {spec!r}; expected a name or a table with a name.")
        options = {} if isinstance(spec, str) else dict(spec)
        name = spec if isinstance(spec, str) else str(options.pop("name", ""))
        canonical = self.aliases.get(name.lower())
        if canonical is None:
            raise unknown(self.family, name, self.aliases)
        if canonical in self.presets:
            preset = self.presets[canonical]
            if not options:
                return preset
            return self._build(canonical, type(preset), _options_of(preset) | options, context)
        return self._build(canonical, self.classes[canonical], options, context)

    def _build(self, name: str, cls: type, options: dict[str, Any], context: tuple[Any, ...]) -> Part:
        known = list(inspect.signature(cls).parameters.values())[len(context) :]
        for key in options:
            if key not in {p.name for p in known}:
                raise unknown(f"option of {self.family} {name!r}:", key, [p.name for p in known])
        hints = {p.name: p.annotation for p in known}
        options = {key: self._check(name, key, value, hints[key]) for key, value in options.items()}
        missing = [p.name for p in known if p.default is p.empty and p.name not in options]
        if missing:
            raise PellucidError(
                f"{self.family} {name!r} needs {', '.join(missing)}; write a table with its name and that."
            )
        part: Part = cls(*context, **options)
        return part

    def _check(self, name: str, key: str, value: Any, hint: Any) -> Any:
        if hasattr(hint, "registry"):  # a part within a part: Shifted(base=...)
            return value if isinstance(value, hint) else hint.registry.make(value)
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(hint).validate_python(value)
        except ValidationError as error:
            why = error.errors()[0]["msg"].lower()
            raise PellucidError(f"{self.family} {name!r} has {key} = {value!r}; {why}.") from None

    def describe(self, part: Part) -> dict[str, Any]:
        """The table that makes `part` again: {"name": ..., options...}, ready for JSON and TOML."""
        for name, cls in self.classes.items():
            if type(part) is cls:
                options = {key: _plain(value) for key, value in _options_of(part).items()}
                return {"name": name, **{key: value for key, value in options.items() if value is not None}}
        raise PellucidError(f"{type(part).__name__} is not a registered {self.family}; register its class.")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    family = getattr(type(value), "registry", None)
    return family.describe(value) if family is not None else value


def _options_of(part: Any) -> dict[str, Any]:
    if is_dataclass(part):
        return {f.name: getattr(part, f.name) for f in fields(part) if f.init}
    return dict(part.options)


def _record_options(cls: type) -> None:
    """Make every object of cls remember the keyword options it was built with, as `.options`."""
    original: Callable[..., None] = cls.__init__  # type: ignore[misc]

    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(original).bind(self, *args, **kwargs)
        bound.apply_defaults()
        original(self, *args, **kwargs)
        keyword_only = [p.name for p in inspect.signature(original).parameters.values() if p.kind is p.KEYWORD_ONLY]
        self.options = {name: bound.arguments[name] for name in keyword_only}

    cls.__init__ = init  # type: ignore[misc]
