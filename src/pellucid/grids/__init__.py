"""Grids: the times at which a sampler asks the network.

A grid is a rule in t (times.py), in noise levels (levels.py) or in the indices of a discrete schedule (indices.py), or
it is what was fitted to one model. That of scales.py knows how far the data reaches. What it must be, base.py says.
"""

from .base import Grid, registry
from .indices import Distilled, Leading, Linspace, Trailing
from .levels import KL, Karras, Lam, Quantile
from .restart import Restart
from .scales import Scales
from .times import Beta, Fitted, LinearQuadratic, Shifted, Uniform

__all__ = [
    "KL",
    "Beta",
    "Distilled",
    "Fitted",
    "Grid",
    "Karras",
    "Lam",
    "Leading",
    "LinearQuadratic",
    "Linspace",
    "Quantile",
    "Restart",
    "Scales",
    "Shifted",
    "Trailing",
    "Uniform",
    "registry",
]
