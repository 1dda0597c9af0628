"""Every registered sampler: its order, its law, its exactness where it is exact, and that it only does what it says."""

import math

import pytest
import torch
from torch import Tensor

from conftest import one_of_each_kind
from pellucid import PellucidError, grids, paths, samplers
from pellucid.explain.verify.laws import variance_bias
from pellucid.explain.verify.orders import Problem, quantiles
from pellucid.explain.verify.steps import apart, broken
from pellucid.explain.verify.theorem import all_paths, all_samplers, mixture, times
from pellucid.noise import normal
from pellucid.paths import Path
from pellucid.samplers import Ancestral, Multistep, Pseudo, RungeKutta, Sampler, Scales
from pellucid.sampling import Scheme, sample, walk
from pellucid.types import Batch, Bound, Denoised, State, Times, along

SAMPLERS, PATHS = all_samplers(), all_paths()
every_sampler = pytest.mark.parametrize("sampler", one_of_each_kind())
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
on_paths = pytest.mark.parametrize("path", [paths.Cosine(), paths.VP(), paths.Flow()], ids=["cosine", "vp", "flow"])
DETERMINISTIC, STOCHASTIC = all_samplers(stochastic=False), all_samplers(stochastic=True)
ORACLE = mixture().at(paths.Cosine())


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def draw(draw: int = 0, n: int = 6) -> Tensor:
    return normal(5, torch.arange(n), draw, (2,), dtype=torch.float64)


class Told:
    """A Denoise that says what it is told: x0 (or eps) as a function of lam; x decides the other half."""

    def __init__(self, path: Path, x0=None, eps=None) -> None:
        self.path, self.x0, self.eps, self.calls = path, x0, eps, list[float]()

    def __call__(self, x: Batch, t: Times) -> Denoised:
        self.calls.append(float(t[0]))
        alpha, sigma, lam = along(self.path.alpha(t), x), along(self.path.sigma(t), x), along(self.path.lam(t), x)
        if self.x0:
            x0 = self.x0(lam) + 0 * x
            return Denoised(x0, (x - alpha * x0) / sigma)
        eps = self.eps(lam) + 0 * x
        return Denoised((x - sigma * eps) / alpha, eps)


# Order


@pytest.mark.parametrize(
    "path", [paths.Flow(), *(pytest.param(p, marks=pytest.mark.slow) for p in (paths.Cosine(), paths.VP()))]
)
def test_slopes_are_the_declared_orders(path: Path) -> None:
    problem = Problem(mixture(1).at(path), quantiles(mixture(1).at(path)))
    slopes = {name: problem.slope(sampler) for name, sampler in DETERMINISTIC.items()}
    assert all(abs(slope - DETERMINISTIC[name].order) < 0.15 for name, slope in slopes.items()), slopes


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("mode", ["predict", "correct"])
@pytest.mark.parametrize(
    "variable, clock", [("x0", "lam"), ("eps", "lam"), ("eps", "t"), ("eps", "sigma"), ("velocity", "t")]
)
def test_every_form_has_the_order_it_is_given(variable: str, clock: str, mode: str, order: int) -> None:
    """Also where it has no name: DEIS and UniPC of all orders, in every variable and clock."""
    problem = Problem(mixture(1).at(paths.Flow()), quantiles(mixture(1).at(paths.Flow())))
    assert abs(problem.slope(Multistep(order, variable=variable, clock=clock, mode=mode)) - order) < 0.15


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@on_paths
def test_multistep_is_exact_where_x0_is_a_polynomial_in_lam(path: Path, order: int, rho: float) -> None:
    """Of degree order - 1: variation of constants, its integral by brute force, at unequal steps."""
    grid = path.time(times(-1.0, -0.6, 0.3, 0.8, 1.0))
    lams, polynomial = path.lam(grid), lambda lam: sum((k + 1.0) * lam**k for k in range(order))  # noqa: E731
    told, sampler = Told(path, x0=polynomial), Multistep(order, rho)
    state = sampler.init(draw(), grid[:1].expand(6))
    for i, s in enumerate(grid[1:]):
        before, state = state, sampler.step(told, state, s.expand(6), draw)
        if i == 3:
            h = lams[4] - lams[3]
            u = torch.linspace(0, float(h), 20_001, dtype=torch.float64)
            force = torch.trapezoid((1 + rho) * torch.exp(-(1 + rho) * (h - u)) * polynomial(lams[3] + u), u)
            kept = path.sigma(s) / path.sigma(grid[3]) * torch.exp(-rho * h) * before.x
            fresh = path.sigma(s) * (1 - torch.exp(-2 * rho * h)).sqrt() * draw(0)
            close(state.x, kept + path.alpha(s) * force + fresh, 1e-8)


def test_the_midpoint_rule_is_dpm_solver_plus_plus_2m() -> None:
    """D = (1 + 1/2r) x0 - 1/2r x0', r = h'/h (Lu et al. 2022b, algorithm 2), and x_s = sigma ratio x + c_0 alpha D."""
    path, grid = paths.VP(), paths.VP().time(times(-1.0, -0.3, 0.9))
    (a, b, c), sampler = path.lam(grid).tolist(), Multistep(2, rule="midpoint")
    denoise = Bound(mixture().at(path))
    first = sampler.step(denoise, sampler.init(draw(), grid[:1].expand(6)), grid[1].expand(6), draw)
    second = sampler.step(denoise, first, grid[2].expand(6), draw)
    old, new = (denoise(x, t.expand(6)).x0 for x, t in ((draw(), grid[0]), (first.x, grid[1])))
    r = (b - a) / (c - b)
    slanted = (1 + 1 / (2 * r)) * new - 1 / (2 * r) * old
    sigma, alpha = path.sigma(grid), path.alpha(grid)
    close(second.x, sigma[2] / sigma[1] * first.x - alpha[2] * math.expm1(-(c - b)) * slanted)


@on_paths
def test_heun_is_exact_where_eps_is_linear_in_sigma_over_alpha(path: Path) -> None:
    t, s = path.time(times(-1.0, 0.5)).split(1)
    y, z = torch.exp(-path.lam(s)), torch.exp(-path.lam(t))
    out = RungeKutta().step(
        Told(path, eps=lambda lam: 2 + 3 * torch.exp(-lam)), State(draw(), t.expand(6)), s.expand(6), draw
    )
    moved = 2 * (y - z) + 1.5 * (y**2 - z**2)  # d(x/alpha) = eps d(sigma/alpha)
    close(out.x, path.alpha(s) * (draw() / path.alpha(t) + moved))


@on_paths
def test_midpoint_takes_x0_from_the_middle_in_lam(path: Path) -> None:
    t, s = path.time(times(-1.0, 0.5)).split(1)
    told = Told(path, x0=lambda lam: 2 + 3 * lam)
    out = samplers.registry.make("midpoint").step(told, State(draw(), t.expand(6)), s.expand(6), draw)
    assert told.calls == pytest.approx([float(t), float(path.time(times(-0.25)))])
    kept = path.sigma(s) / path.sigma(t) * draw()
    close(out.x, kept - path.alpha(s) * math.expm1(-1.5) * (2 + 3 * -0.25))


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_whole_indices_cost_no_order(spacing: str) -> None:
    """Where the next index is the next step's own, not a fixed stride away, DDIM's error falls with every doubling."""
    data, grid = mixture(1).at(paths.LinearTable()), grids.registry.make(spacing)
    fine = sample(data, 100, sampler="dpmpp-3m", steps=500, grid="uniform", batch=100)
    draw = lambda steps: sample(data, 100, sampler="ddim", steps=steps, grid=grid, batch=100)  # noqa: E731
    errors = [float((draw(steps) - fine).abs().mean()) for steps in (20, 40, 80, 160)]
    assert all(math.log2(a / b) > 0.8 for a, b in zip(errors, errors[1:], strict=False)), errors


# Law


@every_path
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ancestral_is_the_posterior(path: Path, eta: float) -> None:
    """q(x_s | x_t, x0) by Bayes' rule for two Gaussians; at eta = 0 no variance, the same marginal always."""
    t, s = path.time(times(-0.5, 0.4)).split(1)
    z, d = draw(), Bound(mixture().at(path))(draw(1), t.expand(6))
    a, b = (Ancestral(eta).step(Bound(mixture().at(path)), State(draw(1), t.expand(6)), s.expand(6), k).x for k in (
        lambda _: z, lambda _: 0 * z))  # fmt: skip
    scale, std = path.transition(s, t)
    variance = 1 / (scale**2 / std**2 + 1 / path.sigma(s) ** 2)
    mean = variance * (scale * draw(1) / std**2 + path.alpha(s) * d.x0 / path.sigma(s) ** 2)
    close(a - b, eta * variance.sqrt() * z)
    if eta == 1:
        close(b, mean)
    kept = (b - path.alpha(s) * d.x0) / d.eps
    close(kept**2 + eta**2 * variance, (path.sigma(s) ** 2).expand(6, 2))


@pytest.mark.parametrize("i", [1, 2, 10, 500, 999])
def test_ddpm_is_equation_7_computed_from_its_betas(i: int) -> None:
    """Ho et al. 2020: mean and variance of q(x_(i-1) | x_i, x0) from beta, alpha = 1 - beta and their products."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    beta, bar, before = betas[i], (1 - betas).cumprod(0)[i], (1 - betas).cumprod(0)[i - 1]
    path, x, z = paths.LinearTable(), draw(), draw(1)
    t, s = times((i + 1) / 1000).expand(6), times(i / 1000).expand(6)
    x0 = mixture().at(path)(x, t).x0
    mean = before.sqrt() * beta / (1 - bar) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x
    out = samplers.registry.make("ddpm").step(Bound(mixture().at(path)), State(x, t), s, lambda _: z)
    close(out.x, mean + ((1 - before) / (1 - bar) * beta).sqrt() * z, 1e-8)


def test_eta_and_rho_mean_what_their_papers_mean() -> None:
    """Fresh noise over sigma_s on the flow path, 0.8 -> 0.4: 0.493 for eta = 0.5, 0.913 for rho = 0.5."""
    path, (t, s) = paths.Flow(), times(0.8, 0.4).split(1)
    for sampler, share in ((Ancestral(0.5), 0.493), (Multistep(1, rho=0.5), 0.913)):
        told = Told(path, x0=lambda lam: 0 * lam)
        out = [
            sampler.step(told, State(draw(), t.expand(6)), s.expand(6), lambda _, k=k: k * draw(1)).x for k in (0, 1)
        ]
        assert float(((out[1] - out[0]) / draw(1) / path.sigma(s)).mean()) == pytest.approx(share, abs=5e-4)


LAWFUL = {name: sampler for name, sampler in STOCHASTIC.items() if sampler.weak}


@pytest.mark.parametrize("sampler", LAWFUL.values(), ids=LAWFUL)
@on_paths
def test_the_law_is_preserved_ever_better(sampler: Sampler, path: Path) -> None:
    """Mean and variance propagated exactly on Gaussian data: no chance."""
    coarse, fine = (abs(variance_bias(sampler, path, n)) for n in (60, 180))
    assert fine < 0.08 and (fine < 1e-4 or coarse / fine > 3 ** (sampler.weak - 0.2)), (coarse, fine)


@pytest.mark.parametrize("churn", [0.5, 4.0])
def test_churn_is_a_forward_step_before_the_step(churn: float) -> None:
    """log(1 + gamma) = min(churn h, log(2)/2), where sigma/alpha is within its bounds."""
    path, (t, s) = paths.VP(), paths.VP().time(times(0.1, 0.5)).split(1)
    up = path.time(times(0.1 - min(churn * 0.4, math.log(2) / 2)))
    scale, std = path.transition(t, up)
    noisy = scale * draw() + 1.5 * std * draw(1)
    expected = RungeKutta().step(Bound(mixture().at(path)), State(noisy, up.expand(6)), s.expand(6), draw).x
    start = State(draw(), t.expand(6))
    got = RungeKutta(churn=churn, scale=1.5).step(Bound(mixture().at(path)), start, s.expand(6), lambda _: draw(1)).x
    close(got, expected)
    still = RungeKutta().step(Bound(mixture().at(path)), start, s.expand(6), draw).x
    for bounds in ({"low": 0.95}, {"high": 0.85}):  # sigma/alpha = exp(-0.1) = 0.905
        got = RungeKutta(churn=churn, **bounds).step(Bound(mixture().at(path)), start, s.expand(6), lambda _: draw(1)).x
        close(got, still)


@every_path
def test_churn_stays_on_the_path(path: Path) -> None:
    t, s = times(1.0, 0.999), times(0.9, 0.9)
    numbers = torch.stack(RungeKutta(churn=4.0).coefficients(path, t, s, torch.empty(2, 0)))
    assert (numbers[0] <= 1).all() and (numbers[0] >= t).all() and numbers.isfinite().all()


# What a step may not do


@every_sampler
def test_a_step_is_pure(sampler: Sampler) -> None:
    """Its arguments and everybody's random state stay as they were, and it says the same when asked again."""
    grid = grids.Uniform()(paths.Cosine(), 5)
    state = sampler.init(draw(), grid[0].expand(6))
    for s in grid[1:]:
        copy = [part.clone() for part in (state.x, state.t, *state.memory)]
        world = torch.random.get_rng_state()
        after = sampler.step(Bound(ORACLE), state, s.expand(6), draw)
        assert all(torch.equal(a, b) for a, b in zip(copy, (state.x, state.t, *state.memory), strict=True))
        assert torch.equal(world, torch.random.get_rng_state())
        assert torch.equal(after.x, sampler.step(Bound(ORACLE), state, s.expand(6), draw).x)
        state = after


@every_sampler
def test_calls_and_noise_are_as_declared(sampler: Sampler) -> None:
    told, asked = Told(paths.Cosine(), x0=torch.tanh), list[int]()
    first, *others = paths.Cosine().time(torch.linspace(-1, 0.5, sampler.past + 2, dtype=torch.float64)).split(1)
    state = sampler.init(draw(), first.expand(6))
    for s in others:  # what needs a past has one by the last step
        told.calls.clear(), asked.clear()
        state = sampler.step(told, state, s.expand(6), lambda k: asked.append(k) or draw(k))
    assert len(told.calls) == sampler.calls
    assert bool(asked) == sampler.stochastic and asked == sorted(set(asked))


@every_sampler
def test_the_ends_are_asked_once_and_the_data_never(sampler: Sampler) -> None:
    told, grid = Told(paths.Cosine(), eps=lambda lam: 0 * lam.nan_to_num()), grids.Uniform()(paths.Cosine(), 4)
    state = sampler.init(draw(), grid[0].expand(6))
    for s in grid[1:]:
        state = sampler.step(told, state, s.expand(6), draw)
    assert 0.0 not in told.calls and told.calls[0] == 1 and min(told.calls) == 0.25
    assert len(told.calls) <= 4 * max(sampler.calls, 4 if isinstance(sampler, Pseudo) else 0)  # one of them starts so


@every_sampler
@pytest.mark.parametrize("name", ["cosine", "vp", "ve", "cosine-table"])
def test_a_step_does_not_know_who_shares_its_batch(sampler: Sampler, name: str) -> None:
    assert apart(sampler, PATHS[name]) == 0


@every_sampler
def test_prepared_numbers_are_the_steps_own(sampler: Sampler) -> None:
    """The loop's shortcut, all coefficients at once as floats, gives what step after step gives."""
    index = torch.arange(6)
    for path in (paths.Cosine(), paths.VP()):
        denoise = Bound(mixture().at(path))
        scheme = Scheme(sampler, grids.Karras()(path, 6))
        state = sampler.init(draw(), scheme.times[0].expand(6))
        for i, (s, walked) in enumerate(zip(scheme.times[1:], walk(denoise, scheme, state, 3, index), strict=True)):
            noise = lambda k, i=i: normal(3, index, i, (2,), stream=1 + k, dtype=torch.float64)  # noqa: E731
            state = sampler.step(denoise, state, s.expand(6), noise)
            close(walked.x, state.x, 1e-12)
            assert torch.equal(walked.t, state.t)


@every_sampler
def test_states_part_and_join_without_a_trace(sampler: Sampler) -> None:
    state = sampler.init(draw(), times(1.0).expand(6))
    state = sampler.step(Bound(ORACLE), state, times(0.7).expand(6), draw)
    again = State.cat(state.split([1, 3, 2]))
    for a, b in zip((state.x, state.t, *state.memory), (again.x, again.t, *again.memory), strict=True):
        assert torch.equal(a, b)


REMIXED = [s for s in SAMPLERS.values() if isinstance(s, Multistep) and s.past and s.variable != "velocity"]


@pytest.mark.parametrize("sampler", REMIXED)
def test_with_nothing_remembered_a_step_is_of_first_order(sampler: Multistep) -> None:
    t, s = paths.VP().time(times(-1.0, 0.5)).split(1)
    first = Multistep(1, rho=sampler.rho)
    a, b = (
        m.step(Bound(mixture().at(paths.VP())), m.init(draw(), t.expand(6)), s.expand(6), draw)
        for m in (sampler, first)
    )
    close(a.x, b.x, 1e-15)


# Always a number


@every_sampler
@pytest.mark.parametrize("name", ["cosine", "vp", "edm", "sigmoid"])
def test_no_nan_for_any_prediction_and_number_of_steps(sampler: Sampler, name: str) -> None:
    assert broken(sampler, PATHS[name]) == 0


@every_sampler
def test_one_step_lands_on_what_the_network_sees(sampler: Sampler) -> None:
    """From t = 1 to the data in one step, alpha(1) = 0: the mean of the data; `scales` spreads it, but by less."""
    state = sampler.init(draw(), times(1.0).expand(6))
    out = sampler.step(Bound(ORACLE), state, times(0.0).expand(6), draw).x
    mean = (mixture().weights @ mixture().means).expand(6, 2)
    if isinstance(sampler, Scales):
        spread = (out - mean) / draw()
        close(spread, spread[:1, :1].expand(6, 2), 1e-9)
        assert sampler.extent.std / 2 < float(spread.mean()) < sampler.extent.std
    else:
        close(out, mean)


def settles(sampler: Sampler) -> bool:
    """Whether the data is infinitely far on its clock, so that the last step can look back on nothing."""
    finite = isinstance(sampler, Multistep) and sampler.clock != "lam"
    return not (finite or isinstance(sampler, Pseudo | Scales))


@pytest.mark.parametrize("sampler", [one for one in one_of_each_kind() if settles(one.values[0])])
def test_the_last_step_lands_on_the_last_word(sampler: Sampler) -> None:
    """To sigma = 0 a sampler in lam is first order: what the network saw last, whatever is remembered."""
    heard, grid = list[Tensor](), grids.Karras()(paths.Cosine(), 4)

    class Heard(Bound):
        def __call__(self, x: Batch, t: Times) -> Denoised:
            heard.append(super().__call__(x, t).x0)
            return super().__call__(x, t)

    state = sampler.init(draw(), grid[0].expand(6))
    for s in grid[1:]:
        state = sampler.step(Heard(ORACLE), state, s.expand(6), draw)
    close(state.x, heard[-1], 1e-15)


@every_sampler
def test_single_precision_follows_double(sampler: Sampler) -> None:
    for path in (paths.Cosine(), paths.VE()):
        ends = []
        for dtype in (torch.float32, torch.float64):
            grid = grids.Karras()(path, 10)
            state = sampler.init((path.sigma(grid[0]) * draw()).to(dtype), grid[0].expand(6))
            for s in grid[1:]:
                state = sampler.step(Bound(mixture().at(path)), state, s.expand(6), lambda k: draw().to(dtype))  # noqa: B023
            assert state.x.dtype == dtype and state.t.dtype == torch.float64
            ends.append(state.x.double())
        close(*ends, 2e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ancestral(eta=-0.1),
        lambda: Ancestral(eta=1.1),
        lambda: Multistep(order=5),
        lambda: Multistep(order=1, mode="correct"),
        lambda: Multistep(variable="velocity"),
        lambda: Multistep(rho=1.0, variable="eps"),
        lambda: Pseudo(steps=5),
        lambda: Pseudo(gamma=2.0),
        lambda: Multistep(order=0),
        lambda: Multistep(rho=-1.0),
        lambda: Multistep(order=3, rule="midpoint"),
        lambda: RungeKutta(churn=-0.1),
    ],
)
def test_options_that_make_no_sampler_are_refused(make) -> None:
    with pytest.raises(PellucidError, match="expected|has order|take rule|take variable|take clock"):
        make()


def test_names_people_know() -> None:
    for alias, same in {
        "DDIMScheduler": Ancestral(0.0),
        "DDPMScheduler": Ancestral(1.0),
        "euler_ancestral": Ancestral(1.0),
        "flow-euler": Multistep(1),
        "DPM++ 2M": Multistep(2, rule="midpoint"),
        "dpm++ 3m sde": Multistep(3, rho=1.0),
        "sample_heun": RungeKutta(),
        "dpm++ 2s": samplers.registry.make("midpoint"),
    }.items():
        assert samplers.registry.make(alias) == same


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_table_that_ends_in_all_but_pure_noise_is_sampled_from_there(name: str) -> None:
    """Improved DDPM's has sigma/alpha = 20000 at its last index: what is known of eps there is not to be magnified."""
    data = mixture(2)
    x = sample(data.at(paths.CosineTable()), 500, sampler=DETERMINISTIC[name], steps=12)
    assert x.std().item() == pytest.approx(data.sample(20_000).std().item(), rel=0.1)
