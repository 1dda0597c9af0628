"""The stochastic samplers that have names: settings of the general ones."""

from dataclasses import replace

from .base import registry
from .ddpm import DDPM
from .extended import ExtendedSDE
from .langevin import Langevin
from .renoise import Renoise
from .sde import ExponentialSDE, ReverseSDE

for _order, _aliases in (1, ()), (2, ()), (3, ("er-sde", "er_sde", "sample_er_sde")):
    registry.preset(f"er-sde-{_order}", ExtendedSDE(_order, noise="er", clock="sigma"), *_aliases)
registry.preset("er-sde-pec", ExtendedSDE(2, corrector=3, noise="er", clock="sigma"))
_sa = ExtendedSDE(3, corrector=3, low=0.05, high=1.0)  # tau = 1 where the picture takes shape (Xue et al. 2023)
registry.preset("sa-solver", _sa, "sasolverscheduler", "sa_solver", "sample_sa_solver")
registry.preset("sa-solver-pece", replace(_sa, mode="PECE"), "sa_solver_pece", "sample_sa_solver_pece")
registry.preset(
    "dpmpp-2s-a", Renoise(registry.make("midpoint")), "dpm++ 2s a", "dpmpp_2s_ancestral", "sample_dpmpp_2s_ancestral"
)
registry.preset("dpm2-a", Renoise(registry.make("dpm-2")), "dpm2 a", "dpm_2_ancestral", "sample_dpm_2_ancestral",
                "kdpm2ancestraldiscretescheduler")  # fmt: skip
registry.preset("res-multistep-a", Renoise(registry.make("res_multistep")), "res_multistep_ancestral",
                "sample_res_multistep_ancestral")  # fmt: skip
registry.preset("dpmpp-sde", ExponentialSDE(), "dpm++ sde", "dpmpp_sde", "sample_dpmpp_sde", "seeds-2", "seeds_2",
                "sample_seeds_2", "dpmpp_sde_gpu", "sample_dpmpp_sde_gpu", "dpmsolversdescheduler")  # fmt: skip
registry.preset("seeds-3", ExponentialSDE(method="third"), "seeds_3", "sample_seeds_3")
registry.preset("exp-heun-sde", ExponentialSDE(method="heun"), "exp_heun_2_x0_sde", "sample_exp_heun_2_x0_sde")
registry.preset("lcm", Renoise(eta=0.0, gamma=1.0), "lcmscheduler", "consistency", "sample_lcm",
                "cmstochasticiterativescheduler", "flowmatchlcmscheduler")  # fmt: skip
registry.preset("tcd", Renoise(eta=0.0, gamma=0.3), "tcdscheduler")
registry.preset("euler-maruyama", ReverseSDE(1), "em", "scoresdevpscheduler")
registry.preset("heun-sde", ReverseSDE(2), "stochastic-heun")
registry.preset("pc", Langevin(), "predictor-corrector", "scoresdevescheduler")
registry.preset("annealed-langevin", Langevin(rho=-1.0, steps=5, snr=0.2236), "ald", "ncsn")
registry.preset("ddpm-large", DDPM("large"), "fixed_large", "learned_range")
