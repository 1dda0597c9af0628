"""One fit: from a sampler and a budget of calls to times, and what they gain over the best stock grid."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from .. import grids, samplers
from ..errors import PellucidError
from ..grids import Fitted, Grid
from ..paths import Path
from ..samplers import Sampler
from ..settings import Calls, Part, Section
from ..types import ONE, Batch, Denoised, Extent, Times
from .exact import Exact, check, distance, onward
from .local import errors
from .polish import mean_error, polish
from .programme import Costs, cheapest

Said = tuple[float, float]
"""A number and its standard error."""


class Fit(Section):
    """Times fitted to a model and a sampler for `nfe` calls; errors are mean distances on samples not fitted on."""

    sampler: Part
    nfe: Calls
    at: Annotated[tuple[float, ...], Field(min_length=1)]
    error: Said
    stock: dict[str, Said]  # the same sampler's error on each stock grid that the budget allows
    gain: Said  # over the best of them: the share of its error that is gone
    samples: int
    fine: int  # steps of the exact way
    run: dict[str, Any] = {}  # what it was fitted for: weights, step, guidance, labels, seed

    @property
    def steps(self) -> int:
        """How many steps the grid has."""
        return len(self.at)

    @property
    def made(self) -> Sampler:
        """The sampler."""
        return samplers.registry.make(self.sampler)

    @property
    def best(self) -> str:
        """The stock grid with the least error."""
        return min(self.stock, key=lambda name: self.stock[name][0])

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `sample`: pl.sample(model, 16, **fit.settings)."""
        return {"sampler": self.made, "steps": self.steps, "grid": Fitted(self.at)}


class _Free:
    """A Denoise that costs nothing and counts its calls."""

    def __init__(self, path: Path) -> None:
        self.path, self.calls = path, 0

    def __call__(self, x: Batch, t: Times) -> Denoised:
        self.calls += 1
        return Denoised(x, x)


def calls(sampler: Sampler, path: Path, times: Times) -> int:
    """How often the sampler asks on its way through these times."""
    free = _Free(path)
    for _ in onward(free, sampler, times, sampler.init(torch.zeros(1, 1, dtype=torch.float64), times[:1])):
        pass
    return free.calls


def stock(sampler: Sampler, path: Path, nfe: int, extent: Extent = ONE) -> dict[str, Times]:
    """The times of every registered grid, as it is and as fine as the budget allows, for data of this extent."""
    found = {}
    for name in grids.registry.names():
        if name != "fitted" and not (grid := grids.registry.make(name)).rises:
            found[name] = fitting_times(sampler, path, grid, nfe, extent)
    return {name: times for name, times in found.items() if times is not None}


def fitting_times(sampler: Sampler, path: Path, grid: Grid, nfe: int, extent: Extent = ONE) -> Times | None:
    """The most steps of this grid that take no more than nfe calls."""
    for steps in range(nfe, 0, -1):
        try:
            times = grid(path, steps, extent)
        except PellucidError:
            continue
        if calls(sampler, path, times) <= nfe:
            return times
    return None


def programmed(exact: Exact, sampler: Sampler, nfe: int) -> tuple[Times, bool]:
    """The best times among those of the exact way, and whether the first may leave 1 within the budget."""
    times = fitting_times(sampler, exact.path, grids.Uniform(), nfe)
    assert times is not None  # one step is one call
    steps, way = len(times) - 1, exact.way
    lower = torch.cat([(times[:1] + times[1:2]) / 2, times[1:]])
    loose = calls(sampler, exact.path, lower) <= nfe
    local = errors(way, sampler)
    begin = way.gain * local.begin
    if not loose:
        begin[1:] = torch.inf
    nodes, _ = cheapest(Costs(begin, way.gain * local.first, way.gain * local.later), steps)
    return way.times[[*nodes, -1]], loose


def table(sampler: Sampler) -> Part:
    """What makes a sampler again: its name, or the table of what has none."""
    presets = samplers.registry.presets.items()
    return next((name for name, part in presets if part == sampler), samplers.registry.describe(sampler))


def called(sampler: Sampler) -> str:
    """The name of a sampler."""
    found = table(sampler)
    return found if isinstance(found, str) else found["name"]


def refuse(sampler: Sampler, nfe: int, fine: int) -> None:
    """What cannot be fitted, in one sentence."""
    check(fine)
    if not isinstance(nfe, int) or isinstance(nfe, bool) or not 1 <= nfe <= fine // 4:
        raise PellucidError(f"nfe is {nfe!r}; expected a number of calls from 1 to {fine // 4}.")
    name = called(sampler)
    if sampler.stochastic:
        raise PellucidError(f"sampler {name!r} draws noise, so that no grid ends at the same samples; take dpmpp-2m.")
    if not sampler.calls:
        raise PellucidError(f"sampler {name!r} chooses its own steps, so that it has no grid; take dpmpp-2m.")


@torch.no_grad()
def fit(
    exact: Exact,
    nfe: int,
    sampler: Sampler | str = "dpmpp-2m",
    *,
    seconds: float = math.inf,
    progress: Callable[[float], None] | None = None,
) -> Fit:
    """The best times for `sampler` under `nfe` calls of the (guided) model a sample, and what they gain.

    The best of the programme's grid and the stock grids on the samples to fit on is polished there, in `seconds` at
    most, and measured on the others. progress: called with the mean error so far.
    """
    named = samplers.registry.resolve(sampler)
    refuse(named, nfe, exact.fine)
    sampler = named.of(exact.extent)
    ready = stock(sampler, exact.path, nfe, exact.extent)
    first, loose = programmed(exact, sampler, nfe)
    begin = min([first, *ready.values()], key=lambda times: mean_error(exact.fit, sampler, times))
    if mean_error(exact.fit, sampler, begin) == math.inf:
        raise PellucidError(f"the model's samples by {called(sampler)!r} are not finite; take another run or sampler.")
    until = time.monotonic() + seconds

    def go_on(error: float) -> bool:
        if progress:
            progress(error)
        return time.monotonic() < until

    best, _ = polish(exact.fit, sampler, begin, loose or bool(begin[0] < 1), go_on)
    ours = distance(exact.held, sampler, best)
    theirs = {name: distance(exact.held, sampler, times) for name, times in ready.items()}
    theirs = {name: each for name, each in theirs.items() if bool(each.isfinite().all())}
    return Fit(
        sampler=table(named),
        nfe=nfe,
        at=tuple(best[:-1].tolist()),
        error=said(ours),
        stock={name: said(each) for name, each in theirs.items()},
        gain=gain(ours, min(theirs.values(), key=lambda each: float(each.mean()))),
        samples=len(ours),
        fine=exact.fine,
    )


def said(values: Tensor) -> Said:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def gain(ours: Tensor, theirs: Tensor) -> Said:
    """1 - mean(ours)/mean(theirs) on the same samples; its error to first order."""
    ratio = ours.mean() / theirs.mean()
    return float(1 - ratio), float((ours - ratio * theirs).std() / theirs.mean() / len(ours) ** 0.5)


def choose(exact: Exact, nfe: int, several: Sequence[Sampler], keep: int = 3) -> list[Sampler]:
    """Of these samplers the `keep` that are nearest on their programme's grids; equal ones once."""
    found = dict[float, Sampler]()
    for sampler in several:
        times, _ = programmed(exact, sampler, nfe)
        found.setdefault(round(mean_error(exact.fit, sampler, times), 12), sampler)
    return [found[error] for error in sorted(found)[:keep]]


def deterministic() -> list[str]:
    """The registered samplers to which a grid can be fitted."""
    every = {name: samplers.registry.make(name) for name in samplers.registry.names()}
    return [name for name, sampler in every.items() if sampler.calls and not sampler.stochastic]
