"""A number and how well it is known."""

from typing import NamedTuple


class Estimate(NamedTuple):
    """An estimate and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.error:.2g}"
