"""What a metric is: a function of two sets of samples, and of what the samples were learnt from.

To add one, write its equation in a file of its own, subclass Metric below it and register the class: the evaluation
computes it, says what real data score, and the contract tests try it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from ..registry import Registry
from .estimate import Figure
from .sets import spaced

registry: "Registry[Metric]" = Registry("metric")
Judge = Callable[[Tensor], Tensor]
"""Samples [n, ...] to labels, int64 [n]."""


class View(NamedTuple):
    """A set of samples: as they are, as a network sees them, and what they are meant to be."""

    x: Tensor  # [n, *shape], in model units
    features: Tensor  # [n, d], float64
    label: Tensor | None = None  # int64 [n]

    def take(self, index: Tensor) -> "View":
        """The samples at index, int64 [m]."""
        return View(self.x[index], self.features[index], None if self.label is None else self.label[index])

    def spread(self, most: int) -> "View":
        """All of them, or `most` evenly spaced ones."""
        return self if len(self.x) <= most else self.take(spaced(len(self.x), most))


@dataclass(frozen=True, eq=False)
class Case:
    """What a metric judges: samples, held-out real data, and the data that the samples' model learnt from."""

    samples: View
    real: View
    train: Tensor  # [m, *shape], all of it, in model units
    twin: View  # as many of the training data as there are samples, or as there are
    seed: int = 0
    judge: Judge | None = None  # of classes, from the training data alone

    def spread(self, most: int) -> "Case":
        """The same with at most so many samples in each set."""
        sets = {name: getattr(self, name).spread(most) for name in ("samples", "real", "twin")}
        return replace(self, **sets)

    def instead(self, samples: View, real: View | None = None) -> "Case":
        """The same with other samples, perhaps against other real data."""
        return replace(self, samples=samples, real=real or self.real)


class Metric(ABC):
    """A frozen dataclass. Each figure that it gives has a name and an interval."""

    better: ClassVar[Literal["less", "more", "near"]]
    """Which samples are better: those that score less, more, or nearer to what real data score."""
    space: ClassVar[Literal["features", "values"]] = "features"
    """What it looks at."""
    most: ClassVar[int] = 1_000_000_000
    """Samples of a set of which it takes no more, evenly spaced."""

    @abstractmethod
    def __call__(self, case: Case) -> dict[str, Figure]:
        """The figures; none where the metric has nothing to say of such samples."""

    def floor(self, case: Case) -> Case:
        """The case in which real data take the samples' place: here, as many of the training data."""
        return case.instead(case.twin)
