"""Likelihoods are those of the law: against mixtures of known density, closed forms for Gaussians, and counting."""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import one_of_each_kind
from pellucid import PellucidError, grids, likelihood, nets, noise, objective, paths, predictions, samplers
from pellucid.denoiser import Denoiser, Repath, seeded
from pellucid.explain.verify.theorem import all_paths, times
from pellucid.likelihood import Exact, Hutchinson, Likelihood, Noise, Normal, Uniform, Wiener
from pellucid.likelihood.divergence import products
from pellucid.likelihood.value import estimate
from pellucid.oracle import GaussianMixture, Oracle
from pellucid.paths import Path
from pellucid.samplers import Adaptive
from pellucid.types import Batch, Cond, Denoised, Times, Wrapper

PATHS = all_paths()
AGAIN = {"scaled-linear", "cosine-table", "linear-table", "scaled-linear-table"}  # others in all but their numbers


def of_each_kind(names: Iterable[str]) -> list[Any]:
    """These paths' names, those that say nothing new for the soak."""
    return [pytest.param(name, marks=[pytest.mark.soak] if name in AGAIN else []) for name in names]


every_path = pytest.mark.parametrize("name", of_each_kind(PATHS))
FINE = Adaptive("dopri5", rtol=1e-7, atol=1e-7, low=1e-5)
GRAIN = 2 / 255


def mixture(dim: int) -> GaussianMixture:
    return GaussianMixture.random(3, dim)


def drawn(path: Path, gauss: GaussianMixture) -> GaussianMixture:
    """What the flow makes of N(0, sigma_1^2), where the data is one Gaussian and the flow is linear.

    Along each axis x0 - mu = k (x_1 - alpha_1 mu), k^2 = v / (alpha_1^2 v + sigma_1^2).
    """
    alpha, sigma = float(path.alpha(times(1.0))), float(path.sigma(times(1.0)))
    v, axes = torch.linalg.eigh(gauss.covariances[0])
    k = (v / (alpha**2 * v + sigma**2)).sqrt()
    mean = gauss.means[0] - axes @ (k * alpha * (axes.T @ gauss.means[0]))
    return GaussianMixture(gauss.weights, mean[None], axes @ torch.diag((k * sigma) ** 2) @ axes.T)


# the flow


@pytest.mark.parametrize("dim, n", [(2, 10), (8, 4), (64, 1)])
def test_the_flow_finds_the_density(dim: int, n: int) -> None:
    data = mixture(dim)
    x, tight = data.sample(n, seed=1), replace(FINE, rtol=5e-8, atol=5e-8)
    for path in (paths.Cosine(), paths.Flow())[: 1 + (dim < 64)]:  # both end in noise alone
        found = likelihood.log_prob(data.at(path), x, divergence="exact", sampler=tight, low=1e-6)
        assert float((found - data.log_prob(x)).abs().max()) < 1e-5
        assert found.dtype == torch.float64 and not found.requires_grad


@pytest.mark.parametrize("name", of_each_kind(name for name in PATHS if name != "learned"))  # its clock is time's alone
def test_the_flow_finds_the_density_of_what_is_drawn(name: str) -> None:
    gauss, path = GaussianMixture.random(1, 3, seed=2), PATHS[name]
    x = gauss.sample(5)
    found = likelihood.log_prob(gauss.at(path), x, sampler=FINE, low=1e-6)
    assert float((found - drawn(path, gauss).log_prob(x)).abs().max()) < 1e-5


@pytest.mark.parametrize("law", ["rademacher", "normal"])
@pytest.mark.parametrize("dim, n", [(2, 300), (8, 100), (64, 8)])
def test_probes_are_within_their_errors(dim: int, n: int, law: str) -> None:
    data = mixture(dim)
    x = data.sample(n, seed=1)
    found = likelihood.flow(data.at(paths.Cosine()), x, divergence=Hutchinson(4, law), batch=n)  # type: ignore[arg-type]
    wrong = found.nats - data.log_prob(x)
    assert abs(float(wrong.mean())) < 3 * found.drawing()
    ratio = float(wrong.square().sum() / found.chance.square().sum())
    assert abs(ratio - 1) < 4 * (8 / 3 / n) ** 0.5  # n squares over the mean of 3 n


@pytest.fixture(scope="module")
def exactly() -> Tensor:
    """log p of two points at a coarse cut."""
    fine = replace(FINE, rtol=1e-10, atol=1e-10)
    return likelihood.log_prob(mixture(2).at(paths.VP()), mixture(2).sample(2), sampler=fine, low=2e-3)


@pytest.mark.parametrize("sampler", one_of_each_kind())
def test_every_deterministic_sampler_finds_it_to_its_order(sampler: samplers.Sampler, exactly: Tensor) -> None:
    x, oracle = mixture(2).sample(2), mixture(2).at(paths.VP())
    if sampler.stochastic:
        with pytest.raises(PellucidError, match="draws noise"):
            likelihood.log_prob(oracle, x, sampler=sampler)
        return
    shrinks = grids.Lam(sigma_max=1e3)  # beyond the path's end, so that the last step too is one of many
    found = [likelihood.log_prob(oracle, x, sampler=sampler, steps=n, low=2e-3, grid=shrinks) for n in (50, 100)]
    coarse, fine = (float((each - exactly).abs().max()) for each in found)
    promised = min(sampler.order, 3 if not sampler.past else 2)  # with a past it begins with lower orders
    assert math.log2(coarse / fine) > promised - 0.35
    assert fine < {1: 0.1, 2: 0.02}.get(sampler.order, 2e-3)


class Shaped(Wrapper):
    """A model of vectors as a model of another shape."""

    shape = (1, 2, 2)

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        d = self.model(x.flatten(1), t, cond)
        return Denoised(d.x0.reshape(x.shape), d.eps.reshape(x.shape))


@pytest.mark.parametrize("divergence", [Exact(), Hutchinson(2)], ids=["exact", "hutchinson"])
def test_shapes_are_data(divergence: likelihood.Divergence) -> None:
    data = mixture(4)
    model, x = data.at(paths.Flow()), data.sample(3)
    flat = likelihood.flow(model, x, divergence=divergence)
    shaped = likelihood.flow(Shaped(model), x.reshape(3, 1, 2, 2), divergence=divergence)
    assert torch.equal(flat.rounds, shaped.rounds)
    bounds = [likelihood.continuous(m, y, levels=4) for m, y in ((model, x), (Shaped(model), x.reshape(3, 1, 2, 2)))]
    assert torch.equal(bounds[0].rounds, bounds[1].rounds)


def test_a_sample_does_not_know_its_neighbours() -> None:
    data = mixture(2)
    model, x = data.at(paths.Cosine()), data.sample(9)
    for ask in (
        lambda x, first, batch: likelihood.flow(model, x, divergence=Hutchinson(2), first=first, batch=batch),
        lambda x, first, batch: likelihood.continuous(model, x, levels=3, first=first, batch=batch),
        lambda x, first, batch: likelihood.discrete(model, x, steps=4, first=first, batch=batch),
    ):
        whole, part, other = ask(x, 0, 64), ask(x[4:], 4, 2), ask(x[4:], 0, 64)
        assert torch.allclose(whole.rounds[4:], part.rounds, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(whole.rounds[4:], other.rounds, rtol=1e-3)


def test_a_label_restricts_the_density() -> None:
    data = mixture(2)
    own = data.labels == 0
    part = GaussianMixture(data.weights[own], data.means[own], data.covariances[own])
    x = part.sample(5)
    label = torch.zeros(5, dtype=torch.long)
    found = likelihood.log_prob(data.at(paths.Cosine()), x, cond={"label": label}, sampler=FINE, low=1e-6)
    assert torch.allclose(found, part.log_prob(x), atol=1e-5)


def test_the_cut_says_what_it_leaves_out() -> None:
    data = mixture(2)
    model, x = data.at(paths.Cosine()), data.sample(50)
    for low in (0.01, 0.02):
        found = likelihood.flow(model, x, sampler=replace(FINE, low=1e-4), low=low)
        missing = data.log_prob(x) - found.nats
        assert float((missing - found.cut).abs().max()) < 20 * low**2 * float(missing.abs().max())
        assert float(missing.abs().max()) > 1e-4


@pytest.mark.parametrize("divergence", [Exact(), Hutchinson(3, "normal")], ids=["exact", "hutchinson"])
def test_gradients_are_those_of_the_function(divergence: likelihood.Divergence) -> None:
    with seeded(0):
        net = nets.registry.make({"name": "mlp", "width": 8, "blocks": 1}, (2,)).double()
    for p in net.parameters():  # the last layer is born zero
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(p.numel()))
    model = Denoiser(net, "cosine", "v").double()

    def mean(x: Tensor) -> Tensor:
        return likelihood.log_prob(model, x, divergence=divergence, sampler="dpmpp-2m", steps=6).mean()

    x = mixture(2).sample(3).requires_grad_()
    weight = next(model.net.parameters())
    ours = torch.autograd.grad(mean(x), (x, weight))
    for tensor, gradient in zip((x, weight), ours, strict=True):
        way, h = torch.ones_like(tensor), 1e-5
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                tensor += sign * h * way
                ends.append(float(mean(x)))
                tensor -= sign * h * way
        assert float((gradient * way).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-8)


def test_the_gradient_is_the_score() -> None:
    data = mixture(2)
    x = data.sample(4).requires_grad_()
    (score,) = torch.autograd.grad(data.log_prob(x).sum(), x)
    found = likelihood.log_prob(data.at(paths.Cosine()), x, sampler=replace(FINE, rtol=1e-6, atol=1e-6), low=1e-5)
    assert torch.allclose(torch.autograd.grad(found.sum(), x)[0], score, rtol=1e-3, atol=1e-3)


# the divergence


def test_probes_have_the_mean_and_the_variance_of_hutchinson() -> None:
    a = noise.normal(0, torch.arange(5), 0, (5,), dtype=torch.float64)
    symmetric = (a + a.T) / 2
    off = 2 * float((symmetric - symmetric.diag().diag()).square().sum())
    n = 20_000
    x = torch.zeros(n, 5, dtype=torch.float64).requires_grad_()
    exact = Exact().fold(products(x @ a.T, x, Exact().vectors(5, 0, torch.arange(n), 0), False))
    assert torch.allclose(exact, a.trace())
    for law, variance in {"rademacher": off, "normal": off + 2 * float(a.diag().square().sum())}.items():
        probes = Hutchinson(1, law).vectors(5, 0, torch.arange(n), 0)  # type: ignore[arg-type]
        each = products(x @ a.T, x, probes, False)[:, 0]
        assert abs(float(each.mean() - a.trace())) < 4 * (variance / n) ** 0.5
        assert float(each.var()) == pytest.approx(variance, rel=0.05)


# grain


def test_the_bits_do_not_depend_on_the_units() -> None:
    """The same bytes, to a model that meets them in [-1, 1] and to one that meets them in 0 .. 255."""
    data = mixture(2)
    scaled = GaussianMixture(data.weights, 127.5 * data.means + 126.5, 127.5**2 * data.covariances)
    x = ((data.sample(6) + 1) / GRAIN).round() * GRAIN - 1
    ours = likelihood.flow(data.at(paths.Flow()), x, grain=GRAIN, dequantise="uniform", sampler=FINE, low=1e-6)
    theirs = likelihood.flow(
        scaled.at(paths.Flow()), 127.5 * x + 126.5, grain=1.0, dequantise="uniform", sampler=FINE, low=1e-4
    )
    assert torch.allclose(ours.bits, theirs.bits, atol=1e-6)
    density = likelihood.flow(data.at(paths.Flow()), x, sampler=FINE, low=1e-6)
    bytes_ = -(density.nats - 2 * math.log(127.5)) / (2 * math.log(2))  # log p changes by log(du/dx) for each dimension
    assert torch.allclose(ours.bits, bytes_, atol=0.02)


def mass(data: GaussianMixture, x: Tensor, grain: float) -> Tensor:
    """log P of the bins of x [n, d], for a mixture with diagonal covariances, by Phi."""
    std = data.covariances.diagonal(dim1=1, dim2=2).sqrt()
    low, high = (torch.special.ndtr((x[:, None] + side * grain / 2 - data.means) / std) for side in (-1, 1))
    return ((high - low).prod(2) @ data.weights).log()


SMOOTH = GaussianMixture(
    times(1.0, 2.0), times(-0.3, 0.4)[:, None].expand(2, 2), torch.diag(times(0.16, 0.36)).expand(2, 2, 2)
)


def rounded(data: GaussianMixture, n: int, grain: float) -> Tensor:
    return ((data.sample(n).clamp(-0.9, 0.9) + 1) / grain).round() * grain - 1


@pytest.mark.parametrize("how", [Uniform(), Normal(), Normal(1.0)], ids=str)
def test_of_a_smooth_density_a_dequantisation_loses_what_it_is_not_uniform(how: likelihood.Dequantise) -> None:
    """log P - bound = KL(q || uniform on the bin) for each dimension, and it is never negative."""
    grain = 0.05
    x = rounded(SMOOTH, 200, grain)
    found = likelihood.flow(SMOOTH.at(paths.Cosine()), x, grain=grain, dequantise=how, rounds=4, batch=200)
    gap = float((mass(SMOOTH, x, grain) - found.nats).mean())
    _, minus = how.draw(x.new_zeros(20_000, 1), grain, noise.words(0, torch.arange(20_000), 0, 0, 1) / 2.0**32 + 1e-10)
    lost = 2 * (math.log(grain) - float(minus.mean()))
    assert abs(gap - lost) < 3.5 * found.drawing() + 2e-3
    assert found.terms["grain"].shape == (200, 4) and set(found.terms) == {"prior", "volume", "grain"}


def test_of_values_on_a_grid_the_noise_of_the_path_loses_nothing() -> None:
    """A model that knows the values of the data puts spikes on them, which uniform dequantisation misses."""
    grain = 0.25
    places = torch.cartesian_prod(*[torch.arange(9, dtype=torch.float64) * grain - 1] * 2)
    weights = torch.softmax(-3 * places.square().sum(1), 0)
    model, x = GaussianMixture(weights, places, times(0.0)[0]).at(paths.Cosine()), places[::5]
    truth = weights.log()[::5]
    normal = likelihood.flow(model, x, grain=grain, dequantise=Normal(4.0), rounds=4)
    uniform = likelihood.flow(model, x, grain=grain, dequantise="uniform", rounds=1, low=0.01)
    assert float((normal.nats - truth).abs().max()) < 0.01  # 6e-5 of each spike lies outside its bin
    assert float((truth - uniform.nats).mean()) > 1


@pytest.mark.parametrize("how", [Uniform(), Normal()], ids=str)
def test_a_dequantisation_is_a_density_on_its_bin(how: likelihood.Dequantise) -> None:
    """E 1/q = the width of the bin: its volume under q."""
    u = noise.words(0, torch.arange(200_000), 0, noise.GRAIN, 1).double() / 2**32 + 2**-33
    y, minus = how.draw(torch.full_like(u, 0.5), 0.1, u)
    size = (1 + how.level(0.1, 0.0) ** 2) ** 0.5  # y = x~ cos(theta)
    assert float((size * y - 0.5).abs().max()) <= 0.05
    assert float(minus.exp().mean()) * size == pytest.approx(0.1, rel=0.02)


def test_a_decoder_gives_all_bytes_together_probability_one() -> None:
    values = torch.arange(256, dtype=torch.float64)[:, None] * GRAIN - 1
    for guess in (-1.5, -0.9, 0.001, 1.0, 7.0):
        for std in (1e-3, 4e-3, 0.1, 3.0):
            each = likelihood.decode(values, torch.full_like(values, guess), times(std).expand(256), GRAIN)
            assert float(each.exp().sum()) == pytest.approx(1, abs=1e-12)
    far = likelihood.decode(times(0.5)[:, None], times(-0.5)[:, None], times(1e-2), 1e-6)
    density = likelihood.decode(times(0.5)[:, None], times(-0.5)[:, None], times(1e-2), 0.0)
    assert float(far) == pytest.approx(float(density) + math.log(1e-6), abs=1e-3)  # a hundred deviations out


# the bounds


def least(gauss: GaussianMixture, snr: Tensor) -> Tensor:
    """E|x0 - E[x0 | x_t]|^2 of one Gaussian, at each SNR [n]: sum_i v_i / (1 + SNR v_i)."""
    v = torch.linalg.eigvalsh(gauss.covariances[0])
    return (v / (1 + snr[:, None] * v)).sum(1)


@every_path
@pytest.mark.parametrize("grid", ["lam", "uniform"])
def test_the_chain_loses_what_theory_says(name: str, grid: str) -> None:
    """Of one Gaussian every term of the bound is known."""
    path, gauss, n, steps = PATHS[name], GaussianMixture.random(1, 2, seed=2), 1500, 8
    x = gauss.sample(n)
    found = likelihood.discrete(gauss.at(path), x, steps=steps, grid=grid, std=0.4, rounds=1, batch=n)
    t = grids.registry.make(grid)(path, steps)
    snr = torch.exp(2 * path.lam(t[:-1]))
    moment = float(gauss.covariances[0].trace() + gauss.means[0].square().sum())
    wanted = snr.diff() * least(gauss, snr[:-1]) / 2
    assert found.curve is not None and torch.equal(found.curve.times, t[:-1])
    z = (found.curve.nats - wanted) / found.curve.error.clamp(min=1e-12)
    assert float(z.abs().max()) < 4.5
    assert float(found.terms["prior"].mean()) == pytest.approx(-float(snr[0]) * moment / 2, rel=0.05, abs=1e-300)
    decoder = -math.log(2 * math.pi) + float(snr[-1].log()) - float(snr[-1] * least(gauss, snr[-1:])) / 2
    assert abs(found.mean("decoder").value - decoder) < 4.5 * found.mean("decoder").error


def test_a_kl_is_that_of_the_two_gaussians() -> None:
    """Against torch.distributions, with the variance that is exact and with one that was learnt."""
    data, path = mixture(3), paths.VP()
    x0 = data.sample(7)

    class Learnt(Wrapper):
        def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
            d = self.model(x, t, cond)
            return Denoised(d.x0, d.eps, torch.sigmoid(x))

    for model in (data.at(path), Learnt(data.at(path))):
        found = likelihood.discrete(model, x0, steps=3, grid="uniform", rounds=1, std=1e-9)
        t, s = grids.Uniform()(path, 3)[:2].unbind()
        eps = noise.normal(0, torch.arange(7), 0, (3,), stream=noise.BOUND, dtype=torch.float64)
        x = path.mix(x0, eps, t.expand(7))
        d = model(x, t.expand(7))
        scale, std = path.transition(s, t)
        v = path.sigma(s) ** 2 * std**2 / path.sigma(t) ** 2
        learnt = v if d.spread is None else torch.exp(d.spread * (std**2).log() + (1 - d.spread) * v.log())
        own, other = path.alpha(s) * std**2 / path.sigma(t) ** 2, scale * path.sigma(s) ** 2 / path.sigma(t) ** 2
        posterior, model_step = (
            torch.distributions.Normal(own * clean + other * x, variance**0.5)
            for clean, variance in ((x0, v), (d.x0, learnt))
        )
        kl = torch.distributions.kl_divergence(posterior, model_step).sum(1)
        assert found.curve is not None
        assert float(found.curve.nats[0]) == pytest.approx(float(kl.mean()), rel=1e-9)


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_the_bound_lies_below_the_truth_by_the_gap_of_theory(dim: int) -> None:
    """Sum_t (SNR_s - SNR_t)(mmse_t - mmse_s)/2 bounds what T steps lose; it shrinks like 1/T."""
    data, path, n = mixture(dim), paths.Cosine(), 200 if dim < 64 else 30
    x = data.sample(n, seed=3)
    model, std = data.at(path), float(x.std())
    gaps, errors = [], []
    for steps in (25, 50, 100):
        found = likelihood.discrete(model, x, steps=steps, std=std, rounds=1, batch=n)
        assert found.curve is not None
        lost = estimate(data.log_prob(x) - found.nats)
        h = path.lam(found.curve.times).diff()
        mmse = 2 * found.curve.nats / (torch.exp(2 * path.lam(found.curve.times)).diff())
        most = float((torch.exp(2 * path.lam(found.curve.times)).diff()[:-1] * -mmse.diff()).sum() / 2)
        last = float(found.curve.nats[-1])  # of the last step, and what the decoder gives away
        assert h.gt(0).all() and -3 * lost.error < lost.value < most + last + 3 * lost.error
        gaps.append(lost.value)
        errors.append(lost.error)
    for (a, b), error in zip(pairwise(gaps), errors[1:], strict=True):
        assert 1.7 - 4 * error / b < a / b < 2.5 + 4 * error / b


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_with_endlessly_many_steps_the_bound_is_the_truth(dim: int) -> None:
    data, n = mixture(dim), 200 if dim < 64 else 40
    x = data.sample(n, seed=4)
    truth = data.log_prob(x)
    for path in (paths.Cosine(), paths.VE()):
        found = likelihood.continuous(data.at(path), x, std=float(x.std()), levels=8, rounds=4, batch=n)
        wrong = found.nats - truth
        assert abs(float(wrong.mean())) < 3.5 * found.drawing() + dim * 1e-4
        assert 0.5 < float(wrong.square().sum() / found.chance.square().sum()) < 2


@pytest.mark.parametrize(
    "draws", [*map(objective.times.make, ("uniform", "logit-normal", "log-normal-sigma")), Wiener(0.1)], ids=str
)
def test_the_draws_change_the_error_alone(draws: objective.TimeSampler) -> None:
    data = mixture(2)
    x, low = data.sample(500, seed=5), 0.05
    model = data.at(paths.Flow())
    ours = likelihood.continuous(model, x, low=low, std=1.3, levels=8, rounds=4, batch=500)
    theirs = likelihood.continuous(model, x, low=low, std=1.3, times=draws, levels=8, rounds=4, seed=1, batch=500)
    wrong = ours.nats.mean() - theirs.nats.mean()
    assert abs(float(wrong)) < 3.5 * math.hypot(ours.drawing(), theirs.drawing())
    assert ours.drawing() < 1.1 * theirs.drawing()


@pytest.mark.parametrize("power", [2.0, 0.5])
def test_wiener_is_a_density_and_its_quantiles(power: float) -> None:
    u = torch.linspace(0, 1, 4001, dtype=torch.float64)[1:-1]
    for path in (paths.VP(), paths.Cosine(), paths.EDM()):
        draws = Wiener(0.7, 1e-2, power)
        t = draws.times(u, path)
        assert bool((t.diff() > 0).all())
        middle = (t[1:] + t[:-1])[:3600] / 2  # where t is not too curved
        assert torch.allclose(draws.density(middle, path) * t.diff()[:3600], u.diff()[:3600], rtol=1e-3)
        edges = draws.times(times(0.0, 1.0), path)
        assert torch.allclose(edges, torch.stack([path.time(-times(1e-2).log())[0], times(1.0)[0]]))


def test_errors_far_out_in_the_noise_are_not_missed() -> None:
    """A network errs there too: here by 0.1 in eps at every level, which adds d 0.01 for each unit of lam."""

    class Wrong(Wrapper):
        def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
            d, off = self.model(x, t, cond), torch.full_like(x, 0.1)
            alpha, sigma = (f(t)[:, None] for f in (self.model.path.alpha, self.model.path.sigma))
            return Denoised(d.x0 - sigma / alpha * off, d.eps + off)

    path, low, n = paths.VP(), 0.01, 300
    gauss = GaussianMixture(torch.ones(1), torch.zeros(1, 8), torch.tensor(0.25))
    x = gauss.sample(n)
    found = [likelihood.continuous(m, x, low=low, batch=n) for m in (gauss.at(path), Wrong(gauss.at(path)))]
    span = -math.log(low) - float(path.lam(times(1.0)))
    lost, error = found[0].nats.mean() - found[1].nats.mean(), math.hypot(found[0].drawing(), found[1].drawing())
    decoder = found[0].mean("decoder").value - found[1].mean("decoder").value
    assert abs(float(lost) - decoder - 8 * 0.01 * span) < 3.5 * error < 0.4


def test_the_bound_is_that_of_the_pair_and_not_of_the_path() -> None:
    data = mixture(2)
    x, model = data.sample(300), data.at(paths.Cosine())
    one, other = (likelihood.continuous(m, x, low=0.01) for m in (model, Repath(model, "flow")))
    assert torch.allclose(one.rounds, other.rounds, rtol=1e-9)


def test_bounds_of_bytes_lie_below_their_mass() -> None:
    grain, n = 0.1, 1000
    x = rounded(SMOOTH, n, grain)
    truth, model = mass(SMOOTH, x, grain), SMOOTH.at(paths.Cosine())
    fine = grids.Lam(sigma_min=grain)
    for found in (
        likelihood.continuous(model, x, grain=grain, low=grain, levels=8, batch=n),
        likelihood.discrete(model, x, grain=grain, steps=100, grid=fine, rounds=1, batch=n),
    ):
        lost = estimate(truth - found.nats)
        assert -3 * lost.error < lost.value < 0.35


@pytest.mark.parametrize("how, low", [(Noise(), 0.1), (Noise(0.5), 0.05), (Uniform(), 1e-3)], ids=str)
def test_on_one_footing_the_bound_of_an_exact_denoiser_is_the_flow(how: likelihood.Dequantise, low: float) -> None:
    """They stand in the same noise or at the same points, and neither says more than the bytes' mass."""
    grain, n = 0.1, 400
    x, model = rounded(SMOOTH, n, grain), SMOOTH.at(paths.Cosine())
    points = how if low == 1e-3 else None
    flow = likelihood.flow(model, x, grain=grain, dequantise=how, low=1e-3, rounds=2, batch=n)
    bound = likelihood.continuous(model, x, grain=grain, dequantise=points, low=low, levels=8, rounds=2, batch=n)
    chain = likelihood.discrete(
        model, x, grain=grain, dequantise=points, grid=grids.Lam(sigma_min=low), steps=30, rounds=1, batch=n
    )
    apart, above = estimate(flow.nats - bound.nats), estimate(mass(SMOOTH, x, grain) - flow.nats)
    assert abs(apart.value) < 3.5 * apart.error and above.value > -3 * above.error
    assert estimate(bound.nats - chain.nats).value > 0


# errors


def share(found: Likelihood, truth: Tensor, groups: int) -> float:
    """How often truth lies in a group's own 95 % interval."""
    hits = 0
    for each in found.nats.chunk(groups):
        value, error = estimate(each)
        hits += abs(value - float(truth)) < 1.96 * error
    return hits / groups


@pytest.mark.parametrize("kind", ["flow", "continuous", "discrete"])
def test_intervals_hold_what_they_promise(kind: str) -> None:
    """200 repetitions, each of its own samples: 92 to 98 % of the nominal 95 % intervals hold the expectation."""
    data, groups, n = mixture(2), 200, 50
    x, model = data.sample(groups * n, seed=7), data.at(paths.Cosine())
    match kind:
        case "flow":
            found = likelihood.flow(
                model, x, divergence=Hutchinson(1), sampler="dpmpp-3m", steps=40, low=2e-3, batch=groups * n
            )
        case "continuous":
            found = likelihood.continuous(model, x, std=1.3, levels=4, rounds=1, batch=groups * n)
        case _:
            found = likelihood.discrete(model, x, std=1.3, steps=10, rounds=1, batch=groups * n)
    many = data.sample(200_000, seed=8)
    expected = data.log_prob(many).mean() if kind != "discrete" else found.nats.mean()
    assert 0.92 <= share(found, expected, groups) <= 0.98


@pytest.mark.parametrize("kind", ["flow", "continuous"])
def test_the_error_of_the_draws_holds_what_it_promises(kind: str) -> None:
    """200 repetitions of the draws on the same samples."""
    data, groups, n = mixture(2), 200, 40
    same = data.sample(n, seed=9)
    x, model = same.repeat(groups, 1), data.at(paths.Cosine())
    if kind == "flow":
        ask = {"divergence": Hutchinson(4), "sampler": "dpmpp-3m", "steps": 40, "low": 2e-3}
        found = likelihood.flow(model, x, batch=len(x), **ask)  # type: ignore[arg-type]
        truth = likelihood.log_prob(model, same, sampler="dpmpp-3m", steps=40, low=2e-3)
    else:
        found, truth = likelihood.continuous(model, x, std=1.3, levels=8, rounds=4, batch=len(x)), data.log_prob(same)
    wrong = (found.nats.reshape(groups, n) - truth).mean(1)
    error = (found.chance.reshape(groups, n).square().mean(1) / n).sqrt()
    assert 0.92 <= float((wrong.abs() < 1.96 * error).double().mean()) <= 0.98


# the door


RULES = predictions.registry.names()
KINDS = [(path, "v") for path in PATHS] + [(path, rule) for path in ("cosine", "ve") for rule in RULES if rule != "v"]


@pytest.mark.parametrize("path, prediction", KINDS)
def test_a_network_on_any_path_with_any_prediction(path: str, prediction: str) -> None:
    x = mixture(2).sample(3).float()
    with seeded(0):
        net = nets.registry.make({"name": "mlp", "width": 8, "blocks": 1}, (2,))
    model = Denoiser(net, PATHS[path], prediction).eval().requires_grad_(False)
    for found in (
        likelihood.flow(model, x, sampler="dpmpp-2m", steps=5),
        likelihood.continuous(model, x, levels=3),
        likelihood.discrete(model, x, steps=4),
    ):
        assert bool(found.rounds.isfinite().all())


def test_one_label_is_that_of_all_samples_as_in_sampling() -> None:
    model, x = mixture(2).at(paths.Cosine()), mixture(2).sample(4)
    for ask in (
        lambda cond: likelihood.discrete(model, x, cond=cond, steps=3).nats,
        lambda cond: likelihood.continuous(model, x, cond=cond, levels=3).nats,
        lambda cond: likelihood.flow(model, x, cond=cond, sampler="dpmpp-2m", steps=3).nats,
        lambda cond: likelihood.log_prob(model, x, cond=cond, sampler="dpmpp-2m", steps=3),
    ):
        assert torch.equal(ask({"label": 1}), ask({"label": torch.ones(4).long()}))
        assert not torch.equal(ask({"label": 1}), ask(None))
        with pytest.raises(PellucidError, match="unknown condition 'lable'; this model hears: label"):
            ask({"lable": 1})


GOOD = mixture(2).sample(4)
MODEL: Oracle = mixture(2).at(paths.Cosine())


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda: likelihood.flow(MODEL, GOOD[:0]), "there are no samples"),
        (lambda: likelihood.flow(MODEL, GOOD[:, :1]), r"the data is \[4, 1\]; expected samples of \[2\]"),
        (lambda: likelihood.flow(MODEL, GOOD[0]), r"the data is \[2\]"),
        (lambda: likelihood.continuous(MODEL, GOOD / 0), "not finite"),
        (lambda: likelihood.discrete(MODEL, GOOD, steps=0), "steps is 0"),
        (lambda: likelihood.discrete(MODEL, GOOD, rounds=True), "rounds is True"),
        (lambda: likelihood.discrete(MODEL, GOOD, grid="restart"), "goes back up"),
        (lambda: likelihood.flow(MODEL, GOOD, grid="restart"), "goes back up"),
        (lambda: likelihood.flow(MODEL, GOOD, low=0.0), "low is 0.0"),
        (lambda: likelihood.continuous(MODEL, GOOD, low=2.0), "low is 2.0"),
        (lambda: likelihood.flow(MODEL, GOOD, grain=GRAIN), "not on steps of 0.00784"),
        (lambda: likelihood.flow(MODEL, GOOD, grain=-1.0), "grain is -1.0"),
        (lambda: likelihood.flow(MODEL, GOOD, divergence="hutchison"), "did you mean 'hutchinson'"),
        (lambda: likelihood.flow(MODEL, GOOD, cond={"label": torch.zeros(3)}), "float|whole number"),
        (lambda: likelihood.flow(MODEL, GOOD, cond={"label": torch.zeros(3).long()}), "3 values, not 4"),
        (lambda: likelihood.discrete(MODEL, GOOD, cond=3), "expected values by name"),
        (lambda: likelihood.flow(MODEL, GOOD * 0 + 1, grain=GRAIN, dequantise=Noise(1e4)), "sigma/alpha = 78"),
        (lambda: likelihood.flow(MODEL, GOOD * 0, grain=1.0, dequantise=Normal(1e-3)), "sigma/alpha = 500"),
        (lambda: likelihood.continuous(MODEL, GOOD, dequantise="uniform"), "grain is 0"),
        (lambda: likelihood.discrete(MODEL, GOOD, dequantise="unifrom"), "did you mean 'uniform'"),
        (lambda: likelihood.flow(MODEL, GOOD * 0, grain=1.0, dequantise="gauss"), "unknown dequantisation"),
        (lambda: likelihood.continuous(MODEL, GOOD * 0, grain=1.0, dequantise="noise"), "a bound has noise of its own"),
        (lambda: Hutchinson(law="uniform"), "expected rademacher or normal"),  # type: ignore[arg-type]
        (lambda: Hutchinson(0), "expected a whole number"),
        (lambda: likelihood.continuous(MODEL, GOOD, std=0.0), "positive"),
    ],
)
def test_nonsense_is_one_sentence(ask: object, words: str) -> None:
    with pytest.raises(PellucidError, match=words):
        ask()  # type: ignore[operator]
