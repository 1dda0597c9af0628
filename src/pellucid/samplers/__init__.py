"""Samplers: from noise to data, one pure step at a time.

`step` takes a denoiser, a state at times t, new times s < t and the step's noise, and returns the state at s. It has
no memory of its own and never looks from one sample to another.
"""

from .ancestral import Ancestral
from .base import Sampler, registry
from .ddpm import DDPM
from .extended import ExtendedSDE
from .langevin import Langevin
from .multistep import Multistep
from .renoise import Renoise
from .runge_kutta import Heun, Midpoint
from .sde import ExponentialSDE, ReverseSDE

__all__ = [
    "DDPM",
    "Ancestral",
    "ExponentialSDE",
    "ExtendedSDE",
    "Heun",
    "Langevin",
    "Midpoint",
    "Multistep",
    "Renoise",
    "ReverseSDE",
    "Sampler",
    "registry",
]

registry.preset("ddim", Ancestral(eta=0.0), "ddimscheduler", "sample_ddim")
registry.preset("ddpm", Ancestral(eta=1.0), "ddpmscheduler", "euler-a", "euler_ancestral", "sample_euler_ancestral")
registry.preset("euler", Multistep(order=1), "eulerdiscretescheduler", "sample_euler", "flow-euler", "dpm-solver-1")
registry.preset("dpmpp-2m", Multistep(order=2, rule="midpoint"), "dpm++ 2m", "dpmpp_2m", "sample_dpmpp_2m")
registry.preset("dpmpp-3m", Multistep(order=3), "dpm++ 3m", "dpmpp_3m")
registry.preset(
    "dpmpp-2m-sde", Multistep(order=2, rho=1.0, rule="midpoint"), "dpm++ 2m sde", "dpmpp_2m_sde", "sample_dpmpp_2m_sde"
)
registry.preset("dpmpp-3m-sde", Multistep(order=3, rho=1.0), "dpm++ 3m sde", "dpmpp_3m_sde", "sample_dpmpp_3m_sde")
registry.preset("edm", Heun(churn=4.0, low=0.05, high=50.0), "heun-churn", "edm-stochastic")

from . import stochastic as stochastic  # noqa: E402  # after the names that it builds on
