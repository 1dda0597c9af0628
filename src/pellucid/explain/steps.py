r"""The step table: what a sampler does at each step, read off the sampler itself.

A step is linear in what the network answered, in where the sampler stood and in fresh noise:

    x_s = sum_j (w_j x0_j + u_j eps_j) + sum_i (c_i x_i + f_i z_i),    j over the calls, i over the steps so far

(c is 0 where the answers suffice). So a sampler is asked once with answers that are unit vectors, each call's x0 and
eps, each state and each draw an axis of its own; the coordinates of the state after a step are its weights. No sampler
has to be known here, and the table cannot drift from the code. From the weights:  kappa = sum_j u_j / sigma_s, the
share of the old noise that is kept, and the order, the number of answers that a step combines.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import samplers
from ..paths import Path
from ..sampling import Scheme
from ..types import Batch, Denoised, State, Times
from .chapter import Chapter, Table
from .mathematics import display, inline, number
from .subject import Subject, called

LONGEST = 40  # rows that the page shows
DRAWS = 8  # no sampler draws more often in a step
CALLS = 4  # none calls more often in a step by which it starts


class Step(NamedTuple):
    """Step i, from t to s. `asked`: the times of its calls. `x0`, `eps`: weights by number of call.

    `x`: the weights of the states so far, by step, where a sampler uses them besides the answers. `fresh`: those of the
    draws so far, by 8 step + draw.
    """

    i: int
    t: float
    s: float
    alpha: float
    sigma: float
    lam: float
    h: float
    kappa: float
    order: int
    asked: tuple[float, ...]
    x0: dict[int, float]
    eps: dict[int, float]
    x: dict[int, float]
    fresh: dict[int, float]


class _Probe:
    """A Denoise whose j-th answer is the unit vectors number 2j and 2j + 1."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.asked: list[float] = []

    def axis(self, i: int) -> Tensor:
        return torch.zeros(1, self.size, dtype=torch.float64).index_fill(1, torch.tensor(i), 1.0)

    def drawn(self, first: int, draw: int) -> Tensor:
        return self.axis(first + draw)

    def __call__(self, x: Batch, t: Times) -> Denoised:
        self.asked.append(float(t))
        last = 2 * len(self.asked)
        return Denoised(self.axis(last - 2), self.axis(last - 1))


def table(path: Path, scheme: Scheme) -> list[Step]:
    """Every step of the plan on `path`; none where the answers themselves decide the steps."""
    if not scheme.sampler.calls:
        return []
    times, n = scheme.times, len(scheme.times) - 1
    size = 2 * max(scheme.sampler.calls, CALLS) * n
    probe = _Probe(path, size + n + n * DRAWS)
    memory = scheme.sampler.init(probe.axis(size), times[:1]).memory
    rows = []
    for i, s in enumerate(times[1:]):
        first, draws = len(probe.asked), size + n + i * DRAWS
        here = State(probe.axis(size + i), times[i : i + 1], memory)
        x, _, memory = scheme.sampler.step(probe, here, s[None], partial(probe.drawn, draws))
        parts = x[0].split([size, n, n * DRAWS])
        rows.append(_row(i, path, times[i : i + 2], parts, probe.asked, first))
    return rows


def _row(i: int, path: Path, pair: Tensor, parts: tuple[Tensor, ...], asked: list[float], first: int) -> Step:
    t, s = pair
    answers, states, draws = parts
    x0, eps = answers[::2], answers[1::2]
    used = ((x0 != 0) | (eps != 0)).nonzero().flatten().tolist()
    return Step(
        i,
        float(t),
        float(s),
        float(path.alpha(t)),
        float(path.sigma(t)),
        float(path.lam(t)),
        float(path.lam(s) - path.lam(t)),
        float(eps.sum() / path.sigma(s)) if s > 0 else float("nan"),
        len(used),
        tuple(asked[first:]),
        {j: float(x0[j]) for j in used},
        {j: float(eps[j]) for j in used},
        _weights(states),
        _weights(draws),
    )


def _weights(row: Tensor) -> dict[int, float]:
    return {i: w for i, w in enumerate(row.tolist()) if w != 0}


def tell(subject: Subject) -> Chapter:
    """The step table of the default sampler and grid."""
    rows = table(subject.path, subject.scheme)
    calls = sum(len(row.asked) for row in rows)
    name = called(samplers.registry, subject.sampler)
    if not rows:
        lead = f"<p><code>{name}</code> takes the steps that its tolerance asks for, each sample its own.</p>"
        return Chapter("steps", "The steps", (lead,), {"sampler": name, "calls": 0, "steps": []})
    lead = (
        f"<p>{len(rows)} steps of <code>{name}</code> ask the "
        f"network {calls} times{', each time with and without the condition' if subject.guided else ''}. At each, "
        f"the pair {inline('( hat{x}_0 , hat{eps} )')} that it believes in is mixed anew for the next time:</p>"
    )
    equation = display('x_s = alpha_s hat{x}_0 + sigma_s ( kappa hat{eps} + sqrt{1 - kappa^2} z ) + "corrections"')
    head = "step", "t", "→ s", "α", "σ", "λ", "h", "κ", "order", "calls"
    shown = [*rows[: LONGEST // 2], *rows[-LONGEST // 2 :]] if len(rows) > LONGEST else rows
    floats = [(r.t, r.s, r.alpha, r.sigma, r.lam, r.h, r.kappa) for r in shown]
    cells = tuple(
        (str(r.i + 1), *map(number, values), str(r.order), str(len(r.asked)))
        for r, values in zip(shown, floats, strict=True)
    )
    caption = (
        "h is the step in λ; κ, the share of the old noise that is kept (1: no fresh noise); order, how many answers "
        "of the network the step combines. Both are read off the sampler, by asking it with unit vectors for answers."
    )
    numbers = {"sampler": name, "calls": calls, "steps": [row._asdict() for row in rows]}
    return Chapter("steps", "The steps", (lead, equation, Table(head, cells, caption)), numbers)
