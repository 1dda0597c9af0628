"""`pellucid list` and `pellucid show`: what there is, and how a picture or a run came to be."""

import json as jsons
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import unknown
from .console import answer, table

if TYPE_CHECKING:
    from ..registry import Registry


def list_(
    family: Annotated[str | None, typer.Argument(help="samplers, paths, ...; all of them without it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """List what can be named in a recipe or on the command line."""
    families = {name: [_row(registry, part) for part in registry.names()] for name, registry in _registries().items()}
    families |= {"recipes": _shipped("recipes"), "systems": _shipped("systems")}
    if family is None:
        names = {name: [row["name"] for row in rows] for name, rows in families.items()}
        answer("\n".join(f"{name}: {', '.join(parts)}" for name, parts in names.items()), names, json)
        return
    rows = families.get(family) or families.get(f"{family}s")
    if rows is None:
        raise unknown("family", family, families)
    answer(table(rows), rows, json)


def _registries() -> "dict[str, Registry[Any]]":
    from .. import conditioning, coupling, ema, grids, guidance, metrics, nets, objective, paths, predictions, samplers
    from ..data import augment, toys
    from ..likelihood import divergence, grain
    from ..training import optimisers, trackers

    return {
        "paths": paths.registry,
        "predictions": predictions.registry,
        "samplers": samplers.registry,
        "grids": grids.registry,
        "nets": nets.registry,
        "conditioners": conditioning.registry,
        "weights": objective.weights,
        "times": objective.times,
        "toys": toys.registry,
        "guidances": guidance.registry,
        "metrics": metrics.registry,
        "dequantisations": grain.registry,
        "divergences": divergence.registry,
        "couplings": coupling.registry,
        "augmentations": augment.registry,
        "optimisers": optimisers.registry,
        "trackers": trackers.registry,
        "averages": ema.registry,
    }


def _row(registry: "Registry[Any]", name: str) -> dict[str, Any]:
    """A part's name, what it promises if it is a sampler, its other names, and what it is."""
    preset = registry.presets.get(name)
    base, options = registry.settings.get(name, (name, {}))
    cls = type(preset) if preset is not None else registry.classes[base]
    row: dict[str, Any] = {"name": name}
    if registry.family == "sampler":
        sampler = registry.make(name)
        calls = sampler.calls or None  # as many as a tolerance asks for
        order = (sampler.weak or None) if sampler.stochastic else sampler.order  # that of the law of what it draws
        row |= {"order": order, "stochastic": sampler.stochastic, "calls": calls}
    what = repr(preset) if preset is not None else (cls.__doc__ or "").strip().splitlines()[0]
    what = f"{base}({', '.join(f'{key}={value!r}' for key, value in options.items())})" if options else what
    return row | {"aliases": registry.aliases_of(name), "what": what}


def _shipped(room: Literal["recipes", "systems"]) -> list[dict[str, Any]]:
    """A recipe's first comment line says what it is, the others what it needs and how long it takes."""
    from ..config import shipped

    rows: list[dict[str, Any]] = []
    for name, text in shipped(room).items():
        said = [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
        rows.append({"name": name, "what": said[0]} | ({"needs": " ".join(said[1:])} if room == "recipes" else {}))
    return rows


def show(
    what: Annotated[str, typer.Argument(help="A PNG, a run, or a recipe.")],
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Print how a picture was drawn, or the recipe of a run."""
    if Path(what).suffix.lower() == ".png":
        from ..drawing import of_png

        settings = of_png(Path(what)).plain()
        lines = [f"{key} = {jsons.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
        answer("\n".join(lines), settings, json)
    else:
        from ..config import Recipe

        recipe = Recipe.load(what)
        answer(recipe.toml().rstrip(), recipe.model_dump(mode="json", exclude_none=True), json)
