r"""Rectified flow, once more: a flow learns from the pairs that it has made itself (Liu et al. 2022, algorithm 1).

    (x0', eps):   x0' = the end of the flow's own trajectory from eps
    reflow        E |v(x_t, t) - (eps - x0')|^2,   x_t = (1 - t) x0' + t eps,   all t:   trajectories become straighter
    distillation  the same at t = 1 alone: one step from noise to x0'
    straightness  S = int_0^1 E |v(x_t, t) - (x_1 - x_0)|^2 dt / E |x_1 - x_0|^2   along trajectories; 0: lines

Pairs are arrays like any others: x, its label and its noise in an .npz, from which `train` learns.
"""

from collections.abc import Callable
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset
from ..denoiser import Denoiser, Repath
from ..files import whole
from ..metrics import Estimate
from ..noise import START, normal
from ..objective import Objective, Uniform
from ..paths import Flow
from ..predictions import Velocity
from ..sampling import Guidance, sample, trajectory
from ..types import Model, Times

Progress = Callable[[int, int], None]
ROW = {"path": {"name": "flow"}, "prediction": {"name": "velocity"}}
"""What every reflow is, whatever it learns from."""


def pairs(
    model: Model,
    n: int,
    label: Tensor | None = None,
    *,
    sampler: str = "heun",
    steps: int = 25,
    seed: int = 0,
    guidance: Guidance | float | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """n pairs of the model's flow on straight lines: x and noise, [n, *shape] each, and label [n] where it has one."""
    cond = None if label is None else {"label": label}
    asked = {"sampler": sampler, "steps": steps, "grid": "uniform", "seed": seed, "path": "flow", "progress": progress}
    x = sample(model, n, cond=cond, guidance=guidance, **asked)  # type: ignore[arg-type]
    noise = normal(seed, torch.arange(n), 0, model.shape, stream=START, dtype=model.dtype)
    return {"x": x.float().cpu(), "noise": noise.float()} | ({} if label is None else {"label": label})


def save(path: File, made: dict[str, Tensor]) -> File:
    """Write pairs as an .npz that data.load reads, whole or not at all."""
    with whole(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{name: value.numpy() for name, value in made.items()})  # type: ignore[arg-type]
    return path


def student(config: dict[str, Any], teacher: Denoiser | None = None, seed: int = 0) -> Denoiser:
    """A flow with the network of a model's `config`; it begins as the teacher where that is such a flow itself."""
    model = Denoiser.from_config(config | ROW, seed)
    if teacher is not None and teacher.config() == model.config():
        model.load_state_dict(teacher.state_dict())
    return model


def at_once(drop: float = 0.0) -> Objective:
    """Distillation: only the velocity at t = 1 is learnt, and that is the whole way."""
    return Objective(Uniform(), drop=drop, span=(1 - 1e-5, 1.0))


@torch.no_grad()
def missed(model: Model, data: Dataset, n: int = 256) -> Estimate:
    """How far one step from a pair's noise lands from its x: the mean of |x - x0'|^2 / E |x0'|^2, held-out pairs."""
    part = data.train if data.test is None else data.test
    x, cond = data.batch(torch.arange(min(n, len(part.x))), "train" if data.test is None else "test")
    eps = cond.pop("noise").to(model.device)
    d = Repath(model, "flow")(eps, torch.ones(len(eps), dtype=torch.float64), cond)
    gap = (d.x0.cpu() - x).double().flatten(1).square().sum(1) / x.double().flatten(1).square().sum(1).mean()
    return Estimate(float(gap.mean()), float(gap.std() / len(gap) ** 0.5))


@torch.no_grad()
def straightness(
    model: Model, n: int = 256, label: Tensor | None = None, *, steps: int = 25, seed: int = 1
) -> Estimate:
    """S of the model's flow on straight lines, from n trajectories of Heun's method; 0 is straight."""
    cond, flow, rule = None if label is None else {"label": label}, Repath(model, "flow"), Velocity()
    way = trajectory(flow, n, sampler="heun", steps=steps, grid="uniform", cond=cond, seed=seed)
    whole_way = (way[0].x - way[-1].x).double()  # x_1 - x_0 = eps - x0'
    bend = torch.zeros(n, dtype=torch.float64)
    for here, after in zip(way, way[1:], strict=False):
        t = torch.full((n,), (here.t + after.t) / 2, dtype=torch.float64)
        v = _velocity(flow, rule, (here.x + after.x) / 2, t, cond)
        bend += (here.t - after.t) * (v - whole_way).flatten(1).square().sum(1)
    share = bend / whole_way.flatten(1).square().sum(1).mean()
    return Estimate(float(share.mean()), float(share.std() / n**0.5))


def _velocity(flow: Model, rule: Velocity, x: Tensor, t: Times, cond: dict[str, Tensor] | None) -> Tensor:
    d = flow(x, t, cond)
    return rule.target(Flow(), d.x0, d.eps, t).double()
