"""Names for parts. To register a class is to list, document, configure and test it: nothing else is edited.

A part is written in a recipe as its name, or as a table of its name and options:  "cosine"  or
{name = "cosine", s = 0.008}. Options are the keyword parameters of its class; nothing in data ever names code.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from types import NoneType
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, get_args, get_origin

from .errors import PellucidError, unknown

T = TypeVar("T", bound=type)
Part = TypeVar("Part")


class Rule(NamedTuple):
    """What an option must be beyond its type: in words, and as a test. It stands in the annotation of the option."""

    words: str
    holds: Callable[[Any], bool]


FINITE = Rule("a finite number", math.isfinite)
FINITE_IF_ANY = Rule("a finite number, or none", lambda value: value is None or math.isfinite(value))
"""The rules of each float, and of each that may be left out, without one of their own."""
Positive = Annotated[float, Rule("a positive number, 1e-12 to 1e12", lambda value: 1e-12 <= value <= 1e12)]
Share = Annotated[float, Rule("a number above 0, at most 1", lambda value: 0 < value <= 1)]
Offset = Annotated[float, Rule("a number from 0 to 1", lambda value: 0 <= value <= 1)]
Count = Annotated[int, Rule("a whole number from 1 to a million", lambda n: type(n) is int and 1 <= n <= 10**6)]
Limit = Annotated[float, Rule("a number, 0 or more, or infinity", lambda value: value >= 0 and not math.isnan(value))]


class Registry(Generic[Part]):
    """The parts of one family, by name."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.classes: dict[str, type] = {}
        self.presets: dict[str, Part] = {}
        self.settings: dict[str, tuple[str, dict[str, Any]]] = {}
        self.aliases: dict[str, str] = {}
        self.refused: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable[[T], T]:
        """Class decorator: lists the class under `name`, and records the options of each object made from it."""

        def add(cls: T) -> T:
            self.classes[name] = cls
            self._alias(name, aliases)
            _guard(cls, f"{self.family} {name!r}")
            return cls

        return add

    def preset(self, name: str, part: Part, *aliases: str) -> None:
        """List `part`, an object of a registered class, under a name of its own."""
        self.presets[name] = part
        self._alias(name, aliases)

    def setting(self, name: str, base: str, options: Mapping[str, Any], *aliases: str) -> None:
        """List the class `base` with these options under a name of its own, for parts that are built in a context."""
        self.settings[name] = base, dict(options)
        self._alias(name, aliases)

    def _alias(self, name: str, aliases: tuple[str, ...]) -> None:
        self.aliases |= {alias.lower(): name for alias in (name, *aliases)}

    def refuse(self, name: str, sentence: str) -> None:
        """A name that users know and that is no part of this family: asking for it is answered by the sentence."""
        self.refused[name.lower()] = sentence

    def canonical(self, name: str) -> str:
        """The name under which the part of this name or alias is registered."""
        if name.lower() in self.refused:
            raise PellucidError(f"{self.family} {name!r} {self.refused[name.lower()]}")
        if name.lower() not in self.aliases:
            raise unknown(self.family, name, self.aliases, self.names())
        return self.aliases[name.lower()]

    def names(self) -> list[str]:
        """All names, without the aliases."""
        return sorted({*self.classes, *self.presets, *self.settings})

    def aliases_of(self, name: str) -> list[str]:
        """The other names by which users know `name`."""
        return sorted(alias for alias, target in self.aliases.items() if target == name and alias != name)

    def resolve(self, part: Part | str | Mapping[str, Any]) -> Part:
        """`part` itself, or the one that a name or table stands for; other plain data is refused."""
        return self.make(part) if isinstance(part, str | Mapping | int | float | list | None) else part  # type: ignore[arg-type]

    def make(self, spec: str | Mapping[str, Any], *context: Any) -> Part:
        """Build a part from its name or its table. `context` comes before the options (a network's shape, say)."""
        if not isinstance(spec, str | Mapping):
            raise PellucidError(f"{self.family} is {spec!r}; expected a name or a table with a name.")
        options = {} if isinstance(spec, str) else dict(spec)
        name = spec if isinstance(spec, str) else str(options.pop("name", ""))
        canonical = self.canonical(name)
        if canonical in self.presets:
            preset = self.presets[canonical]
            if not options:
                return preset
            return self._build(canonical, type(preset), _options_of(preset) | options, context)
        base, given = self.settings.get(canonical, (canonical, {}))
        return self._build(canonical, self.classes[base], given | options, context)

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

        if words := disguised(value, hint):
            raise PellucidError(f"{self.family} {name!r} has {key} = {value!r}; expected {words}.")
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


def disguised(value: Any, hint: Any) -> str | None:
    """What is expected of `value` that it only resembles: true is not 1, "64" is no number, and 1 is not true."""
    kinds, leaves = set(_kinds(hint)), [leaf for leaf in _leaves(value) if leaf is not None]
    if kinds == {bool}:
        return None if all(isinstance(leaf, bool) for leaf in leaves) else "true or false"
    if kinds and kinds <= {int, float} and any(isinstance(leaf, bool | str) for leaf in leaves):
        return "a valid number" if float in kinds else "a valid integer"
    return None


def _kinds(hint: Any) -> Iterator[type]:
    """The types of the values that an annotation allows: int, float of tuple[int, float] | None."""
    if get_origin(hint) is Literal:
        yield from map(type, get_args(hint))
    elif get_origin(hint) is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif args := get_args(hint):
        yield from (kind for arg in args for kind in _kinds(arg))
    elif hint not in (NoneType, Ellipsis):
        yield hint


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        yield from (leaf for each in value for leaf in _leaves(each))
    else:
        yield value


def _guard(cls: type, what: str) -> None:
    """Make cls refuse options that break their rules, and remember them as `.options` where it is no dataclass."""
    original: Callable[..., None] = cls.__init__  # type: ignore[misc]
    parameters = inspect.signature(original).parameters
    rules = {name: rule for name, p in parameters.items() if (rule := _rule(p.annotation))}

    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(original).bind(self, *args, **kwargs)
        bound.apply_defaults()
        for name, rule in rules.items():
            if not _holds(rule, bound.arguments[name]):
                raise PellucidError(f"{what} has {name} = {bound.arguments[name]!r}; expected {rule.words}.")
        original(self, *args, **kwargs)
        if not is_dataclass(cls):
            self.options = {n: bound.arguments[n] for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    cls.__init__ = init  # type: ignore[misc]


def _rule(hint: Any) -> Rule | None:
    own = next((rule for rule in get_args(hint)[1:] if isinstance(rule, Rule)), None)
    return {float: FINITE, float | None: FINITE_IF_ANY}.get(hint, own)


def _holds(rule: Rule, value: Any) -> bool:
    try:
        return rule.holds(value)
    except (TypeError, OverflowError):  # not a number, or one beyond all floats
        return False
