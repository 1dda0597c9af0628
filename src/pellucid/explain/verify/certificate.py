"""The samplers' certificate: for each registered sampler its order, its error and the bias of what it draws.

Order and constant: error = constant / N^order, N steps. Of a deterministic sampler the error is the mean distance to
the exact flow of a mixture from lam = -1.5 to 2 (orders.py); of a stochastic one the bias of the variance of Gaussian
data from lam = -2.5 to 3, and its order on the mixture by draws that share a Brownian path (laws.py). Steps are equal
in the path's own time.

Bias: of the mean, in units of the std, and of the std, for whole runs on N(0.3, 0.5^2) from pure noise to data: the
moments are propagated exactly, so no chance is in them.

Adaptive samplers have no steps of their own: of them the error is measured, in units of the tolerance, and the calls.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ...grids import registry as grids
from ...paths import Path
from ...paths import registry as paths
from ...samplers import Adaptive, Sampler
from ...samplers import registry as samplers
from . import laws
from .laws import Bias, Estimate
from .orders import TOLERANCES, problem, quantiles, strayed
from .theorem import all_samplers

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


def certify(
    progress: Callable[[int, int, str], None] | None = None,
    chosen: Mapping[str, Sampler] | None = None,
    *,
    draws: int = 4000,
) -> Iterator[Certificate]:
    """Certificates of these or all samplers, as they are measured. draws: on the mixture; 0 leaves it out."""
    found = {name: s for name, s in (chosen or all_samplers()).items() if s.calls}
    for done, (name, sampler) in enumerate(found.items()):
        if progress:
            progress(done, len(found), name)
        weak = laws.weak_order(sampler, paths.make("cosine"), draws) if draws and laws.promises(sampler) else None
        yield Certificate(name, sampler, dict(orders(sampler)), weak, biases(sampler))
    if progress:
        progress(len(found), len(found), "")


def orders(sampler: Sampler) -> Iterator[tuple[str, tuple[float, float]]]:
    """(path, (order, constant))."""
    for name in PATHS:
        yield name, in_law(sampler, paths.make(name)) if sampler.stochastic else in_flow(sampler, name)


def in_law(sampler: Sampler, path: Path) -> tuple[float, float]:
    """Order and constant of the variance's bias."""
    coarse, fine = (abs(laws.variance_bias(sampler, path, n)) for n in LAW)
    return math.log(coarse / fine) / math.log(LAW[1] / LAW[0]), fine * LAW[1] ** max(sampler.weak, 0)


def in_flow(sampler: Sampler, path: str) -> tuple[float, float]:
    """Order and constant of the distance to the exact flow."""
    task = problem(path, 1, quantiles)
    coarse, fine = (float((task.walk(sampler, n) - task.end).abs().mean()) for n in FLOW)
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


Tolerances = dict[str, dict[str, tuple[float, float]]]
"""adaptive sampler -> tolerance -> (error in units of it, calls)."""


def tolerances(chosen: Mapping[str, Sampler] | None = None) -> Tolerances:
    """What these or all adaptive samplers do on vp."""
    found = chosen if chosen is not None else {name: samplers.make(name) for name in samplers.presets}
    pairs = {name: sampler.pair for name, sampler in found.items() if isinstance(sampler, Adaptive)}
    return {name: {f"{t:g}": strayed(pair, paths.make("vp"), t) for t in TOLERANCES} for name, pair in pairs.items()}


def page(found: list[Certificate], adapted: Tolerances) -> str:
    """docs/samplers.md."""
    written = "Written by `pellucid verify samplers --out docs/samplers.md`; not by hand."
    account = (line.strip() for line in (__doc__ or "").strip().splitlines()[2:])
    return "\n".join(["# The samplers, measured", "", written, "", *account, "", *tables(found, adapted)])


def tables(found: list[Certificate], adapted: Tolerances) -> list[str]:
    """What was measured, in Markdown."""
    order = f"As declared, and as measured on {', '.join(PATHS)}. The last column is the order in law on a mixture."
    std = (
        f"In per cent at {COUNTS[0]} / {COUNTS[1]} steps, the worst of {', '.join(PATHS)}. A grid is recommended "
        f"where {COUNTS[1]} steps stay within {BAR:.0%} on all of them."
    )
    each = "Bias of the std in per cent; in brackets that of the mean, in per cent of the std."
    parts = [
        ("Order", order, ["sampler", "calls a step", "declared", *PATHS, "on a mixture"], map(order_line, found)),
        ("Error constant", "Where an order is declared.", ["sampler", *PATHS], map(constant_line, found)),
        ("Bias of the standard deviation", std, ["sampler", *GRIDS, "recommended"], map(bias_line, found)),
        (f"On each path, {COUNTS[1]} steps of {GRIDS[0]}", each, ["sampler", *PATHS], map(path_line, found)),
    ]
    way = "From noise to data on vp: the error in units of the tolerance, and in brackets the calls of the network."
    lines = ([name, *(f"{gap:.2f} ({calls:.0f})" for gap, calls in by.values())] for name, by in adapted.items())
    last = ("Adaptive samplers", way, ["sampler", *map("{:g}".format, TOLERANCES)], lines)
    chosen = [*(parts if found else []), *([last] if adapted else [])]
    return [
        line for head, words, row, rows in chosen for line in (f"## {head}", "", words, "", *grid_of(row, rows), "")
    ]


def grid_of(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def order_line(c: Certificate) -> list[str]:
    """Name, calls, order as declared and as measured."""
    on = f"{c.mixture.value:.1f} ± {c.mixture.error:.1f}" if c.mixture else ""
    measured = [f"{order:.2f}" for order, _ in c.orders.values()]
    return [c.name, str(c.sampler.calls), str(c.declared or "none"), *measured, on]


def constant_line(c: Certificate) -> list[str]:
    """Name, and the constant on each path, where an order is declared."""
    return [c.name, *(f"{constant:.2g}" if c.declared else "" for _, constant in c.orders.values())]


def bias_line(c: Certificate) -> list[str]:
    """Name, the worst biases, what is recommended."""
    cells = [" / ".join(f"{100 * c.worst(grid, n).std:+.1f}" for n in COUNTS) for grid in GRIDS]
    return [c.name, *cells, ", ".join(c.recommended)]


def path_line(c: Certificate) -> list[str]:
    """Name, and the biases on each path."""
    found = [by[COUNTS[1]] for by in c.biases[GRIDS[0]].values()]
    return [c.name, *(f"{100 * b.std:+.2f} ({100 * b.mean:+.2f})" for b in found)]
