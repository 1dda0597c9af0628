"""Where a recipe comes from: what is shipped, a file, a run that was, or the data alone."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ..checkpoint import folders
from ..data import arrays, toys
from ..errors import PellucidError, unknown


def shipped(room: Literal["recipes", "systems"] = "recipes") -> dict[str, str]:
    """The recipes, or the systems, that come with pellucid: their TOML by name."""
    found = [file for file in files("pellucid").joinpath(room).iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): file.read_text("utf-8") for file in sorted(found, key=lambda f: f.name)}


def find(spec: str) -> dict[str, Any]:
    """The table that `spec` means (see Recipe.load)."""
    path, recipes = Path(spec), shipped()
    if not spec:
        raise PellucidError("the source is empty; expected a recipe, a run, or a source of data.")
    if spec in recipes:
        return tomllib.loads(recipes[spec])
    if (path / "recipe.toml").is_file():
        return _read(path / "recipe.toml")
    if folders(path):
        raise PellucidError(f"{path} is a run without its recipe.toml; put it back, or give another source.")
    if path.suffix == ".toml":
        return {"name": path.stem, **_read(path)}
    toy = spec.lower() in toys.registry.aliases
    if toy or path.exists() or spec.startswith("hub:"):
        array = not toy and path.suffix == ".npz"
        points = toy or array and arrays.are_points(path)
        table = tomllib.loads(recipes["toy-2d" if points else "pictures"])
        data = {"source": spec} if array else {**table["data"], "source": spec}  # arrays stay as they are
        return table | {"name": Path(path.resolve().name.removeprefix("hub:")).stem, "data": data}
    if len(path.parts) > 1 or path.suffix:
        raise PellucidError(f"there is no {spec}; expected a recipe, a run, or a source of data.")
    raise unknown("recipe or source of data", spec, [*recipes, *toys.registry.names()])


def as_system(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The table with a system's parts in place of its own; of sections and the network, what the system names.

    What a system says of networks of one name, it says of them alone: others stay as they are.
    """
    known = shipped("systems")
    if name not in known:
        raise unknown("system", name, known)
    own = {key: {"name": value} if key == "net" and isinstance(value, str) else value for key, value in table.items()}
    for key, value in tomllib.loads(known[name]).items():
        if key not in ("net", "objective", "sample"):
            own[key] = value
        elif (held := own.get(key, {})).get("name") in (None, value.get("name", held.get("name"))):
            own[key] = {**held, **value}
    return own | {"name": f"{table['name']}-{name}"}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PellucidError(f"cannot read the recipe {path}: {(error.strerror or str(error)).lower()}.") from None
    except ValueError as error:
        raise PellucidError(f"the recipe {path} is not TOML: {str(error).rstrip('.')}.") from None
