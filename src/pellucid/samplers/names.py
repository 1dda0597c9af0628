"""Names: what diffusers, k-diffusion, ComfyUI and the web interfaces call these samplers.

A preset is a setting of a general sampler; its aliases are the names that mean the same. A label may end in the name
of a grid ("DPM++ 2M Karras"), and a diffusers scheduler has a configuration (diffusers.py): both become a sampler and
a grid.
"""

from ..errors import PellucidError
from .ancestral import Ancestral
from .base import registry
from .diffusers import of_diffusers as of_diffusers
from .multistep import Multistep
from .pseudo import Pseudo
from .runge_kutta import RungeKutta

_ = registry.preset

_("ddim", Ancestral(eta=0.0), "ddimscheduler", "sample_ddim", "cogvideoxddimscheduler", "ddimparallelscheduler")
_("ddpm", Ancestral(eta=1.0), "ddpmscheduler", "euler-a", "euler a", "euler_ancestral", "sample_euler_ancestral",
  "eulerancestraldiscretescheduler", "ddpmparallelscheduler", "ddpmwuerstchenscheduler", "unclipscheduler")  # fmt: skip
_("euler", Multistep(order=1), "eulerdiscretescheduler", "sample_euler", "flow-euler", "dpm-solver-1",
  "edmeulerscheduler", "flowmatcheulerdiscretescheduler")  # fmt: skip

# x0 in lam: DPM-Solver++
_("dpmpp-2m", Multistep(order=2, rule="midpoint"), "dpm++ 2m", "dpmpp_2m", "sample_dpmpp_2m",
  "dpmsolvermultistepscheduler", "edmdpmsolvermultistepscheduler")  # fmt: skip
_("dpmpp-2m-heun", Multistep(order=2), "dpm++ 2m heun", "res_multistep", "sample_res_multistep")
_("dpmpp-3m", Multistep(order=3), "dpm++ 3m", "dpmpp_3m")
_("dpmpp-2m-sde", Multistep(order=2, rho=1.0, rule="midpoint"), "dpm++ 2m sde", "dpmpp_2m_sde", "sample_dpmpp_2m_sde",
  "dpmpp_2m_sde_gpu", "sample_dpmpp_2m_sde_gpu", "cogvideoxdpmscheduler",
  "cosinedpmsolvermultistepscheduler")  # fmt: skip
_("dpmpp-2m-sde-heun", Multistep(order=2, rho=1.0), "dpm++ 2m sde heun", "dpmpp_2m_sde_heun",
  "sample_dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "sample_dpmpp_2m_sde_heun_gpu")  # fmt: skip
_("dpmpp-3m-sde", Multistep(order=3, rho=1.0), "dpm++ 3m sde", "dpmpp_3m_sde", "sample_dpmpp_3m_sde",
  "dpmpp_3m_sde_gpu", "sample_dpmpp_3m_sde_gpu")  # fmt: skip
_("midpoint", RungeKutta("midpoint", "x0", "lam"), "dpmpp-2s", "dpm++ 2s")
_("dpmpp-3s", RungeKutta("third", "x0", "lam"), "dpm++ 3s")
_("exp-heun", RungeKutta("heun", "x0", "lam"), "exp_heun_2_x0", "sample_exp_heun_2_x0")
_("unipc", Multistep(order=3, rule="midpoint", mode="correct"), "unipc-2", "unipcmultistepscheduler")
_("unipc-3", Multistep(order=4, rule="midpoint", mode="correct"), "uni_pc_bh2", "sample_unipc_bh2")
_("unipc-bh1", Multistep(order=4, rule="taylor", mode="correct"), "uni_pc", "sample_unipc")

# eps in lam: DPM-Solver
_("dpm-solver-2m", Multistep(order=2, rule="midpoint", variable="eps"), "dpm 2m")
_("dpm-2", RungeKutta("midpoint", "eps", "lam"), "dpm2", "dpm_2", "sample_dpm_2", "dpm-solver-2",
  "kdpm2discretescheduler")  # fmt: skip
_("dpm-solver-3", RungeKutta("third", "eps", "lam"), "dpm3")
_("deis-logrho", Multistep(order=2, variable="eps"), "deismultistepscheduler")

# eps in t and in sigma/alpha
_("deis", Multistep(order=3, variable="eps", clock="t"), "deis-tab", "tab3", "sample_deis")
_("lms", Multistep(order=4, variable="eps", clock="sigma"), "lmsdiscretescheduler", "sample_lms", "ipndm_v",
  "sample_ipndm_v", "rho-ab")  # fmt: skip
_("gradient-estimation-2", Multistep(order=2, variable="eps", clock="sigma"), "lms-2")
_("gradient-estimation", Pseudo(steps=2, gamma=2.0), "gradient_estimation", "sample_gradient_estimation")
_("ipndm", Pseudo(steps=4), "ipndmscheduler", "sample_ipndm")
_("plms", Pseudo(steps=4, start="heun"))
_("pndm", Pseudo(steps=4, start="runge-kutta"), "pndmscheduler")
_("heun", RungeKutta("heun"), "heundiscretescheduler", "sample_heun")
_("edm", RungeKutta("heun", churn=4.0, low=0.05, high=50.0), "heun-churn", "edm-stochastic", "karrasvescheduler")
_("bosh3", RungeKutta("bosh3"), "rk3")
_("rk4", RungeKutta("rk4"))

# velocity in t
_("flow-heun", RungeKutta("heun", "velocity", "t"), "flowmatchheundiscretescheduler")
_("flow-2m", Multistep(order=2, variable="velocity", clock="t"), "vab", "velocity-adams")

GRIDS: dict[str, str | None] = {"karras": "karras", "exponential": "lam", "sgm uniform": "uniform", "lu": "lam"}
GRIDS |= {"polyexponential": "lam", "beta": "beta", "normal": "linspace", "ddim uniform": "ddim-uniform"}
GRIDS |= {"kl optimal": "kl-optimal", "linear quadratic": "linear-quadratic", "simple": "uniform"}
GRIDS |= {"uniform": "linspace", "ddim": "ddim-uniform", "turbo": "trailing", "automatic": None}
"""Grids as the web interfaces name them at a label's end; their uniform is what others call normal."""
FITTED = "align your steps", "align your steps 11", "align your steps 32", "ays", "gits"
"""Grids that were fitted to models of others."""
LABELS = {"restart": ("heun", "restart")}
"""Labels that mean a sampler on a grid."""

for _known in ("euler", "euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_2m", "res_multistep",
               "res_multistep_ancestral", "gradient_estimation"):  # fmt: skip
    for _name in (f"{_known}_cfg_pp", f"sample_{_known}_cfg_pp"):
        registry.refuse(_name, f"is sampler {_known!r} under a guidance; take {_known!r} with the guidance cfg++.")
for _known in ("ddim", "euler", "euler a", "dpm++ 2m", "dpm++ 2s a"):
    registry.refuse(f"{_known} cfg++", f"is sampler {_known!r} under a guidance; take it with the guidance cfg++.")
for _name in ("heunpp2", "sample_heunpp2"):
    registry.refuse(_name, "weighs its three calls by sigma, which is of first order; take heun or bosh3.")
for _name in ("ddiminverse", "dpmsolvermultistepinverse"):
    registry.refuse(f"{_name}scheduler", "is a sampler's steps with their ends swapped; take sampling.invert.")
for _name in ("vqdiffusion", "amused", "discreteddim", "blockrefinement", "entropybound"):
    registry.refuse(f"{_name}scheduler", "steps tokens, which have no alpha x0 + sigma eps; there is none here.")


def split(label: str) -> tuple[str, str | None]:
    """The sampler and the grid of a label: "DPM++ 2M Karras" -> "dpm++ 2m", "karras"; no grid where none is named."""
    label = label.lower()
    if label in LABELS:
        return LABELS[label]
    for ending, grid in (*GRIDS.items(), *((name, name) for name in FITTED)):
        sampler = label.removesuffix(ending).rstrip(" _-")
        known = sampler in registry.aliases or sampler in registry.refused
        if sampler == label or label in registry.aliases or not known:
            continue
        if ending in FITTED:
            raise PellucidError(
                f"the grid of {label!r} was fitted to models of others; fit one to yours: pellucid tune RUN --nfe 8."
            )
        return sampler, grid
    return label, None
