"""What is read of diffusers' configurations: their times, their settings, and what is refused.

Theirs is computed in double, so that what is compared are the times and not their rounding.
"""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid import grids, paths, samplers
from pellucid.errors import PellucidError
from pellucid.samplers.names import of_diffusers
from test_parity import Double

diffusers = pytest.importorskip("diffusers", reason="the judge, diffusers, is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # the peer's own

WHOLE = ("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "PNDM", "CogVideoXDDIM", "CogVideoXDPM")
SOLVERS = ("DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "SASolver")
FRACTIONAL = ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete")
FRACTIONAL = (*FRACTIONAL, "KDPM2AncestralDiscrete")
FLOWS = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM")
SPREAD = [
    *((name, f"use_{kind}_sigmas") for name in (*SOLVERS, "DPMSolverSinglestep", "EulerDiscrete", "HeunDiscrete")
      for kind in ("karras", "exponential")),
    ("DPMSolverMultistep", "use_lu_lambdas"),
    ("LMSDiscrete", "use_karras_sigmas"),
]  # fmt: skip
SPACINGS = ("linspace", "leading", "trailing")
STEPS = (1, 2, 7, 10, 24)


def scheduler(name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    module = importlib.import_module(getattr(diffusers, f"{name}Scheduler").__module__)
    for each in ("torch", "np"):
        if hasattr(module, each):
            monkeypatch.setattr(module, each, Double(getattr(module, each)))
    return getattr(module, f"{name}Scheduler")(**settings)


def config_of(peer: Any) -> dict[str, Any]:
    return dict(peer.config) | {"_class_name": type(peer).__name__, "clip_sample": False}


def falling(values: Any) -> Tensor:
    """Without the repetitions of what is asked twice."""
    values = torch.as_tensor(np.asarray(values), dtype=torch.float64)
    return torch.cat([values[:1], values[1:][values.diff() < 0]])


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", [*WHOLE, *SOLVERS, *FRACTIONAL])
def test_their_spacings_are_ours(name: str, spacing: str, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"timestep_spacing": spacing, "steps_offset": offset}
    peer = scheduler(name, settings | ({"skip_prk_steps": True} if name == "PNDM" else {}), monkeypatch)
    grid = grids.registry.make(of_diffusers(config_of(peer))[1])
    for steps in STEPS[name in FRACTIONAL and spacing == "linspace" :]:  # their one step starts at clean data
        peer.set_timesteps(steps)
        theirs = falling(peer.timesteps[::2] if "KDPM2" in name else peer.timesteps)
        torch.testing.assert_close(grid(paths.LinearTable(), steps)[:-1], (theirs + 1) / 1000, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("name, setting", SPREAD)
def test_their_sigmas_are_ours(name: str, setting: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a path that reaches beyond their table, whose first call ours makes at its own end."""
    peer = scheduler(name, {setting: True, "beta_schedule": schedule}, monkeypatch)
    grid, path = grids.registry.make(of_diffusers(config_of(peer))[1]), paths.Flow()
    for steps in STEPS[1:]:
        peer.set_timesteps(steps)
        theirs = falling(peer.sigmas)[:steps]
        ours = torch.exp(-path.lam(grid(path, steps)[:-1]))
        torch.testing.assert_close(ours[1:], theirs[1:], rtol=1e-6, atol=0)
        assert grid.sigma_max == pytest.approx(float(theirs[0]), rel=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [{"rescale_betas_zero_snr": True}, {"trained_betas": [0.01, 0.02, 0.04, 0.3]}])
def test_the_ends_of_a_table_are_theirs(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    peer = scheduler("DPMSolverMultistep", {"use_karras_sigmas": True, **settings}, monkeypatch)
    peer.set_timesteps(3)
    table = of_diffusers(config_of(peer))[1]
    assert [table["sigma_max"], table["sigma_min"]] == pytest.approx(peer.sigmas[[0, 2]].tolist(), rel=1e-6)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", [*FLOWS, *SOLVERS, "DPMSolverSinglestep"])
def test_their_flows_are_ours(name: str, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"shift": shift} if name in FLOWS else {"use_flow_sigmas": True, "flow_shift": shift}
    peer = scheduler(name, settings, monkeypatch)
    grid = grids.registry.make(of_diffusers(config_of(peer))[1])
    for steps in STEPS[1:]:
        peer.set_timesteps(steps)
        theirs = falling(peer.sigmas)[:steps]
        torch.testing.assert_close(grid(paths.Flow(), steps)[:-1], theirs, rtol=1e-6, atol=2e-6)  # UniPC takes 1 - 1e-6


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_their_dynamic_shift_is_that_of_the_largest_picture(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"use_dynamic_shifting": True, "time_shift_type": kind, "shift": 3.0}
    peer = scheduler("FlowMatchEulerDiscrete", settings, monkeypatch)
    peer.set_timesteps(7, mu=1.15)
    grid = grids.registry.make(of_diffusers(config_of(peer))[1])
    torch.testing.assert_close(grid(paths.Flow(), 7), peer.sigmas.double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("known", [50, 40])
@pytest.mark.parametrize("name", ["LCM", "TCD"])
def test_distilled_times_are_ours(name: str, known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = scheduler(name, {"original_inference_steps": known}, monkeypatch)
    grid = grids.registry.make(of_diffusers(config_of(peer))[1])
    for steps in STEPS:
        peer.set_timesteps(steps)
        theirs = (peer.timesteps.double() + 1) / 1000
        torch.testing.assert_close(grid(paths.LinearTable(), steps)[:-1], theirs, rtol=0, atol=1e-12)
    with pytest.raises(PellucidError, match=f"distilled for {known}; take at most"):
        grid(paths.LinearTable(), known + 1)


@pytest.mark.parametrize("settings", [{}, {"sigma_min": 0.01, "sigma_max": 50.0, "rho": 5.0}])
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
@pytest.mark.parametrize("name", ["EDMEuler", "EDMDPMSolverMultistep"])
def test_edms_sigmas_are_ours(
    name: str, schedule: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = scheduler(name, {"sigma_schedule": schedule, **settings}, monkeypatch)
    grid, path = grids.registry.make(of_diffusers(config_of(peer))[1]), paths.Flow()
    for steps in STEPS[1:]:
        peer.set_timesteps(steps)
        ours = torch.exp(-path.lam(grid(path, steps)[1:-1]))
        torch.testing.assert_close(ours, peer.sigmas[1:steps].double(), rtol=1e-6, atol=0)


REFUSED = [
    ("DDIM", {"clip_sample": True}, "clip_sample is True.*guidance.Threshold"),
    ("DPMSolverMultistep", {"thresholding": True}, "thresholding is True"),
    ("DPMSolverMultistep", {"use_beta_sigmas": True}, "use_beta_sigmas is True.*grid 'beta'"),
    ("DPMSolverMultistep", {"algorithm_type": "foo"}, "algorithm_type 'foo'"),
    ("DPMSolverMultistep", {"solver_type": "logrho"}, "solver_type 'logrho'"),
    ("DPMSolverMultistep", {"lambda_min_clipped": -5.1}, "lambda_min_clipped is -5.1"),
    ("DPMSolverMultistep", {"timestep_spacing": "foo"}, "timestep_spacing 'foo'"),
    ("UniPCMultistep", {"solver_type": "logrho"}, "solver_type 'logrho'"),
    ("UniPCMultistep", {"disable_corrector": [0, 1]}, r"disable_corrector is \[0, 1\]"),
    ("DEISMultistep", {"solver_type": "heun"}, "solver_type 'heun'"),
    ("SASolver", {"algorithm_type": "noise_prediction"}, "algorithm_type 'noise_prediction'"),
    ("DDPM", {"variance_type": "learned"}, "variance_type 'learned'"),
    ("EulerDiscrete", {"use_karras_sigmas": True, "timestep_spacing": "leading"}, "set timestep_spacing to 'linspace'"),
    ("EulerDiscrete", {"timestep_type": "continuous"}, "timestep_type is 'continuous'"),
    ("FlowMatchEulerDiscrete", {"stochastic_sampling": True}, "stochastic_sampling is True"),
    ("FlowMatchEulerDiscrete", {"invert_sigmas": True}, "invert_sigmas is True"),
    ("FlowMatchEulerDiscrete", {"shift_terminal": 0.1}, "shift_terminal is 0.1"),
    ("FlowMatchEulerDiscrete", {"use_karras_sigmas": True}, "use_karras_sigmas is true on a flow"),
    ("UniPCMultistep", {"use_flow_sigmas": True, "use_dynamic_shifting": True}, "set it to false and flow_shift to e"),
    ("DEISMultistep", {"use_flow_sigmas": True, "use_dynamic_shifting": True}, "set it to false and flow_shift to e"),
    ("IPNDM", {}, "times of its own; take sampler 'ipndm'"),
    ("UnCLIP", {}, "times of its own; take sampler 'ddpm'"),
]


@pytest.mark.parametrize("name, settings, sentence", REFUSED, ids=str)
def test_what_nothing_here_follows_is_refused(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PellucidError, match=sentence):
        of_diffusers({"_class_name": f"{name}Scheduler", **settings})


def test_settings_that_decide_the_sampler_are_read() -> None:
    def read(name: str, **settings: Any) -> Any:
        return samplers.registry.make(of_diffusers({"_class_name": f"{name}Scheduler", **settings})[0])

    for kind, ours in ("fixed_small", "ddpm"), ("fixed_large", "ddpm-large"), ("learned_range", "ddpm-large"):
        assert read("DDPM", variance_type=kind) == samplers.registry.make(ours)
    three = read("SASolver", predictor_order=3, corrector_order=4)
    assert (three.order, three.corrector) == (3, 4)
    short = read("SASolver", num_train_timesteps=500)
    assert 0 < short.low < short.high == float("inf")
    table = paths.LinearTable()
    times = torch.tensor([0.201, 0.801], dtype=torch.float64)
    torch.testing.assert_close(torch.tensor([three.low, three.high]).double(), torch.exp(-table.lam(times)), rtol=1e-5,
                               atol=0)  # fmt: skip
    for name in ("LCM", "TCD", "DDIMParallel", "DDPMParallel"):
        assert of_diffusers({"_class_name": f"{name}Scheduler"})[1]["name"] in ("leading", "distilled")
