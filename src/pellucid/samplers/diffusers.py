"""diffusers' scheduler_config.json: the sampler that it stands for, and the times of set_timesteps.

The times are theirs to the last digit, but all grids here end at clean data, where some of theirs end at the cleanest
index. Their table of betas, which decides the limits of their spacings in sigma/alpha, is computed here again. What a
configuration asks for and nothing here has is refused by name; a setting that is not stated has no effect.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import PellucidError, unknown
from .base import registry

Config = Mapping[str, Any]
Table = dict[str, Any]

HARMLESS: Table = {"clip_sample": False, "thresholding": False, "disable_corrector": [], "solver_p": None}
HARMLESS |= {"lambda_min_clipped": -math.inf, "tau_func": None, "euler_at_final": False, "use_beta_sigmas": False}
HARMLESS |= {"invert_sigmas": False, "shift_terminal": None, "stochastic_sampling": False, "scale_factors": None}
HARMLESS |= {"timestep_type": "discrete", "interpolation_type": "linear"}
"""Settings that nothing here follows, with the value at which they do nothing."""
INSTEAD = {"clip_sample": "guidance.Threshold", "thresholding": "guidance.Threshold", "use_beta_sigmas": "grid 'beta'"}
"""What comes nearest to them here."""


def of_diffusers(config: Config) -> tuple[Table, Table]:
    """The tables of the sampler and the grid that a diffusers scheduler_config.json stands for."""
    name = str(config.get("_class_name", "")).lower()
    sampler = registry.canonical(name)
    for setting, harmless in HARMLESS.items():
        if (value := config.get(setting, harmless)) != harmless and value is not None:
            near = f"; {INSTEAD[setting]} is what comes nearest" if setting in INSTEAD else ""
            raise PellucidError(f"{setting} is {value!r}, which nothing here follows; set it to {harmless!r}{near}.")
    name = name.removesuffix("scheduler")
    if name not in GRIDS:
        raise PellucidError(f"{name!r} walks times of its own; take sampler {sampler!r} with a grid of your choice.")
    return {"name": sampler, **SETTINGS.get(name, lambda _: {})(config)}, GRIDS[name](config)


def _one(config: Config, setting: str, *known: str) -> str:
    """What a setting says: one of those known, the first where nothing is said."""
    value = config.get(setting) or known[0]
    if value not in known:
        raise unknown(setting, str(value), known)
    return str(value)


def _dpm_solver(config: Config) -> Table:
    kind = _one(config, "algorithm_type", "dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver")
    if kind == "sde-dpmsolver":
        raise PellucidError("algorithm_type is 'sde-dpmsolver'; take 'sde-dpmsolver++', which has noise too.")
    order, heun = config.get("solver_order", 2), _one(config, "solver_type", "midpoint", "heun") == "heun"
    return {
        "order": order,
        "rule": "exact" if order != 2 or heun else "midpoint",
        "variable": "x0" if kind.endswith("++") else "eps",
        "rho": 1.0 if kind.startswith("sde-") else 0.0,
    }


def _singlestep(config: Config) -> Table:
    kind = _one(config, "algorithm_type", "dpmsolver++", "dpmsolver", "sde-dpmsolver++")
    if kind == "sde-dpmsolver++":
        raise PellucidError("algorithm_type is 'sde-dpmsolver++', of one step; take DPMSolverMultistepScheduler's.")
    order, rule = config.get("solver_order", 2), _one(config, "solver_type", "midpoint", "heun")
    if order == 1:
        return {"name": "euler"}
    variable = "x0" if kind.endswith("++") else "eps"
    return {"order": order, "rule": "exact" if rule == "heun" else "midpoint", "variable": variable}


def _unipc(config: Config) -> Table:
    return {
        "order": config.get("solver_order", 2) + 1,
        "rule": {"bh1": "taylor", "bh2": "midpoint"}[_one(config, "solver_type", "bh2", "bh1")],
        "variable": "x0" if config.get("predict_x0", True) else "eps",
    }


def _deis(config: Config) -> Table:
    _one(config, "algorithm_type", "deis"), _one(config, "solver_type", "logrho")
    return {"order": config.get("solver_order", 2)}


def _sa_solver(config: Config) -> Table:
    """Noise between their indices 200 and 800, whatever the length of the table."""
    _one(config, "algorithm_type", "data_prediction")
    low, high = (torch.cat([_table(config), torch.full((801,), math.inf)])[[200, 800]]).tolist()
    orders = {"order": config.get("predictor_order", 2), "corrector": config.get("corrector_order", 2)}
    return orders | {"low": low, "high": high}


def _ddpm(config: Config) -> Table:
    kind = _one(config, "variance_type", "fixed_small", "fixed_small_log", "fixed_large", "learned_range")
    return {} if kind.startswith("fixed_small") else {"name": "ddpm-large"}


SETTINGS: dict[str, Callable[[Config], Table]] = {
    "dpmsolvermultistep": _dpm_solver,
    "edmdpmsolvermultistep": _dpm_solver,
    "cosinedpmsolvermultistep": lambda config: {"order": config.get("solver_order", 2)},
    "dpmsolversinglestep": _singlestep,
    "unipcmultistep": _unipc,
    "deismultistep": _deis,
    "sasolver": _sa_solver,
    "ddpm": _ddpm,
    "ddpmparallel": _ddpm,
    "pndm": lambda config: {"start": "heun" if config.get("skip_prk_steps") else "runge-kutta"},
}


def _table(config: Config) -> Tensor:
    """sigma/alpha at each index."""
    n, low, high = (config.get(k, v) for k, v in (("num_train_timesteps", 1000), *BETAS))
    kind = _one(config, "beta_schedule", "linear", "scaled_linear", "squaredcos_cap_v2")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif kind == "squaredcos_cap_v2":
        bar = ((torch.arange(n + 1, dtype=torch.float64) / n + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    elif kind == "scaled_linear":
        betas = torch.linspace(low**0.5, high**0.5, n, dtype=torch.float64) ** 2
    else:
        betas = torch.linspace(low, high, n, dtype=torch.float64)
    bar = (1 - betas).cumprod(0)
    if config.get("rescale_betas_zero_snr"):
        root = bar.sqrt()
        bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        bar[-1] = 2**-24  # in their words, as near to 0 as half precision allows
    return ((1 - bar) / bar).sqrt()


BETAS = ("beta_start", 0.0001), ("beta_end", 0.02)


def _in_sigma(config: Config, spacing: str) -> Table | None:
    """The spacing in sigma/alpha, if one is asked for; its limits are their table's where it is spread over all."""
    names = {"karras_sigmas": "karras", "exponential_sigmas": "lam", "lu_lambdas": "lam"}
    for setting, grid in names.items():
        if config.get(f"use_{setting}"):
            limits = [config.get("sigma_min"), config.get("sigma_max")]
            if None in limits and spacing != "linspace":
                raise PellucidError(
                    f"timestep_spacing is {spacing!r} and use_{setting} is true, whose limits then move with the "
                    "number of steps; set timestep_spacing to 'linspace'."
                )
            ends = _table(config)[[0, -1]].tolist()
            low, high = (end if own is None else own for own, end in zip(limits, ends, strict=True))
            return {"name": grid, "sigma_min": low, "sigma_max": high}
    return None


def _whole(config: Config, usual: str = "leading", skip: int = 0) -> Table:
    spacing, n = _one(config, "timestep_spacing", usual, "linspace", "leading", "trailing"), _n(config)
    if spacing == "trailing":
        return {"name": spacing, "n": n}
    offset = {"offset": config.get("steps_offset", 0)} if spacing == "leading" else {}
    return {"name": spacing, "n": n, "skip": skip, **offset}


def _solver(config: Config) -> Table:
    """The solvers in lam lay out N + 1 times, or those of a flow."""
    if table := _in_sigma(config, "linspace"):
        return table
    if config.get("use_flow_sigmas"):
        _given(config)
        return _shifted(config, "flow_shift", {"name": "uniform", "high": 1 - 1 / _n(config)})
    return _whole(config, "linspace", 1)


def _unipc_times(config: Config) -> Table:
    """As the others, but its flow begins at 1 and aims at the cleanest index."""
    if _in_sigma(config, "linspace") or not config.get("use_flow_sigmas"):
        return _solver(config)
    _given(config)
    return _shifted(config, "flow_shift", {"name": "uniform", "low": 1 / _n(config)})


def _given(config: Config) -> None:
    if config.get("use_dynamic_shifting"):
        raise PellucidError("use_dynamic_shifting is true, and mu is not said; set it to false and flow_shift to e^mu.")


def _fractional(config: Config) -> Table:
    """Those of k-diffusion do not round "linspace"."""
    spacing, n = _one(config, "timestep_spacing", "linspace", "leading", "trailing"), _n(config)
    if table := _in_sigma(config, spacing):
        return table
    return {"name": "uniform", "low": 1 / n, "skip": 0} if spacing == "linspace" else _whole(config)


def _distilled(config: Config) -> Table:
    return {"name": "distilled", "n": _n(config), "known": config.get("original_inference_steps", 50)}


def _edm(config: Config, usual: str = "karras", low: float = 0.002, high: float = 80.0) -> Table:
    limits = {"sigma_min": config.get("sigma_min", low), "sigma_max": config.get("sigma_max", high)}
    if _one(config, "sigma_schedule", usual, "karras", "exponential") == "exponential":
        return {"name": "lam", **limits}
    return {"name": "karras", "rho": config.get("rho", 7.0), **limits}


def _flow(config: Config) -> Table:
    """From 1 to their cleanest index, which they shift once more with the rest."""
    for setting in ("use_karras_sigmas", "use_exponential_sigmas"):
        if config.get(setting):
            raise PellucidError(
                f"{setting} is true on a flow: theirs is in sigma, ours in sigma/alpha; set it to false."
            )
    first, shift = 1 / _n(config), config.get("shift", 1.0)
    low = first if config.get("use_dynamic_shifting") else shift * first / (1 + (shift - 1) * first)
    return _shifted(config, "shift", {"name": "uniform", "low": low, "skip": 0})


def _shifted(config: Config, setting: str, base: Table) -> Table:
    """`base` shifted by the setting; where mu depends on the picture's size, by that of the largest."""
    shift = config.get(setting, 1.0)
    if config.get("use_dynamic_shifting"):
        mu = config.get("max_shift", 1.15)
        shift = math.exp(mu) if _one(config, "time_shift_type", "exponential", "linear") == "exponential" else mu
    return base if shift == 1 else {"name": "shifted", "shift": shift, "base": base}


def _n(config: Config) -> int:
    return int(config.get("num_train_timesteps", 1000))


GRIDS: dict[str, Callable[[Config], Table]] = {
    **dict.fromkeys(("ddim", "ddimparallel", "ddpm", "ddpmparallel", "pndm"), _whole),
    **dict.fromkeys(("cogvideoxddim", "cogvideoxdpm"), _whole),
    **dict.fromkeys(("dpmsolvermultistep", "deismultistep", "sasolver"), _solver),
    "dpmsolversinglestep": lambda config: _solver({**config, "timestep_spacing": "linspace"}),
    "unipcmultistep": _unipc_times,
    **dict.fromkeys(("eulerdiscrete", "eulerancestraldiscrete", "heundiscrete", "lmsdiscrete"), _fractional),
    **dict.fromkeys(("kdpm2discrete", "kdpm2ancestraldiscrete", "dpmsolversde"), _fractional),
    **dict.fromkeys(("lcm", "tcd"), _distilled),
    **dict.fromkeys(("edmeuler", "edmdpmsolvermultistep"), _edm),
    "cosinedpmsolvermultistep": lambda config: _edm(config, "exponential", 0.3, 500.0),
    **dict.fromkeys(("flowmatcheulerdiscrete", "flowmatchheundiscrete", "flowmatchlcm"), _flow),
}
