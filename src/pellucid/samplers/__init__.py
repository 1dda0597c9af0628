"""Samplers: from noise to data, one pure step at a time.

`step` takes a denoiser, a state at times t, new times s < t and the step's noise, and returns the state at s. It has
no memory of its own and never looks from one sample to another. Five general ones; what has a name is a setting of
them (names.py).
"""

from . import names as names
from .adaptive import Adaptive
from .ancestral import Ancestral
from .base import Sampler, registry
from .multistep import Multistep
from .pseudo import Pseudo
from .runge_kutta import RungeKutta

__all__ = ["Adaptive", "Ancestral", "Multistep", "Pseudo", "RungeKutta", "Sampler", "registry"]
