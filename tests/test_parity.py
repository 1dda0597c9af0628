"""Parity: on the same grid with the same noise, ours are diffusers' schedulers to 1e-10 wherever those are right.

The peer computes in double here: its modules see a torch and a numpy whose float32 is float64, so that what is compared
is the algorithm and not its rounding. Where it is wrong both errors are measured against the exact answer.
"""

import importlib
import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid import grids, paths, predictions, sampling
from pellucid.explain.verify.theorem import mixture
from pellucid.noise import normal
from pellucid.paths import Path
from pellucid.samplers import registry
from pellucid.samplers.names import of_diffusers
from pellucid.types import Batch, Bound, Denoise, Denoised, State, Times, along

diffusers = pytest.importorskip("diffusers", reason="the judge, diffusers, is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # the peer's own

N = 8
INDEX = torch.arange(N)
TABLE = paths.LinearTable()


class Double(ModuleType):
    """A module whose float32 is float64."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def noise(step: int) -> Tensor:
    return normal(3, INDEX, step, (2,), stream=1, dtype=torch.float64)


@dataclass
class Network:
    """A small random network that predicts v: a Denoise that is nobody's oracle."""

    path: Path

    def __call__(self, x: Batch, t: Times) -> Denoised:
        w = [normal(9, torch.arange(16), k, (2,), dtype=torch.float64) for k in range(2)]
        scale = along(torch.hypot(self.path.alpha(t), self.path.sigma(t)), x)
        v = torch.tanh(x / scale @ w[0].T + along(self.path.lam(t).clamp(-9, 9), x) / 3) @ w[1] / 4
        return predictions.solve(predictions.registry.make("v"), self.path, x, v, t)


@dataclass(frozen=True)
class Case:
    """One scheduler: its settings, ours, and the units in which it speaks."""

    peer: str
    ours: str | dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    path: Path = TABLE
    scaled: bool = False  # its sample is x / alpha
    speaks: str = "eps"
    clock: str = "sigma"
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 10

    def __str__(self) -> str:
        return "-".join([self.peer, *(str(v) for v in self.settings.values())])


def make(case: Case, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scheduler, in double."""
    module = importlib.import_module(getattr(diffusers, f"{case.peer}Scheduler").__module__)
    for name in ("torch", "np"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, Double(getattr(module, name)))
    if hasattr(module, "randn_tensor"):
        draws = iter(range(1000))
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise(next(draws)))
    scheduler = getattr(module, f"{case.peer}Scheduler")(**case.settings)
    scheduler.set_timesteps(case.steps)
    if case.peer == "IPNDM":  # begin where alpha > 0: at alpha = 0 it forgets x0 in its first step
        times = torch.linspace(0.98, 0, case.steps + 1, dtype=torch.float64)
        scheduler.timesteps, angle = times[:-1], times * math.pi / 2
        scheduler.betas, scheduler.alphas = angle.sin(), angle.cos()
    return scheduler


def asked(case: Case, scheduler: Any) -> Times:
    """The time of each of the scheduler's calls, and its end."""
    if case.clock == "index":
        return torch.cat([(scheduler.timesteps.double() + 1) / 1000, torch.zeros(1, dtype=torch.float64)])
    if case.clock == "t":
        return torch.cat([scheduler.timesteps.double(), torch.zeros(1, dtype=torch.float64)])
    sigmas = scheduler.sigmas.double().clone()
    if hasattr(scheduler, "sigmas_interpol"):
        shift = 0 if "Ancestral" in case.peer else 1  # which of two equal numbers stands for the middle
        sigmas[1::2] = scheduler.sigmas_interpol[shift::2][: len(sigmas[1::2])].double()
        sigmas[-2:] = 0
    return sigmas if isinstance(case.path, paths.Flow) else case.path.time(-sigmas.log())


def theirs(case: Case, scheduler: Any, denoise: Denoise, x: Tensor) -> Tensor:
    """What diffusers makes of x."""
    speaks, times = predictions.registry.make(case.speaks), asked(case, scheduler)
    sample = x / case.path.alpha(times[:1]) if case.scaled else x
    for i, timestep in enumerate(scheduler.timesteps):
        t = times[i].expand(N)
        at = along(case.path.alpha(t), x) * sample if case.scaled else sample
        d = denoise(at, t)
        said = speaks.target(case.path, d.x0, d.eps, t)
        if case.scaled:
            scheduler.scale_model_input(sample, timestep)
        extra = {"variance_noise": noise(i)} if "sde" in str(case.settings.get("algorithm_type")) else {}
        sample = scheduler.step(said, timestep, sample, return_dict=False, **extra, **case.options)[0]
    return sample


def grid(case: Case, scheduler: Any) -> Times:
    """The ends of the scheduler's steps."""
    times = asked(case, scheduler)
    if case.clock == "index" and len(times) > case.steps + 1:  # PNDM asks again at the start
        return grids.Leading()(case.path, case.steps)
    if hasattr(scheduler, "sigmas_interpol"):
        return torch.cat([times[::2], times[-1:]])[: case.steps + 1]
    return times[torch.cat([torch.ones(1, dtype=torch.bool), times.diff() < 0])]


def ours(case: Case, times: Times, denoise: Denoise, x: Tensor) -> Tensor:
    sampler = registry.make(case.ours)
    state = sampler.init(x, times[:1].expand(N))
    for i, (s, c) in enumerate(zip(times[1:], sampler.prepare(case.path, times), strict=True)):
        state = sampler.move(denoise, state, s.expand(N), c, lambda k, i=i: noise(i))
    return state.x


def multistep(**options: Any) -> dict[str, Any]:
    return {"name": "multistep", **options}


LOW = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
BH = {"bh1": "taylor", "bh2": "midpoint"}
EDM = {"path": paths.EDM(), "scaled": False, "speaks": "edm"}
FLOW = {"path": paths.Flow(), "speaks": "velocity"}
CASES = [
    Case("DDIM", "ddim", {"clip_sample": False}, clock="index"),
    Case("DDPM", "ddpm", {"clip_sample": False}, clock="index"),
    Case("PNDM", "plms", {"skip_prk_steps": True, "set_alpha_to_one": True}, clock="index"),
    Case("PNDM", "pndm", {"skip_prk_steps": False, "set_alpha_to_one": True}, clock="index"),
    Case("IPNDM", "ipndm", path=paths.Cosine(s=0.0), speaks="v", clock="t"),
    Case("EulerDiscrete", "euler", scaled=True),
    Case("EulerDiscrete", "euler", {"use_karras_sigmas": True}, scaled=True),
    Case("EulerAncestralDiscrete", "ddpm", scaled=True),
    Case("HeunDiscrete", "heun", scaled=True),
    Case("KDPM2Discrete", "dpm-2", scaled=True),
    *(Case("LMSDiscrete", multistep(order=k, variable="eps", clock="sigma"), scaled=True, options={"order": k})
      for k in (1, 2, 3, 4)),
    *(Case("DPMSolverMultistep", name, {"solver_order": k, "solver_type": kind, "use_karras_sigmas": karras})
      for name, k, kind in (("euler", 1, "midpoint"), ("dpmpp-2m", 2, "midpoint"), ("dpmpp-2m-heun", 2, "heun"))
      for karras in (False, True)),
    *(Case("DPMSolverMultistep", multistep(order=2, variable="eps", rule=rule),
           {"solver_type": kind, "algorithm_type": "dpmsolver", **LOW})
      for rule, kind in (("midpoint", "midpoint"), ("exact", "heun"))),
    Case("DPMSolverMultistep", "dpmpp-2m-sde", {"algorithm_type": "sde-dpmsolver++"}),
    *(Case("UniPCMultistep", multistep(order=k + 1, rule=BH[bh], mode="correct", variable=variable),
           {"solver_order": k, "solver_type": bh, "predict_x0": variable == "x0", **LOW})
      for k in (1, 2, 3) for bh in BH for variable in ("x0", "eps")),
    Case("UniPCMultistep", "unipc", {"use_karras_sigmas": True}),
    *(Case("DPMSolverSinglestep", {"name": "singlestep", "order": k, "rule": rule, "variable": variable},
           {"solver_order": k, "solver_type": kind, "algorithm_type": algorithm, "use_karras_sigmas": karras,
            "final_sigmas_type": "zero" if variable == "x0" else "sigma_min"}, steps=steps)
      for k in (2, 3) for rule, kind in (("midpoint", "midpoint"), ("exact", "heun"))
      for variable, algorithm, karras, steps in (
          ("x0", "dpmsolver++", False, 10), ("x0", "dpmsolver++", True, 11), ("eps", "dpmsolver", False, 12))),
    *(Case("DEISMultistep", multistep(order=k, variable="eps"), {"solver_order": k, "lower_order_final": False})
      for k in (1, 2, 3)),
    Case("KDPM2AncestralDiscrete", "dpm2-a", scaled=True),
    Case("EDMEuler", "euler", **EDM),
    Case("EDMDPMSolverMultistep", "dpmpp-2m", **EDM),
    Case("FlowMatchEulerDiscrete", "euler", **FLOW),
    Case("FlowMatchHeunDiscrete", "flow-heun", **FLOW),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("who", ["oracle", "network"])
def test_ours_is_theirs(case: Case, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    denoise: Denoise = Bound(mixture().at(case.path)) if who == "oracle" else Network(case.path)
    scheduler = make(case, monkeypatch)
    times = grid(case, scheduler)
    x = along(case.path.sigma(times[:1].expand(N)), noise(99)) * noise(99) + 0.1
    expected = theirs(case, scheduler, denoise, x)
    got = ours(case, times, denoise, x) / (case.path.alpha(times[-1]) if case.scaled else 1)
    gap = float((got - expected).abs().max() / expected.abs().max())
    assert len(times) == case.steps + 1 and gap <= 1e-10, (gap, times)


@pytest.mark.parametrize("case", [case for case in CASES if case.peer not in ("LMSDiscrete", "IPNDM")], ids=str)
def test_their_configurations_are_read(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """scheduler_config.json -> the sampler that was just found to be the same; their times are in test_diffusers.py."""
    scheduler = make(case, monkeypatch)
    config = dict(scheduler.config) | {"_class_name": type(scheduler).__name__}
    sampler, _ = of_diffusers(config)
    assert registry.make(sampler) == registry.make(case.ours)


def exact(path: Path, x: Tensor, times: Times, parts: int = 6) -> list[Tensor]:
    """The flow of the oracle through all times: the classical Runge-Kutta method, each step in parts."""
    points, rk4 = [x], registry.make("rk4")
    for t, s in zip(times, times[1:], strict=False):
        part = path.time(torch.linspace(float(path.lam(t)), float(path.lam(s)), parts + 1, dtype=torch.float64))
        for a, b in zip(part, part[1:], strict=False):
            x = rk4.step(Bound(mixture().at(path)), State(x, a.expand(N)), b.expand(N), noise).x
        points.append(x)
    return points


def end(case: Case, sigmas: Tensor, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Theirs and ours through these sigmas."""
    scheduler, denoise = make(case, monkeypatch), Bound(mixture().at(TABLE))
    scheduler.sigmas, times = sigmas, TABLE.time(-sigmas.log())
    return theirs(case, scheduler, denoise, x), ours(case, times, denoise, x)


@pytest.mark.parametrize("predictor, corrector", [(2, 2), (3, 3)])
def test_sa_solver_is_theirs_as_the_steps_grow(predictor: int, corrector: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the noise of tau = 1. At order 2 their weights leave the integral by O(h^3), on purpose; ours do not."""
    gaps = []
    for steps in (20, 40, 80):  # by 160 the gap of the third order is down to 1e-6, where it stays
        settings = {"predictor_order": predictor, "corrector_order": corrector, "tau_func": lambda t: 1.0}
        sde = {"name": "extended-sde", "order": predictor, "corrector": corrector}
        case = Case("SASolver", sde, {**settings, "lower_order_final": False}, steps=steps)
        sigmas = torch.logspace(0.5, -1, steps + 1, dtype=torch.float64)
        a, b = end(case, sigmas, noise(99), monkeypatch)
        gaps.append(float((a - b).abs().mean() / b.abs().mean()))
    assert gaps[0] < 1e-2 and gaps[0] > 6 * gaps[2], gaps
    assert gaps[1] > 3 * gaps[2] or gaps[2] < 1e-6, gaps  # where nothing is left but their float32


def test_where_their_ddim_stops_converging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their stride is 1000 // N, whatever the grid says: where N does not divide 1000 the steps do not meet."""
    x, denoise = noise(99), Bound(mixture().at(TABLE))
    start = float(TABLE.lam(torch.ones((), dtype=torch.float64)))
    truth = exact(TABLE, x, TABLE.time(torch.linspace(start, 12, 100, dtype=torch.float64)), parts=2)
    gaps = []
    for steps in (80, 160):
        case = Case("DDIM", "ddim", {"clip_sample": False, "timestep_spacing": "trailing"}, clock="index", steps=steps)
        scheduler = make(case, monkeypatch)
        ends = theirs(case, scheduler, denoise, x), ours(case, asked(case, scheduler), denoise, x)
        gaps.append([float((end - truth[-1]).abs().mean()) for end in ends])
    assert gaps[1][0] > 0.9 * gaps[0][0] and gaps[1][1] < 0.6 * gaps[0][1] and 2 * gaps[1][1] < gaps[1][0], gaps


def test_where_their_third_order_is_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their quadratic term lacks a factor 2. From an exact past: their slope, and ours."""
    gaps = []
    for steps in (40, 80):
        case = Case("DPMSolverMultistep", "dpmpp-3m", {"solver_order": 3, **LOW}, steps=steps)
        sigmas = torch.logspace(0.5, -1, steps + 1, dtype=torch.float64)
        scheduler, denoise, times = make(case, monkeypatch), Bound(mixture().at(TABLE)), TABLE.time(-sigmas.log())
        scheduler.sigmas, truth = sigmas, exact(TABLE, noise(99), times, parts=2)
        sampler, sample = registry.make("dpmpp-3m"), truth[0]
        state, numbers = sampler.init(truth[0], times[:1].expand(N)), sampler.prepare(TABLE, times)
        for i, timestep in enumerate(scheduler.timesteps):
            if i < 3:
                sample, state = truth[i], state._replace(x=truth[i])
            sample = scheduler.step(denoise(sample, times[i].expand(N)).eps, timestep, sample, return_dict=False)[0]
            state = sampler.move(denoise, state, times[i + 1].expand(N), numbers[i], noise)
        gaps.append([float((end - truth[-1]).abs().mean()) for end in (sample, state.x)])
    slopes = [math.log2(a / b) for a, b in zip(*gaps, strict=True)]
    assert slopes[0] < 2.3 and slopes[1] > 2.85 and gaps[1][1] < gaps[1][0] / 5, (slopes, gaps)


def test_where_their_ancestral_noise_is_not_a_number() -> None:
    """Few steps of the cosine schedule: sigma_to^2 - sigma_up^2 cancels below 0 in single precision."""
    scheduler = diffusers.EulerAncestralDiscreteScheduler(beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(4)
    sample = torch.ones(1, 2) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scheduler.scale_model_input(sample, t)
        sample = scheduler.step(torch.zeros(1, 2), t, sample, return_dict=False)[0]
    path = paths.CosineTable()
    state = sampling.sample(mixture().at(path), 4, sampler="euler_ancestral", steps=4, grid="linspace")
    assert sample.isnan().any() and state.isfinite().all()


def test_where_their_karras_grid_stands_still() -> None:
    """On the cosine schedule their noise levels are rounded to whole indices, of which many are one; ours all fall."""
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    scheduler.set_timesteps(20)
    times = grids.Karras()(paths.CosineTable(), 20)
    assert len(set(scheduler.timesteps.tolist())) < 20 and bool((times.diff() < 0).all()) and len(times) == 21
