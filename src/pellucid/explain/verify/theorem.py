"""What a theorem is: a function that yields measurements beside their bounds. Its docstring is its statement.

Theorems about samplers are trials: proved of one sampler after another.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import paths, samplers
from ...oracle import GaussianMixture
from ...paths import Path
from ...samplers import Sampler
from ...types import Times


class Row(NamedTuple):
    """One measurement: of which theorem, on what, the number, the bound it must keep, and whether it does."""

    theorem: str
    subject: str
    measured: float
    bound: str
    holds: bool


Check = Callable[[], Iterator[Row]]
Trial = Callable[[str, Sampler], Iterator[Row]]
"""Of a sampler and its name; it yields nothing where it does not apply."""
THEOREMS: dict[str, Check] = {}
TRIALS: dict[str, Trial] = {}


def theorem(check: Check) -> Check:
    """Decorator: `pellucid verify` proves this one too."""
    THEOREMS[check.__name__.replace("_", " ")] = check
    return check


def trial(check: Trial) -> Trial:
    """Decorator: `pellucid verify` proves this one too, of each sampler."""
    TRIALS[check.__name__.replace("_", " ")] = check
    return check


def at_most(subject: str, measured: Tensor | float, bound: float) -> Row:
    """measured <= bound; a NaN holds nothing."""
    return Row("", subject, float(measured), f"<= {bound:.3g}", float(measured) <= bound)


def at_least(subject: str, measured: Tensor | float, bound: float) -> Row:
    """measured >= bound."""
    return Row("", subject, float(measured), f">= {bound:.3g}", float(measured) >= bound)


def near(subject: str, measured: float, value: float, tolerance: float) -> Row:
    """|measured - value| <= tolerance."""
    return Row("", subject, measured, f"{value:g} +- {tolerance:g}", abs(measured - value) <= tolerance)


def error(got: Tensor, expected: Tensor) -> Tensor:
    """The largest error, relative where the expected number is larger than 1."""
    return ((got - expected).abs() / expected.abs().clamp(min=1)).max()


def worst(found: Iterable[tuple[str, Tensor | float]]) -> tuple[str, float]:
    """The largest of named measurements, and words that say where, if it is not 0; a NaN is larger than all."""
    numbers = [(name, float(value)) for name, value in found]
    name, most = max(numbers, key=lambda item: math.inf if math.isnan(item[1]) else item[1])
    return f" (worst: {name})" if most else "", most


def all_paths() -> dict[str, Path]:
    """Every registered path by name; those that need options get some that try them hard."""
    options: dict[str, dict[str, Any]] = {
        "table": {"betas": [0.02, 0.1, 0.3, 0.6, 1.0]},  # zero terminal signal
        "shifted": {"base": "flow"},
    }
    return {name: paths.registry.make({"name": name, **options.get(name, {})}) for name in paths.registry.names()}


def formulas() -> dict[str, Path]:
    """Of the paths those whose alpha and sigma are formulas: what samplers are crossed with.

    A learned path asks a network for every number, a hundred times as long; it is tried by first-order steps alone.
    """
    return {name: path for name, path in all_paths().items() if not isinstance(path, paths.Learned)}


def all_samplers(stochastic: bool | None = None) -> dict[str, Sampler]:
    """Every registered sampler with steps of its own, by its names; or those that draw noise, or those that do not."""
    named: dict[Sampler, list[str]] = {}
    for name in samplers.registry.names():
        named.setdefault(samplers.registry.make(name), []).append(name)
    return {" = ".join(names): s for s, names in named.items() if s.calls and stochastic in (None, s.stochastic)}


def one_of_each_kind() -> dict[str, Sampler]:
    """Of the samplers that differ in numbers alone, such as their order, the first."""
    options, kinds = ("variable", "clock", "mode", "start"), dict[tuple[Any, ...], tuple[str, Sampler]]()
    for name, sampler in all_samplers().items():
        kind = type(sampler), sampler.stochastic, *(getattr(sampler, option, None) for option in options)
        kinds.setdefault(kind, (name, sampler))
    return dict(kinds.values())


def mixture(dim: int = 2) -> GaussianMixture:
    """The data of the theorems: three Gaussians of full covariance, overlapping, without symmetry."""
    return GaussianMixture.random(3, dim, seed=0)


def times(*values: float) -> Times:
    """Numbers as times."""
    return torch.tensor(values, dtype=torch.float64)


def interior(path: Path, n: int = 101) -> Times:
    """n times between lam = 6 and lam = -6, or the path's noisy end."""
    low, high = path.time(times(6.0, -6.0)).clamp(max=0.999)
    return torch.linspace(float(low), float(high), n, dtype=torch.float64)
