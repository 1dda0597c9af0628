"""The general solvers beyond their presets, the adaptive ones, inversion, and names."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid import PellucidError, grids, paths, samplers
from pellucid.explain.verify.orders import TOLERANCES, Problem, quantiles, strayed
from pellucid.explain.verify.theorem import all_paths, all_samplers, mixture, times
from pellucid.noise import normal
from pellucid.paths import Path
from pellucid.samplers import Adaptive, Multistep, Pseudo, RungeKutta, Sampler
from pellucid.samplers.form import Form
from pellucid.samplers.names import of_diffusers, split
from pellucid.sampling import Counted, Scheme, invert, sample
from pellucid.types import Batch, Bound, Denoised, State, Times

ORACLE = mixture().at(paths.Cosine())
FORMS = [("x0", "lam"), ("eps", "lam"), ("eps", "sigma"), ("eps", "t"), ("x0", "sigma"), ("x0", "t"), ("velocity", "t")]
on_paths = pytest.mark.parametrize("path", [paths.Cosine(), paths.VP(), paths.Flow()], ids=["cosine", "vp", "flow"])


def draw(n: int = 6) -> Tensor:
    return normal(5, torch.arange(n), 0, (2,), dtype=torch.float64)


# Forms: what is integrated exactly


@pytest.mark.parametrize("variable, clock", FORMS)
@on_paths
def test_weights_integrate_polynomials_in_their_clock(path: Path, variable: Any, clock: Any) -> None:
    """sum_j W_j p(tau_j) = psi_s int p dq by brute force, and a node at infinity leaves the others' polynomial."""
    form, (t, s) = Form(variable, clock), path.time(times(-1.0, 0.4)).split(1)
    nodes = [form.tau(path, path.time(times(lam))) for lam in (-1.0, -1.7, 0.1)]
    q = {"x0": lambda u: torch.exp(path.lam(u)), "eps": lambda u: torch.exp(-path.lam(u)), "velocity": lambda u: u}[
        variable
    ]
    psi = {"x0": path.sigma(s), "eps": path.alpha(s), "velocity": 1.0}[variable]
    u = torch.linspace(float(t), float(s), 40_001, dtype=torch.float64)
    for degree in (0, 1, 2):
        force = psi * torch.trapezoid((p := form.tau(path, u) ** degree), q(u))
        got = sum(w * tau**degree for w, tau in zip(form.weights(path, t, s, nodes), nodes, strict=True))
        torch.testing.assert_close(got, force.expand(1), rtol=1e-7, atol=1e-9)
        assert p.isfinite().all()
    far = [nodes[0], torch.full_like(t, torch.inf), nodes[2]]
    first, none, last = form.weights(path, t, s, far)
    torch.testing.assert_close(torch.stack([first, last]), torch.stack(form.weights(path, t, s, far[::2])))
    assert none == 0


def test_lms_is_the_classical_method_on_equal_steps() -> None:
    """Adams and Bashforth's weights, 55/24 -59/24 37/24 -9/24, and UniPC's corrector is Adams and Moulton's."""
    form, path, s = Form("eps", "sigma"), paths.VE(), paths.VE().time(-times(1.0).log())
    nodes = [times(tau) for tau in (2.0, 3.0, 4.0, 5.0)]
    weights = form.weights(path, path.time(-times(2.0).log()), s, nodes)
    torch.testing.assert_close(torch.cat(weights), -times(55, -59, 37, -9) / 24)
    moulton = form.weights(path, path.time(-times(2.0).log()), s, [times(tau) for tau in (1.0, 2.0, 3.0)])
    torch.testing.assert_close(torch.cat(moulton), -times(5, 8, -1) / 12)


def test_gradient_estimation_of_second_order_is_its_formula() -> None:
    """gamma = 1 + h_n / (2 h_(n-1)), steps in sigma/alpha; gamma = 2 is the tuned one."""
    path = paths.VE()
    sigma = times(3.0, 2.2, 1.8)
    grid, denoise = path.time(-sigma.log()), Bound(mixture().at(path))
    for sampler, gamma in (
        (samplers.registry.make("gradient-estimation-2"), 1 + 0.4 / 1.6),
        (Pseudo(2, gamma=2.0), 2.0),
    ):
        begin = sampler.init(3 * draw(), grid[:1].expand(6))
        middle = sampler.step(denoise, begin, grid[1:2].expand(6), lambda k: draw())
        end = sampler.step(denoise, middle, grid[2:].expand(6), lambda k: draw())
        old, new = (denoise(state.x, state.t).eps for state in (begin, middle))
        torch.testing.assert_close(end.x, middle.x + (sigma[2] - sigma[1]) * (gamma * new + (1 - gamma) * old))


@pytest.mark.soak
@on_paths
def test_every_setting_has_its_order(path: Path) -> None:
    problem = Problem(mixture(1).at(path), quantiles(mixture(1).at(path)))
    found = [Multistep(order=k, variable=v, clock=c) for v, c in FORMS for k in (1, 2, 3, 4)]
    found += [Multistep(order=k, variable=v, clock=c, mode="correct", rule=rule) for v, c in FORMS for k in (2, 3, 4)
              for rule in ("exact", "midpoint", "taylor")]  # fmt: skip
    methods = "euler", "midpoint", "heun", "third", "bosh3", "rk4"
    settings: list[Sampler] = [*found, *(RungeKutta(m, v, c) for m in methods for v, c in FORMS)]
    slopes = {repr(sampler): problem.slope(sampler) - sampler.order for sampler in settings}
    assert all(abs(gap) < 0.15 for gap in slopes.values()), {k: v for k, v in slopes.items() if abs(v) >= 0.15}


# Adaptive


@pytest.mark.parametrize("pair", ["dopri5", "bosh3"])
def test_the_error_follows_the_tolerance(pair: str) -> None:
    """Over four decades within a factor of 5; a smaller tolerance takes more calls."""
    ratios, calls = zip(*(strayed(pair, paths.VP(), tolerance, 32) for tolerance in TOLERANCES), strict=True)
    assert all(0.2 < ratio < 5 for ratio in ratios), ratios
    assert sorted(calls) == list(calls) and calls[-1] > 2 * calls[0], calls


@pytest.mark.parametrize("pair", ["dopri5", "bosh3"])
def test_each_sample_has_its_own_steps(pair: Any) -> None:
    """Alone or among strangers at other times: the same bits, the same number of calls; calls are counted truly."""
    sampler, counted = Adaptive(pair, 1e-5, 1e-5), Counted(ORACLE)
    ends = [(0.9, 0.2), (1.0, 0.0), (0.1, 0.05), (0.5, 0.0)]
    alone = []
    for i, (t, s) in enumerate(ends):
        before = counted.calls
        state = sampler.step(Bound(counted), sampler.init(draw()[i : i + 1], times(t)), times(s), lambda k: draw())
        assert float(state.memory[1]) == counted.calls - before
        alone.append(state)
    begun = [sampler.init(draw()[i : i + 1], times(t)) for i, (t, _) in enumerate(ends)]
    joined = sampler.step(Bound(ORACLE), State.cat(begun), times(*(s for _, s in ends)), lambda k: draw())
    for a, b in zip(alone, joined.split([1] * 4), strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.memory[1], b.memory[1])


def test_adaptive_is_the_same_on_every_path() -> None:
    """Between equal lams, in the units of y = x/r."""
    found = []
    for path in all_paths().values():
        t, s = (u.expand(6) for u in path.time(times(-1.5, 3.0)).split(1))
        r = [torch.hypot(path.alpha(u), path.sigma(u))[:, None] for u in (t, s)]
        sampler = Adaptive()
        end = sampler.step(Bound(mixture().at(path)), sampler.init(r[0] * draw(), t), s, lambda k: draw())
        found.append(end.x / r[1])
    torch.testing.assert_close(torch.stack(found), found[0].expand(len(found), 6, 2), rtol=1e-8, atol=1e-8)


class Nonsense:
    """A Denoise too rough to follow; it must not be asked at t = 0."""

    path = paths.Cosine()

    def __call__(self, x: Batch, t: Times) -> Denoised:
        assert (t > 0).all() and (t <= 1).all()
        said = 3 * torch.sin(5 * x + 700 * t[:, None])
        return Denoised(said, -said)


def test_a_rough_network_ends_too() -> None:
    sampler = Adaptive(rtol=1e-9, atol=1e-9, least=0.02)
    state = sampler.step(Nonsense(), sampler.init(draw(), times(1.0).expand(6)), times(0.0).expand(6), lambda k: draw())
    assert state.x.isfinite().all() and float(state.memory[1].max()) < 7 * math.pi / 2 / 0.02


def test_an_adaptive_sampler_samples_by_name() -> None:
    """On its own and stopping at a grid, in single precision too."""
    free, stopped = (sample(ORACLE, 20, sampler="dopri5", steps=steps, seed=1) for steps in (1, 6))
    fine = sample(ORACLE, 20, sampler="dpmpp-3m", steps=400, seed=1)
    assert float((free - fine).abs().max()) < 5e-3 and float((stopped - fine).abs().max()) < 5e-3
    sampler, t = Adaptive(), times(1.0).expand(6)
    state = sampler.step(Bound(ORACLE), sampler.init(draw().float(), t), 0 * t, lambda k: draw())
    assert state.x.dtype == torch.float32 and state.t.dtype == torch.float64


# Inversion


@on_paths
def test_there_and_back(path: Path) -> None:
    """The round trip's error falls with the sampler's order, and with fixed points only the last step's is left."""
    x = mixture().sample(16, seed=5)
    errors = {k: float(invert(mixture().at(path), x, steps=k).error.mean()) for k in (40, 80)}
    assert 1.7 < errors[40] / errors[80] < 2.3
    found = invert(mixture().at(path), x, sampler="heun", steps=40, rounds=8)
    assert float(found.error.max()) < 1e-4
    again = ((found.back - x) ** 2).mean(1).sqrt()
    torch.testing.assert_close(found.error, again)


def test_the_noise_found_is_the_flows_own() -> None:
    """Inverting samples finds the noise that they were drawn from."""
    x = sample(ORACLE, 16, sampler="rk4", steps=100, seed=4)
    found = invert(ORACLE, x, sampler="rk4", steps=100, rounds=3)
    start = normal(4, torch.arange(16), 0, (2,), dtype=torch.float64)
    assert float((found.noise - start).abs().mean()) < 2e-3


@pytest.mark.parametrize("name, rounds", [("ddpm", 0), ("dopri5", 0), ("dpmpp-2m", 2), ("edm", 0)])
def test_what_has_no_inverse_says_so(name: str, rounds: int) -> None:
    with pytest.raises(PellucidError, match="no exact inverse; take"):
        invert(ORACLE, draw(), sampler=name, rounds=rounds)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"x": torch.zeros(2, 3)}, r"x is of shape \[2, 3\]; expected samples of \[2\]"),
        ({"x": torch.zeros(2)}, r"x is of shape \[2\]; expected"),
        ({"x": torch.full((1, 2), math.nan)}, "x holds numbers that are not finite"),
        ({"steps": 1}, "steps is 1; expected a whole number, 2 or more"),
        ({"rounds": -1}, "rounds is -1; expected a whole number, 0 or more"),
        ({"rounds": 1.5}, "rounds is 1.5; expected"),
        ({"grid": "restart"}, "the grid goes back up"),
    ],
)
def test_what_cannot_be_inverted_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PellucidError, match=sentence):
        invert(ORACLE, **{"x": torch.zeros(1, 2)} | wrong)


# Names


@pytest.mark.parametrize(
    "label, sampler, grid",
    [
        ("DPM++ 2M Karras", "dpmpp-2m", "karras"),
        ("DPM++ 2M SDE Exponential", "dpmpp-2m-sde", "lam"),
        ("DPM++ 2M Beta", "dpmpp-2m", "beta"),
        ("DPM++ 2M KL Optimal", "dpmpp-2m", "kl-optimal"),
        ("Euler SGM Uniform", "euler", "uniform"),
        ("Euler Polyexponential", "euler", "lam"),
        ("LMS Karras", "lms", "karras"),
        ("Euler Uniform", "euler", "linspace"),
        ("Euler Automatic", "euler", None),
        ("DPM++ 2M DDIM", "dpmpp-2m", "ddim-uniform"),
        ("DPM++ 2M DDIM Uniform", "dpmpp-2m", "ddim-uniform"),
        ("DDIM", "ddim", None),
        ("Euler a Turbo", "ddpm", "trailing"),
        ("DPM2 Karras", "dpm-2", "karras"),
        ("Euler a", "ddpm", None),
        ("uni_pc_bh2", "unipc-3", None),
        ("UniPCMultistepScheduler", "unipc", None),
        ("sample_dpm_2", "dpm-2", None),
        ("sample_lms", "lms", None),
        ("PLMS", "plms", None),
        ("ipndm_v", "lms", None),
    ],
)
def test_labels_are_a_sampler_and_a_grid(label: str, sampler: str, grid: str | None) -> None:
    name, named = split(label)
    assert samplers.registry.make(name) == samplers.registry.make(sampler) and named == grid
    scheme = Scheme.make(paths.VP(), label, 7, "scales")
    assert torch.equal(scheme.times, grids.registry.make(grid or "scales")(paths.VP(), 7))


@pytest.mark.parametrize(
    "label, sentence",
    [
        ("DDIM CFG++", "take it with the guidance cfg"),
        ("DDIM CFG++ Karras", "take it with the guidance cfg"),
        ("DPM++ 2M Align Your Steps", "fit one to yours: pellucid tune"),
        ("Euler a AYS", "fit one to yours: pellucid tune"),
    ],
)
def test_labels_of_what_is_not_here_are_answered_by_a_sentence(label: str, sentence: str) -> None:
    with pytest.raises(PellucidError, match=sentence) as caught:
        Scheme.make(paths.VP(), label, 7, "scales")
    assert len(str(caught.value)) < 150


def test_no_name_stands_for_two_samplers() -> None:
    """Aliases are unique, presets differ from each other, and each makes itself again from its table."""
    assert len(all_samplers()) >= 30
    for name in samplers.registry.names():
        made = samplers.registry.make(name)
        assert samplers.registry.make(samplers.registry.describe(made)) == made
    presets = list(samplers.registry.presets.values())
    assert len(set(presets)) == len(presets)
    with pytest.raises(PellucidError, match="did you mean 'dpmpp-2m'"):
        samplers.registry.make("dpmp-2m")


def test_a_configuration_that_is_none_says_so() -> None:
    with pytest.raises(PellucidError, match="did you mean 'ddimscheduler'"):
        of_diffusers({"_class_name": "DIMScheduler"})
