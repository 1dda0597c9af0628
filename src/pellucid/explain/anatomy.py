"""The model in equations and numbers: every part, the formula of its docstring, and what it comes to here."""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .. import grids, nets, objective, paths, predictions, samplers
from ..denoiser import Denoiser
from ..registry import Registry
from .chapter import Chapter, Table
from .mathematics import display, inline, number, prose
from .subject import Subject, called

TIMES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def flops(model: Denoiser) -> int:
    """Floating-point operations of one call of the network on one sample; an addition and a multiplication are two."""
    x, t = torch.zeros(1, *model.shape, dtype=model.dtype, device=model.device), torch.full((1,), 0.5).double()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.answer(x, t)
    return int(counter.get_total_flops())


def tell(subject: Subject) -> Chapter:
    """The parts, and the numbers that they give at a few times."""
    model = subject.model
    size, work = sum(p.numel() for p in model.parameters()), flops(model)
    words = (
        "<p>Everything is one equation, and everything a network can be asked is a line of it:</p>"
        + display("x_t = alpha_t x_0 + sigma_t eps ; y = a_t x_0 + b_t eps")
        + "<p>Given "
        + inline("x_t")
        + " and the network’s answer "
        + inline("y")
        + ", two equations with two unknowns:</p>"
        + display("hat{x}_0 = {b x_t - sigma y}/{alpha b - sigma a} ; hat{eps} = {alpha y - a x_t}/{alpha b - sigma a}")
        + "<p>and it learns by lowering, over the data, the noise and the times,</p>"
        + display("mean w ( t ) | x_0 - hat{x}_0 ( x_t ) |^2 ; t ~ p ( t )")
    )
    after = (
        f"<p>The network has {size:,} parameters; one call on one sample takes {number(work / 1e6, 3)} million "
        "floating-point operations.</p>"
    )
    rows, table = parts(subject), values(subject)
    numbers = {
        "parts": {kind: registry.describe(part) for kind, registry, part in rows},
        "parameters": size,
        "flops": work,
        "data": {"name": subject.data.name, "shape": list(subject.data.shape), "train": len(subject.data.train.x)}
        | {"mean": subject.data.mean, "std": subject.data.std},
        "values": {name: column.tolist() for name, column in table.items()},
    }
    head = "t", "α", "σ", "λ", "a", "b", "|dx<sub>0</sub>| / |dy|"
    cells = tuple(tuple(number(v) for v in row) for row in zip(*(c.tolist() for c in table.values()), strict=True))
    described = tuple((kind, _choice(registry, part), prose(_says(part))) for kind, registry, part in rows)
    blocks = (
        words,
        Table(("", "here", "which is"), described),
        Table(head, cells, "The last column: how much an error of the network is magnified in " + inline("x_0") + "."),
        after,
    )
    return Chapter("anatomy", "The model in one equation", blocks, numbers)


def parts(subject: Subject) -> list[tuple[str, Registry[Any], Any]]:
    """(kind, registry, part) of every part."""
    aim, model = subject.objective, subject.model
    return [
        ("path", paths.registry, model.path),
        ("prediction", predictions.registry, model.prediction),
        ("weight", objective.weights, aim.weight),
        ("times", objective.times, aim.times),
        ("sampler", samplers.registry, samplers.registry.resolve(subject.sampler)),
        ("grid", grids.registry, grids.registry.resolve(subject.grid)),
        ("network", nets.registry, model.net),
    ]


def values(subject: Subject) -> dict[str, Tensor]:
    """What path and prediction come to at a few times."""
    t, path = torch.tensor(TIMES, dtype=torch.float64), subject.path
    a, b = subject.model.prediction.row(path, t)
    gain = subject.model.prediction.gain(path, t)
    return {"t": t, "alpha": path.alpha(t), "sigma": path.sigma(t), "lam": path.lam(t), "a": a, "b": b, "gain": gain}


def _says(part: object) -> str:
    return (inspect.getdoc(type(part)) or "").split("\n\n")[0].replace("\n", " ")


def _choice(registry: Registry[Any], part: Any) -> str:
    made, name = registry.describe(part), called(registry, part)
    options = ", ".join(f"{key} = {value}" for key, value in made.items() if key != "name")
    own = f"{made['name']}: " if name != made["name"] else ""
    return f"<strong>{name}</strong>" + (f"<br><small>{own}{options}</small>" if options else "")
