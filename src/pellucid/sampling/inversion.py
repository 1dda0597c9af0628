"""Inversion: the noise from which a deterministic sampler draws a given x.

    x_t = step_{s -> t}(x_s),  t > s;   refined to the point whose own step lands where it came from:

    x_t <- x_t + sqrt(alpha_t^2 + sigma_t^2)/sqrt(alpha_s^2 + sigma_s^2) (x_s - step_{t -> s}(x_t))
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..conditioning import Conditions
from ..errors import PellucidError, integer
from ..grids import Grid
from ..paths import Path
from ..samplers import Sampler
from ..samplers.base import silent
from ..types import Batch, Bound, Model, along
from .loop import legs, walk
from .model import Asked, prepare
from .scheme import Scheme, extent


class Inversion(NamedTuple):
    """The noise that leads to x, what sampling makes of it, and how far that is from x: rms [n], in model units."""

    noise: Batch
    back: Batch
    error: Tensor


@torch.no_grad()
def invert(
    model: Model,
    x: Batch,
    *,
    sampler: Sampler | str = "ddim",
    steps: int = 50,
    grid: Grid | str = "karras",
    rounds: int = 0,
    cond: Conditions = None,
    guidance: Asked = None,
    path: Path | str | None = None,
) -> Inversion:
    """The noise from which `sampler` draws x [n, *shape]: its own steps with their ends swapped, and back again.

    A swapped step is as accurate as the sampler's order. With `rounds` > 0 each is refined as often to the point whose
    step lands where it came from (a fixed point; samplers without memory alone): then only the last step, which no
    point need lead to, is inexact. x counts as seen at the grid's smallest time, so that the data is never asked.
    """
    _check(model, x, steps, rounds)
    model, conditions = prepare(model, len(x), cond, guidance, path)
    scheme, denoise = Scheme.make(model.path, sampler, steps, grid, extent=extent(model)), Bound(model, conditions)
    down = scheme.sampler
    if down.stochastic or not down.calls or (rounds and down.past):
        why = "draws noise" if down.stochastic else "remembers" if down.calls else "chooses its own steps"
        raise PellucidError(f"the sampler {why}, so that it has no exact inverse; take ddim, heun or rk4.")
    if len(legs(scheme.times)) > 1:
        raise PellucidError("the grid goes back up, where noise is added that has no inverse; take karras or uniform.")
    up = scheme.times[:-1].flip(0)
    x = x.to(model.device, model.dtype)
    t = up[:1].expand(len(x))
    size = torch.hypot(model.path.alpha(up), model.path.sigma(up))
    state = down.init(along(model.path.alpha(t), x) * x, t)
    there, here = down.prepare(model.path, up), down.prepare(model.path, up.flip(0))[::-1]
    for i, s in enumerate(up[1:]):
        s, goal = s.expand(len(x)), state
        state = down.move(denoise, state, s, there[i], silent)
        for _ in range(rounds):
            gap = goal.x - down.move(denoise, state, goal.t, here[i], silent).x
            state = state._replace(x=state.x + float(size[i + 1] / size[i]) * gap)
    index = torch.arange(len(x))
    *_, last = walk(denoise, scheme, down.init(state.x, state.t), 0, index)
    return Inversion(state.x, last.x, (last.x - x).double().flatten(1).square().mean(1).sqrt())


def _check(model: Model, x: Batch, steps: int, rounds: int) -> None:
    """Refuse what is no data of the model, and numbers of steps and rounds that none are."""
    if not isinstance(x, Tensor) or x.dim() < 2 or tuple(x.shape[1:]) != tuple(model.shape):
        got = f"of shape {list(x.shape)}" if isinstance(x, Tensor) else repr(x)
        raise PellucidError(f"x is {got}; expected samples of {list(model.shape)}, like the model's.")
    if not bool(x.isfinite().all()):
        raise PellucidError("x holds numbers that are not finite; mend or leave out those samples.")
    integer("steps", steps, 2)  # the last step, to the data, is not inverted
    integer("rounds", rounds, 0)
