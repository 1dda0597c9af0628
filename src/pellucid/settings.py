"""Settings: sections of named values that are checked as they are read, and refused in one sentence.

A part among them is its name or its table,  path = "cosine"  or  path = {name = "cosine", s = 0.008};  a table
without a name changes options of the default part.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Self, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .errors import PellucidError, unknown
from .registry import disguised

Part = str | dict[str, Any]
Share = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(gt=0, lt=2**31)]
Calls = Annotated[int, Field(gt=0, le=100_000)]  # steps of a sampler


class Section(BaseModel):
    """Settings that belong together. Frozen; a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_default_parts(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        defaults = {key: field.default for key, field in cls.model_fields.items() if field.annotation == Part}
        named = {
            key: {"name": defaults[key], **value}
            for key, value in table.items()
            if isinstance(value, dict) and isinstance(defaults.get(key), str)
        }
        return table | named

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_in_disguise(cls, value: Any, info: ValidationInfo) -> Any:
        if words := disguised(value, cls.model_fields[info.field_name or ""].annotation):
            raise PydanticCustomError("disguised", "{words}", {"words": words})
        return value

    @classmethod
    def parse(cls, table: Any) -> Self:
        """The settings in a table read from TOML or JSON."""
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise _sentence(error, list(keys(cls))) from None


def is_section(kind: Any) -> TypeGuard[type[Section]]:
    """Whether the type of a field is a section of its own."""
    return isinstance(kind, type) and issubclass(kind, Section)


def keys(section: type[Section]) -> Iterator[str]:
    """Every key of a section and of those within: name, data, data.source, ..."""
    for key, field in section.model_fields.items():
        yield key
        if is_section(field.annotation):
            yield from (f"{key}.{inner}" for inner in keys(field.annotation))


def _sentence(error: ValidationError, known: list[str]) -> PellucidError:
    """What pydantic found first, as one sentence."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return _misspelt(key, known)
    if first["type"] == "missing":
        return PellucidError(f"{key} is missing; give it a value.")
    if isinstance(cause := first.get("ctx", {}).get("error"), PellucidError):
        return cause
    key = max((k for k in known if f"{key}.".startswith(f"{k}.")), key=len, default=key)
    expected = re.sub(r"^(?=greater|less)", "a number ", first["msg"].removeprefix("Input should be "))
    return PellucidError(f"{key} is {first['input']!r}; expected {expected}.")


def _misspelt(key: str, known: list[str]) -> PellucidError:
    """An unknown key: perhaps it lives in another section, perhaps its spelling is off."""
    leaf = key.split(".")[-1]
    home = next((k for k in known if k.split(".")[-1] == leaf), None)
    return PellucidError(f"unknown setting {key!r}; did you mean {home!r}?") if home else unknown("setting", key, known)
