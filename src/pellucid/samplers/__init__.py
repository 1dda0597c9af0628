"""Samplers: from noise to data, one pure step at a time.

`step` takes a denoiser, a state at times t, new times s < t and the step's noise, and returns the state at s. It has
no memory of its own and never looks from one sample to another. What has a name is a setting of a few general ones
(names.py, stochastic.py).
"""

from . import names as names
from . import stochastic as stochastic
from .adaptive import Adaptive
from .ancestral import Ancestral
from .base import Sampler, registry
from .ddpm import DDPM
from .extended import ExtendedSDE
from .langevin import Langevin
from .multistep import Multistep
from .pseudo import Pseudo
from .renoise import Renoise
from .runge_kutta import RungeKutta
from .scales import Scales
from .sde import ExponentialSDE, ReverseSDE
from .singlestep import Singlestep

__all__ = [
    "DDPM",
    "Adaptive",
    "Ancestral",
    "ExponentialSDE",
    "ExtendedSDE",
    "Langevin",
    "Multistep",
    "Pseudo",
    "Renoise",
    "ReverseSDE",
    "RungeKutta",
    "Sampler",
    "Scales",
    "Singlestep",
    "registry",
]
