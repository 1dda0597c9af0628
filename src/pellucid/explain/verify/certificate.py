"""The samplers' certificate: for each registered sampler its order, its error and the bias of what it draws.

Order and constant: error = constant / N^order, N steps. Of a deterministic sampler the error is the mean distance to
the exact flow of a mixture from lam = -1.5 to 2 (orders.py); of a stochastic one the bias of the variance of Gaussian
data from lam = -2.5 to 3, and its order on the mixture by draws that share a Brownian path (laws.py). A sampler that at
equal lam is the same on every path is measured on one.

Bias: of the mean, in units of the std, and of the std, for whole runs on N(0.3, 0.5^2) from pure noise to data: the
moments are propagated exactly, so no chance is in them.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ...grids import registry as grids
from ...paths import Path
from ...paths import registry as paths
from ...samplers import Sampler
from ...samplers import registry as samplers
from . import laws
from .laws import Bias, Estimate
from .orders import Problem, quantiles
from .theorem import all_samplers, mixture

PATHS = "vp", "cosine", "ve", "flow", "linear-table"
GRIDS = "karras", "lam", "uniform"
COUNTS = 10, 20
BAR = 0.02  # of the bias of the std at 20 steps, for what is recommended
LAW, FLOW = (80, 320), (80, 160)


class Certificate(NamedTuple):
    """What was measured of a sampler. `orders`: path -> (order, constant); `biases`: grid -> path -> steps -> Bias."""

    name: str
    sampler: Sampler
    orders: dict[str, tuple[float, float]]
    mixture: Estimate | None
    biases: dict[str, dict[str, dict[int, Bias]]]

    @property
    def declared(self) -> int:
        """The order it promises: in law, if it is stochastic."""
        return self.sampler.weak if self.sampler.stochastic else self.sampler.order

    def worst(self, grid: str, steps: int) -> Bias:
        """The largest bias of any path."""
        found = [of[steps] for of in self.biases[grid].values()]
        return Bias(max((b.mean for b in found), key=abs), max((b.std for b in found), key=abs))

    @property
    def recommended(self) -> list[str]:
        """The grids on which 20 steps keep the std on every path."""
        return [grid for grid in self.biases if abs(self.worst(grid, 20).std) <= BAR]

    def plain(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "name": self.name,
            **samplers.describe(self.sampler),
            "sampler": self.name,
            "calls": self.sampler.calls,
            "stochastic": self.sampler.stochastic,
            "declared": self.declared,
            "orders": {path: {"order": order, "constant": c} for path, (order, c) in self.orders.items()},
            "mixture": self.mixture and self.mixture._asdict(),
            "bias": {
                grid: {path: {str(n): bias._asdict() for n, bias in of.items()} for path, of in by.items()}
                for grid, by in self.biases.items()
            },
            "recommended": self.recommended,
        }


def certify(progress: Callable[[int, int, str], None] | None = None, *, draws: int = 4000) -> Iterator[Certificate]:
    """Certificates of all registered samplers, as they are measured. draws: on the mixture; 0 leaves it out."""
    found = all_samplers()
    for done, (name, sampler) in enumerate(found.items()):
        if progress:
            progress(done, len(found), name)
        weak = laws.weak_order(sampler, paths.make("cosine"), draws) if draws and promises(sampler) else None
        yield Certificate(name, sampler, dict(orders(sampler)), weak, biases(sampler))
    if progress:
        progress(len(found), len(found), "")


def promises(sampler: Sampler) -> bool:
    """Whether the law of what it draws tends to the exact one."""
    return sampler.stochastic and sampler.weak > 0


def orders(sampler: Sampler) -> Iterator[tuple[str, tuple[float, float]]]:
    """(path, (order, constant)); one line for all paths where they cannot differ."""
    for name in ["every path"] if sampler.universal else PATHS:
        path = paths.make("cosine" if sampler.universal else name)
        yield name, in_law(sampler, path) if sampler.stochastic else in_flow(sampler, path)


def in_law(sampler: Sampler, path: Path) -> tuple[float, float]:
    """Order and constant of the variance's bias."""
    coarse, fine = (abs(laws.variance_bias(sampler, path, n)) for n in LAW)
    return math.log(coarse / fine) / math.log(LAW[1] / LAW[0]), fine * LAW[1] ** max(sampler.weak, 0)


def in_flow(sampler: Sampler, path: Path) -> tuple[float, float]:
    """Order and constant of the distance to the exact flow."""
    oracle = mixture(1).at(path)
    problem = Problem(oracle, quantiles(oracle))
    coarse, fine = (float((problem.walk(sampler, n) - problem.end).abs().mean()) for n in FLOW)
    return math.log2(coarse / fine), fine * FLOW[1] ** sampler.order


def biases(sampler: Sampler) -> dict[str, dict[str, dict[int, Bias]]]:
    """grid -> path -> steps -> Bias; paths with the same lams are one measurement where the sampler cannot tell."""
    known: dict[Any, Bias] = {}

    def of(grid: str, name: str, steps: int) -> Bias:
        path = paths.make(name)
        times = grids.make(grid)(path, steps)
        key = tuple(round(lam, 9) for lam in path.lam(times).tolist()) if sampler.universal else (grid, name, steps)
        if key not in known:
            known[key] = laws.bias(sampler, path, times)
        return known[key]

    return {grid: {name: {steps: of(grid, name, steps) for steps in COUNTS} for name in PATHS} for grid in GRIDS}


def page(found: list[Certificate]) -> str:
    """docs/samplers.md."""
    return "\n".join(
        [
            "# The samplers, measured",
            "",
            "Written by `pellucid verify samplers --out docs/samplers.md`; not by hand.",
            "",
            *(line.strip() for line in (__doc__ or "").strip().splitlines()[2:]),
            "",
            "## Order",
            "",
            "An order in brackets was declared. Where a path is named, the sampler steps in that path's own time.",
            "",
            *grid_of(["sampler", "calls a step", "order", "constant", "on a mixture"], map(order_line, found)),
            "",
            "## Bias of the standard deviation",
            "",
            f"In per cent at {COUNTS[0]} / {COUNTS[1]} steps, the worst of {', '.join(PATHS)}. A grid is recommended "
            f"where {COUNTS[1]} steps stay within {BAR:.0%} on all of them.",
            "",
            *grid_of(["sampler", *GRIDS, "recommended"], map(bias_line, found)),
            "",
            f"## On each path, {COUNTS[1]} steps of {GRIDS[0]}",
            "",
            "Bias of the std in per cent; in brackets that of the mean, in per cent of the std.",
            "",
            *grid_of(["sampler", *PATHS], map(path_line, found)),
            "",
        ]
    )


def grid_of(head: list[str], rows: Iterator[list[str]] | Any) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def order_line(c: Certificate) -> list[str]:
    """Name, calls, order, constant."""
    promise = f"[{c.declared}]" if c.declared else "[none]"
    measured = ", ".join(f"{order:.2f}{'' if c.sampler.universal else f' {p}'}" for p, (order, _) in c.orders.items())
    constant = ", ".join(f"{value:.2g}" for _, value in c.orders.values()) if c.declared else ""
    on = f"{c.mixture.value:.1f} ± {c.mixture.error:.1f}" if c.mixture else ""
    return [c.name, str(c.sampler.calls), f"{measured} {promise}", constant, on]


def bias_line(c: Certificate) -> list[str]:
    """Name, the worst biases, what is recommended."""
    cells = [" / ".join(f"{100 * c.worst(grid, n).std:+.1f}" for n in COUNTS) for grid in GRIDS]
    return [c.name, *cells, ", ".join(c.recommended)]


def path_line(c: Certificate) -> list[str]:
    """Name, and the biases on each path."""
    found = [by[COUNTS[1]] for by in c.biases[GRIDS[0]].values()]
    return [c.name, *(f"{100 * b.std:+.2f} ({100 * b.mean:+.2f})" for b in found)]
