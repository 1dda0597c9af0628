"""Stochastic samplers: what their papers say, computed another way; their order in law; what keeps it exactly."""

import itertools
import json
import math
import pathlib
import re

import pytest
import torch
from torch import Tensor

from pellucid import PellucidError, paths, samplers
from pellucid.explain.verify import certify, page, tolerances
from pellucid.explain.verify.certificate import PATHS
from pellucid.explain.verify.laws import bias, variance_bias
from pellucid.explain.verify.orders import Problem, quantiles
from pellucid.explain.verify.steps import run
from pellucid.explain.verify.theorem import all_samplers, mixture, times
from pellucid.grids import Grid, Karras, Restart
from pellucid.noise import normal
from pellucid.oracle import GaussianMixture
from pellucid.paths import Path
from pellucid.samplers import (
    DDPM,
    Ancestral,
    ExponentialSDE,
    ExtendedSDE,
    Langevin,
    Multistep,
    Renoise,
    ReverseSDE,
    RungeKutta,
    Sampler,
)
from pellucid.sampling import Scheme, sample
from pellucid.sampling import walk as steps
from pellucid.types import Batch, Bound, Denoised, State, Times, along

MIDPOINT = samplers.registry.make("midpoint")
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "samplers.md"
MIDPOINT = RungeKutta("midpoint", "x0", "lam")
on_paths = pytest.mark.parametrize("path", [paths.Cosine(), paths.VP(), paths.VE()], ids=["cosine", "vp", "ve"])


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def draw(draw: int = 0, n: int = 6) -> Tensor:
    return normal(5, torch.arange(n), draw, (2,), dtype=torch.float64)


class Told:
    """A Denoise that says x0 = f(lam), whatever x is; or f(lam) + g x."""

    def __init__(self, path: Path, f, spread: Tensor | None = None) -> None:
        self.path, self.f, self.spread = path, f, spread

    def __call__(self, x: Batch, t: Times) -> Denoised:
        x0 = self.f(along(self.path.lam(t), x)) + 0 * x
        return Denoised(x0, (x - along(self.path.alpha(t), x) * x0) / along(self.path.sigma(t), x), self.spread)


def walk(sampler: Sampler, denoise, x: Tensor, grid: Times, noise=draw) -> list[State]:
    states = [sampler.init(x, grid[:1].expand(len(x)))]
    for s in grid[1:]:
        states.append(sampler.step(denoise, states[-1], s.expand(len(x)), noise))
    return states


# One family, many names


@pytest.mark.parametrize(
    "one, other",
    [
        *((ExtendedSDE(order, rho=rho), Multistep(order, rho)) for order in (1, 2, 3) for rho in (0.0, 0.5, 1.0)),
        (Renoise(Multistep(1), eta=0.3), Ancestral(0.3)),
        (Renoise(MIDPOINT, eta=0.0), MIDPOINT),
        (ExponentialSDE(rho=0.0), MIDPOINT),
        (DDPM("small"), Ancestral(1.0)),
    ],
    ids=str,
)
@on_paths
def test_general_samplers_contain_the_special_ones(one: Sampler, other: Sampler, path: Path) -> None:
    close(run(one, path), run(other, path), 1e-11)


@pytest.mark.parametrize(
    "sampler, order",
    [
        (ExtendedSDE(2, rho=0.0, clock="sigma"), 2),
        (ExtendedSDE(3, rho=0.0, clock="sigma"), 3),
        (ExtendedSDE(4, rho=0.0), 4),
        (ExtendedSDE(1, corrector=2, rho=0.0), 2),
        (ExtendedSDE(2, corrector=3, rho=0.0), 3),
        (ExtendedSDE(2, corrector=3, rho=0.0, mode="PECE"), 3),
        (ReverseSDE(1, rho=0.0), 1),
        (ReverseSDE(2, rho=0.0), 2),
    ],
    ids=str,
)
def test_without_noise_the_order_is_the_declared_one(sampler: Sampler, order: int) -> None:
    """A corrector of q nodes lifts a predictor of order p to min(p + 1, q)."""
    oracle = mixture(1).at(paths.Cosine())
    assert Problem(oracle, quantiles(oracle)).slope(sampler) == pytest.approx(order, abs=0.15)


# What the papers say


@pytest.mark.parametrize("mode", ["PEC", "PECE"])
@pytest.mark.parametrize("rho", [0.3, 1.0])
@on_paths
def test_sa_solver_integrates_polynomials_in_lam_exactly(path: Path, rho: float, mode: str) -> None:
    """Xue et al. 2023, eq. 5, with tau^2 = rho, by brute force: a corrector of 3 nodes is exact for quadratics."""
    grid = path.time(times(-1.0, -0.6, 0.3, 0.8, 1.1))
    lams, x0 = path.lam(grid), lambda lam: 1 + 2 * lam - 3 * lam**2
    states = walk(ExtendedSDE(2, corrector=3, mode=mode, rho=rho), Told(path, x0), draw(1), grid)  # type: ignore[arg-type]
    *_, base, owed = states[3].memory
    corrected = states[3].x if mode == "PECE" else base + owed[:, None] * x0(lams[3])
    *_, base, owed = states[2].memory
    start = states[2].x if mode == "PECE" else base + owed[:, None] * x0(lams[2])
    h = lams[3] - lams[2]
    u = torch.linspace(0, float(h), 20_001, dtype=torch.float64)
    force = torch.trapezoid((1 + rho) * torch.exp(-(1 + rho) * (h - u)) * x0(lams[2] + u), u)
    kept = path.sigma(grid[3]) / path.sigma(grid[2]) * torch.exp(-rho * h) * start
    fresh = path.sigma(grid[3]) * (1 - torch.exp(-2 * rho * h)).sqrt() * draw(0)
    close(corrected, kept + path.alpha(grid[3]) * force + fresh, 1e-8)


@on_paths
def test_er_sde_is_equation_13(path: Path) -> None:
    """Cui et al. 2023, in y = x/alpha, r = sigma/alpha, phi(r) = r (exp(r^0.3) + 10), the integral by brute force."""
    grid = path.time(times(-1.0, -0.5, 0.2))
    first, second = walk(ExtendedSDE(2, noise="er", clock="sigma"), Told(path, torch.tanh), draw(1), grid)[1:]
    r, lams = torch.exp(-path.lam(grid)), path.lam(grid)
    phi = lambda r: r * (torch.exp(r**0.3) + 10)  # noqa: E731
    u = torch.linspace(float(r[2]), float(r[1]), 20_001, dtype=torch.float64)
    ratio, slope = phi(r[2]) / phi(r[1]), (torch.tanh(lams[1]) - torch.tanh(lams[0])) / (r[1] - r[0])
    y = ratio * first.x / path.alpha(grid[1]) + (1 - ratio) * torch.tanh(lams[1])
    y = y + slope * (r[2] - r[1] + phi(r[2]) * torch.trapezoid(1 / phi(u), u))
    y = y + (r[2] ** 2 - r[1] ** 2 * ratio**2).sqrt() * draw(0)
    close(second.x, path.alpha(grid[2]) * y, 1e-8)


def test_noise_only_inside_its_window() -> None:
    """tau = 1 for 0.05 <= sigma/alpha <= 1, 0 outside."""
    path, sampler = paths.VE(), samplers.registry.make("sa-solver")
    lams = times(-2.0, -1.0, 1.0, 2.0, 3.5, 4.0)
    grid, past = path.time(lams), path.time(lams[:-1, None] - times(0.5, 1.0))
    _, fresh, *_ = sampler.coefficients(path, grid[:-1], grid[1:], past)
    assert [bool(f > 0) for f in fresh] == [False, True, True, True, False]


@on_paths
def test_dpmpp_sde_feels_the_first_half_of_its_noise(path: Path) -> None:
    """The middle's noise and the end's are those of one Ornstein-Uhlenbeck process, seen twice."""
    t, s = path.time(times(-1.0, 0.5)).split(1)
    middle = path.time(times(-0.25))
    heard = list[Tensor]()

    class Listener(Told):
        def __call__(self, x: Batch, t: Times) -> Denoised:
            heard.append(x)
            return super().__call__(x, t)

    units = torch.eye(3, 2, dtype=torch.float64)  # run 0 hears draw 0 only, run 1 draw 1, run 2 nothing
    noise = lambda k: units[:, k : k + 1]  # noqa: E731
    x = torch.zeros(3, 1, dtype=torch.float64)
    out = ExponentialSDE().step(Listener(path, lambda lam: 0 * lam), State(x, t.expand(3)), s.expand(3), noise).x
    mid, end, kappa = heard[1][:2, 0] / path.sigma(middle), out[:2, 0] / path.sigma(s), math.exp(-1.5)
    close(mid @ mid, times(1 - kappa)[0])
    close(end @ end, times(1 - kappa**2)[0])
    close(mid @ end, times(kappa**0.5 * (1 - kappa))[0])  # what is left of the middle's noise at the end


@on_paths
def test_euler_maruyama_is_song_et_al_equation_6(path: Path) -> None:
    """f by differences of log alpha, g^2 by differences of sigma^2, score of the mixture by differences of log p."""
    t, s, e = times(0.5), times(0.48), 1e-5
    data, x = mixture(), draw(1)
    f = (path.alpha(t + e).log() - path.alpha(t - e).log()) / (2 * e)
    g2 = (path.sigma(t + e) ** 2 - path.sigma(t - e) ** 2) / (2 * e) - 2 * f * path.sigma(t) ** 2
    shift = 1e-4 * torch.eye(2, dtype=torch.float64)
    score = torch.stack([(data.log_prob(x + d, path, 0.5) - data.log_prob(x - d, path, 0.5)) / 2e-4 for d in shift], -1)
    expected = x + (s - t) * (f * x - g2 * score) + (g2 * (t - s)).sqrt() * draw(0)
    out = ReverseSDE(1).step(Bound(data.at(path)), State(x, t.expand(6)), s.expand(6), draw).x
    close(out, expected, 1e-5)


def test_langevin_is_a_predictor_and_steps_up_the_score() -> None:
    path, (t, s) = paths.VE(), times(0.6, 0.5).split(1)
    told = Told(path, torch.tanh)
    sigma, x0 = path.sigma(s), torch.tanh(path.lam(s))
    held = Langevin(rho=-1.0, steps=2, snr=0.2).step(told, State(draw(1), t.expand(6)), s.expand(6), draw).x
    x = draw(1)  # variance exploding: without a predictor x stays
    for k in (2, 3):
        e = 2 * (0.2 * sigma) ** 2
        x = x + e * -(x - x0) / sigma**2 + (2 * e).sqrt() * draw(k)
    close(held, x)
    predicted = Ancestral(1.0).step(told, State(draw(1), t.expand(6)), s.expand(6), draw).x
    e = 2 * (0.16 * sigma) ** 2
    corrected = predicted - e * (predicted - x0) / sigma**2 + (2 * e).sqrt() * draw(2)
    close(Langevin().step(told, State(draw(1), t.expand(6)), s.expand(6), draw).x, corrected)


@pytest.mark.parametrize("spread, share", [(None, 1.0), (0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
def test_the_variance_is_large_small_or_learned(spread: float | None, share: float) -> None:
    """Between beta and the posterior's, by the logarithm (Nichol & Dhariwal 2021, eq. 15); last, the mean."""
    path, t, s = paths.LinearTable(), times(0.5).expand(6), times(0.499).expand(6)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[499]
    small = beta * (path.sigma(s) / path.sigma(t)) ** 2
    told = Told(path, torch.tanh, None if spread is None else torch.full((6, 2), spread, dtype=torch.float64))
    steps = [DDPM("large").step(told, State(draw(1), t), s, lambda _, k=k: k * draw()).x for k in (0.0, 1.0)]
    close(steps[1] - steps[0], (beta**share * small ** (1 - share)).sqrt()[:, None] * draw(), 1e-9)
    ends = [DDPM("large").step(told, State(draw(1), t), 0 * s, lambda _, k=k: k * draw()).x for k in (0.0, 1.0)]
    close(*ends)


# Law


class Leap:
    """A consistency model: x0 is where the exact flow of Gaussian data takes x (Song et al. 2023, section 3)."""

    def __init__(self, path: Path, mean: float, std: float) -> None:
        self.path, self.mean, self.std = path, mean, std

    def __call__(self, x: Batch, t: Times) -> Denoised:
        alpha, sigma = along(self.path.alpha(t), x), along(self.path.sigma(t), x)
        x0 = self.mean + self.std * (x - alpha * self.mean) / torch.hypot(alpha * self.std, sigma)
        return Denoised(x0, (x - alpha * x0) / sigma)


@pytest.mark.parametrize("steps", [1, 2, 4])
@on_paths
def test_lcm_keeps_the_law_of_a_consistency_model_at_any_number_of_steps(path: Path, steps: int) -> None:
    grid = torch.linspace(0.9, 0, steps + 1, dtype=torch.float64)
    alpha, sigma = path.alpha(grid[0]), path.sigma(grid[0])
    units = torch.cat([torch.zeros(1, steps + 1, dtype=torch.float64), torch.eye(steps + 1, dtype=torch.float64)])
    x = alpha * 0.3 + torch.hypot(0.5 * alpha, sigma) * units[:, :1]
    state = samplers.registry.make("lcm").init(x, grid[:1].expand(len(x)))
    for i, s in enumerate(grid[1:], start=1):
        noise = lambda _, i=i: units[:, i : i + 1]  # noqa: E731
        state = samplers.registry.make("lcm").step(Leap(path, 0.3, 0.5), state, s.expand(len(x)), noise)
    close(state.x[0, 0], times(0.3)[0])
    close((state.x[1:] - state.x[0]).norm(), times(0.5)[0])


@pytest.mark.parametrize("gamma, where", [(0.0, 0.5), (0.3, 0.35), (1.0, 0.0)])
def test_tcd_goes_beyond_and_comes_back(gamma: float, where: float) -> None:
    """Zheng et al. 2024, eq. 13: to (1 - gamma) s along the ODE, then the forward process to s."""
    path, t, s = paths.VP(), times(0.8).expand(6), times(0.5).expand(6)
    d = mixture().at(path)(draw(1), t)
    there = times(where).expand(6)
    scale, std = path.transition(there, s)
    expected = along(scale, d.x0) * path.mix(d.x0, d.eps, there) + along(std, d.x0) * draw()
    out = Renoise(eta=0.0, gamma=gamma).step(Bound(mixture().at(path)), State(draw(1), t), s, draw).x
    close(out, expected)


@pytest.mark.parametrize("base, order", [(Multistep(1), 1), (MIDPOINT, 2)])
@on_paths
def test_renoising_keeps_the_order_of_its_base_in_law(base: Sampler, order: int, path: Path) -> None:
    coarse, fine = (abs(variance_bias(Renoise(base), path, n)) for n in (100, 400))
    assert math.log2(coarse / fine) / 2 > order - 0.15


def test_the_exact_moments_are_those_of_draws() -> None:
    """The propagated bias is the bias of 40,000 samples, within 4 standard errors."""
    data = GaussianMixture(times(1.0), times(0.3)[:, None], times(0.25)[0])
    path, n = paths.VP(), 40_000
    for name in ("er-sde-3", "dpmpp-sde", "pc", "sa-solver-pece"):
        sampler = samplers.registry.make(name)
        x = sample(data.at(path), n, sampler=sampler, steps=8, grid="karras", batch=n)
        exact = bias(sampler, path, Karras()(path, 8))
        assert abs(float(x.std()) / 0.5 - 1 - exact.std) < 4 * (1 + exact.std) / math.sqrt(2 * n)
        assert abs(float(x.mean() - 0.3) / 0.5 - exact.mean) < 4 * (1 + exact.std) / math.sqrt(n)


def test_a_restart_forgets_the_errors_before_it() -> None:
    """Xu et al. 2023, theorem 1: what went wrong above is contracted; the law tends to the exact."""
    heun, path = samplers.registry.make("heun"), paths.VP()

    class Hasty(Grid):
        """One step to sigma/alpha = 3, then careful ones."""

        def times(self, path: Path, steps: int) -> Times:
            return torch.cat([times(1.0), path.time(torch.linspace(-math.log(3.0), 6, steps, dtype=torch.float64))])

    plain = bias(heun, path, Hasty()(path, 60)).std
    found = [bias(heun, path, Restart(Hasty(), low=0.3, high=3.0, repeats=k)(path, 60)).std for k in (1, 2, 3)]
    assert abs(plain) > 0.02
    for before, after in itertools.pairwise([plain, *found]):
        assert abs(after) < 0.2 * abs(before) or abs(after) < 0.002, (plain, found)
    ends = [abs(bias(heun, path, Restart(low=0.3, high=3.0)(path, n)).std) for n in (40, 160)]
    assert ends[1] < ends[0] / 4**1.7


def test_a_restart_is_the_forward_process_and_a_new_beginning() -> None:
    """A sampler with a memory starts anew above; Brownian noise, which is one fall, has nothing to say there."""
    path, index = paths.VP(), torch.arange(6)
    times_ = Restart(repeats=1)(path, 12)
    rise = int((times_.diff() > 0).nonzero())
    denoise, multistep = Bound(mixture().at(path)), Multistep(3)
    states = list(steps(denoise, Scheme(multistep, times_), multistep.init(draw(), times_[:1].expand(6)), 1, index))
    before, after = states[rise - 1], states[rise]
    scale, std = path.transition(before.t, after.t)
    z = normal(1, index, rise, (2,), stream=1, dtype=torch.float64)
    close(after.x, scale[:, None] * before.x + std[:, None] * z)
    assert (after.memory[0] == -torch.inf).all() and len(states) == len(times_) - 1
    with pytest.raises(PellucidError, match="falling grid"):
        sample(mixture().at(path), 1, grid=Restart(), noise="brownian")


def test_the_recommended_keep_the_std_at_20_steps() -> None:
    """Within 2 % on every path; said by the certificate, which is what docs/samplers.md shows."""
    for name in ("er-sde", "er-sde-pec"):
        for path in map(paths.registry.make, PATHS):
            found = bias(samplers.registry.make(name), path, Karras()(path, 20))
            assert abs(found.std) < 0.02 and abs(found.mean) < 0.005


def test_a_certificate_is_plain_data_and_a_page() -> None:
    chosen = {name: samplers.registry.make(name) for name in ("er-sde-pec", "ddim")}
    heard = list[int]()
    found = list(certify(lambda done, total, name: heard.append(done), chosen, draws=0))
    assert heard == [0, 1, 2] and [c.name for c in found] == list(chosen)
    assert found[0].recommended == ["karras", "lam"] and not found[1].recommended
    assert all(set(c.orders) == set(PATHS) for c in found)
    assert all(order == pytest.approx(1, abs=0.15) for order, _ in found[1].orders.values())
    data, text = json.loads(json.dumps([c.plain() for c in found])), page(found, {"x": {"0.1": (2.0, 30.0)}})
    assert data[0]["bias"]["karras"]["vp"]["20"]["std"] == found[0].biases["karras"]["vp"][20].std
    assert all(text.count(f"| {name} |") == 4 for name in chosen) and "| x | 2.00 (30) |" in text


def test_the_page_of_samplers_speaks_of_all_of_them() -> None:
    """docs/samplers.md is up to date: what is registered was measured, and nothing else stands there."""
    found = re.findall(r"^\| ([\w =-]+?) \|.*", PAGE.read_text(), re.M)
    adaptive = {name for name in samplers.registry.presets if not samplers.registry.make(name).calls}
    assert set(found) - {"sampler", "---"} == {*all_samplers(), *adaptive}, (
        "renew it: pellucid verify samplers --out ..."
    )


@pytest.mark.soak
def test_the_page_of_samplers_is_as_the_command_writes_it() -> None:
    assert page(list(certify()), tolerances()) == PAGE.read_text()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExtendedSDE(5),
        lambda: ExtendedSDE(2, corrector=1),
        lambda: ExtendedSDE(low=2.0, high=1.0),
        lambda: ExponentialSDE(-1.0),
        lambda: ReverseSDE(3),
        lambda: Langevin(steps=0),
        lambda: Langevin(rho=-2.0),
        lambda: Renoise(Ancestral(1.0)),
        lambda: Renoise(gamma=1.5),
    ],
)
def test_options_that_make_no_sampler_are_refused(make) -> None:
    with pytest.raises(PellucidError, match="expected|deterministic"):
        make()
