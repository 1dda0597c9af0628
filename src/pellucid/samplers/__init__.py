"""Samplers: from noise to data, one pure step at a time.

`step` takes a denoiser, a state at times t, new times s < t and the step's noise, and returns the state at s. It has
no memory of its own and never looks from one sample to another.
"""

from dataclasses import replace

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

for _order, _aliases in (1, ()), (2, ()), (3, ("er-sde", "er_sde", "sample_er_sde")):
    registry.preset(f"er-sde-{_order}", ExtendedSDE(_order, noise="er", clock="sigma"), *_aliases)
registry.preset("er-sde-pec", ExtendedSDE(2, corrector=3, noise="er", clock="sigma"))
_sa = ExtendedSDE(3, corrector=3, low=0.05, high=1.0)  # tau = 1 where the picture takes shape (Xue et al. 2023)
registry.preset("sa-solver", _sa, "sasolverscheduler", "sa_solver", "sample_sa_solver")
registry.preset("sa-solver-pece", replace(_sa, mode="PECE"), "sa_solver_pece", "sample_sa_solver_pece")
registry.preset("dpmpp-2s-a", Renoise(Midpoint()), "dpm++ 2s a", "dpmpp_2s_ancestral", "sample_dpmpp_2s_ancestral")
registry.preset("dpmpp-sde", ExponentialSDE(), "dpm++ sde", "dpmpp_sde", "sample_dpmpp_sde", "seeds-2", "seeds_2")
registry.preset("lcm", Renoise(eta=0.0, gamma=1.0), "lcmscheduler", "consistency", "sample_lcm")
registry.preset("tcd", Renoise(eta=0.0, gamma=0.3), "tcdscheduler")
registry.preset("euler-maruyama", ReverseSDE(1), "em", "scoresdevpscheduler")
registry.preset("heun-sde", ReverseSDE(2), "stochastic-heun")
registry.preset("pc", Langevin(), "predictor-corrector", "scoresdevescheduler")
registry.preset("annealed-langevin", Langevin(rho=-1.0, steps=5, snr=0.2236), "ald", "ncsn")
registry.preset("ddpm-large", DDPM("large"), "fixed_large", "learned_range")
