"""A system by itself: its choices as a row of the design space, and what its path and its sampler make of a known law.

Nothing is trained here: the exact denoiser of eight Gaussians answers, so that only the path and the sampler are seen.
"""

import math
from typing import Any

import torch

from .. import grids, samplers
from ..config import Recipe
from ..data import Dataset, Split
from ..explain import Subject
from ..explain.chapter import Picture
from ..explain.subject import CLOUD
from ..explain.trajectory import across
from ..oracle import GaussianMixture
from ..sampling import Step, trajectory

ANGLES = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
LAW = GaussianMixture(
    torch.ones(8), 2**0.5 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1), torch.tensor(0.01, dtype=torch.float64)
)
"""Eight Gaussians on a circle: the toy `mixture`."""


def choices(name: str) -> dict[str, str]:
    """What the system chose, part by part."""
    recipe = Recipe.load("mixture", [], name)
    aim, drawn = recipe.objective, recipe.sample
    row = {"path": recipe.path, "prediction": recipe.prediction, "weight": aim.weight, "times": aim.times}
    row |= {"clock": recipe.clock, "variance": recipe.variance, "sampler": drawn.sampler, "grid": drawn.grid}
    return {part: words(choice) for part, choice in row.items()} | {"steps": str(drawn.steps)}


def words(part: Any) -> str:
    """A part and its settings on one line."""
    if not isinstance(part, dict):
        return str(part)
    settings = ", ".join(f"{key} = {words(value)}" for key, value in part.items() if key != "name")
    return f"{part['name']} ({settings})" if settings else str(part["name"])


def walk(name: str, n: int = CLOUD) -> list[Step]:
    """n points on the system's path, by its sampler, from noise to the law."""
    recipe = Recipe.load("mixture", [], name)
    drawn, path = recipe.sample, _subject(name).path
    sampler, grid = samplers.registry.make(drawn.sampler), grids.registry.make(drawn.grid)
    way = trajectory(LAW.at(path), n, sampler=sampler, steps=drawn.steps, grid=grid)
    return [Step(t, x.float(), None if x0 is None else x0.float()) for t, x, x0 in way]


def picture(name: str) -> Picture:
    """The way from noise to the law, and what the denoiser sees in it."""
    return across(_subject(name), walk(name))


def _subject(name: str) -> Subject:
    data = Dataset("mixture", Split(LAW.sample(CLOUD).float()))
    return Subject(Recipe.load("mixture", ["net.width=8", "net.blocks=1"], name).build(data), data)
