"""Paths: how data turns into noise, x_t = alpha(t) x0 + sigma(t) eps.

A path preserves the variance (preserving.py, cosine.py, table.py), lets it grow (exploding.py), is a straight line
(flow.py), or is one of these on another clock (clock.py). What it must be, base.py says.
"""

from .base import Path, carry, registry, slope
from .clock import Learned, Shifted
from .cosine import Cosine, Sigmoid
from .exploding import EDM, VE
from .flow import Flow
from .preserving import VP, ScaledLinear, SubVP, VariancePreserving
from .table import CosineTable, LinearTable, Table

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Cosine",
    "CosineTable",
    "Flow",
    "Learned",
    "LinearTable",
    "Path",
    "ScaledLinear",
    "Shifted",
    "Sigmoid",
    "SubVP",
    "Table",
    "VariancePreserving",
    "carry",
    "registry",
    "slope",
]
