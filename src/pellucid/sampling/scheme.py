"""How to sample: a sampler, its times, and where its noise comes from.

    (sampler, t_0 > ... > t_n = 0, z)    for data that reaches as far as the model says
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from .. import grids, samplers
from ..errors import PellucidError, integer, unknown
from ..grids import Grid
from ..noise import Source, independent, sources
from ..paths import Path
from ..samplers import Ancestral, Renoise, Sampler
from ..types import ONE, Extent, Model, Times

POINT = 1e-4  # the std of data that is all one point


class Scheme(NamedTuple):
    """How to sample: everything but the model, the conditions and the seed."""

    sampler: Sampler
    times: Times
    noise: Source = independent

    @staticmethod
    def make(
        path: Path,
        sampler: Sampler | str,
        steps: int,
        grid: Grid | str,
        noise: str = "independent",
        extent: Extent = ONE,
    ) -> "Scheme":
        """A scheme for data of this extent, from names or objects; a sampler's name may bring the grid."""
        if noise not in sources:
            raise unknown("noise", noise, sources)
        if isinstance(sampler, str):
            sampler, named = parted(sampler, None if grid == "scales" else grid)
            grid = grid if named is None else named
        times = grids.registry.resolve(grid)(path, integer("steps", steps), extent)
        return Scheme(samplers.registry.resolve(sampler).of(extent), times, sources[noise])


def extent(model: Model) -> Extent:
    """How far the model's data reaches: its `data_std`, or 1 where it does not say, its size, its `spectrum`."""
    return Extent(max(getattr(model, "data_std", 1.0), POINT), math.prod(model.shape), getattr(model, "spectrum", ()))


def parted(label: str, grid: Grid | str | None) -> tuple[str, Grid | str | None]:
    """The sampler and the grid of a label that may name one ("Euler Karras"), and of the grid asked for beside it."""
    sampler, named = samplers.names.split(label)
    if named and grid is not None and grids.registry.resolve(grid) != grids.registry.make(named):
        said = grid if isinstance(grid, str) else grids.registry.describe(grids.registry.resolve(grid))["name"]
        raise PellucidError(f"sampler {label!r} brings the grid {named!r}, and grid is {said!r}; leave one out.")
    return sampler, named or grid


def with_eta(named: Sampler | str | Mapping[str, Any], eta: float) -> Sampler:
    """The sampler with its eta set; a sentence if it has none, unless it draws no noise and none is asked for."""
    sampler = samplers.registry.resolve(named)
    if isinstance(sampler, Ancestral) or (isinstance(sampler, Renoise) and not sampler.gamma):
        return replace(sampler, eta=eta)
    if eta == 0 and not sampler.stochastic:
        return sampler
    name = named if isinstance(named, str) else samplers.registry.describe(sampler)["name"]
    why = "draws noise by its gamma" if isinstance(sampler, Renoise) else "has no eta"
    raise PellucidError(f"eta is {eta}, but sampler {name!r} {why}; take ddim, or leave eta out.")
