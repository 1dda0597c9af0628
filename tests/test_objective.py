"""Weights are one function in x0 units; every prediction, clock and density tells the same story."""

import math

import pytest
import torch

from pellucid import nets, objective, paths, predictions
from pellucid.denoiser import Denoiser, seeded
from pellucid.noise import normal
from pellucid.objective import (
    EDM,
    ELBO,
    Chain,
    LogitNormal,
    LogNormalSigma,
    MinSNR,
    Objective,
    SecondMoment,
    Simple,
    Stratified,
    Uniform,
    Unit,
    divergence,
    weights,
)
from pellucid.oracle import GaussianMixture

PATHS = ["vp", "cosine", "flow", "ve", "edm", "subvp", "sigmoid", "scaled-linear", "linear-table"]
T = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", predictions.registry.names())
def test_an_error_of_the_answer_is_the_same_error_of_x0(path: str, prediction: str) -> None:
    """|dy|^2 = (det/sigma)^2 |dx0|^2 at fixed x, measured by moving the answer."""
    path, prediction = paths.registry.make(path), predictions.registry.make(prediction)
    g, t = torch.Generator().manual_seed(0), path.time(torch.linspace(-3, 3, 49, dtype=torch.float64)).clamp(max=1)
    x, y, dy = (torch.randn(len(t), 3, generator=g, dtype=torch.float64) for _ in range(3))
    moved, still = (predictions.solve(prediction, path, x, out, t).x0 for out in (y + dy, y))
    got = (moved - still).square().sum(1)
    torch.testing.assert_close(got, prediction.gain(path, t) ** 2 * dy.square().sum(1), rtol=1e-8, atol=0)


@pytest.mark.parametrize("weight", [name for name in objective.weights.names() if name != "unit"])  # it is y's own
@pytest.mark.parametrize("path", ["vp", "flow", "edm"])
def test_one_loss_whatever_the_prediction(weight: str, path: str) -> None:
    """The same belief (x0, eps), said as any prediction, costs the same: weights belong to lam alone."""
    path, weight = paths.registry.make(path), objective.weights.make(weight)
    losses = []
    for name in predictions.registry.names():
        rule = predictions.registry.make(name)
        price = Objective(weight=weight).price(path, T, rule) * rule.gain(path, T) ** 2
        x0, eps, wrong = torch.ones(49, 1).double(), torch.zeros(49, 1).double(), torch.full((49, 1), 0.7).double()
        x = path.mix(x0, eps, T)
        believed = (x - path.alpha(T)[:, None] * wrong) / path.sigma(T)[:, None]
        dy = rule.target(path, wrong, believed, T) - rule.target(path, x0, eps, T)
        losses.append(price * dy.square().squeeze(1))
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-8, atol=0)


def test_simple_is_eps_mse_and_min_snr_caps_it() -> None:
    path, eps, v = paths.Cosine(), predictions.Eps(), predictions.V()
    ones = Simple().x0(path, T, eps) * eps.gain(path, T) ** 2
    torch.testing.assert_close(ones, torch.ones_like(T), rtol=1e-12, atol=0)
    # Hang et al. 2023: min(SNR, 5)/(SNR + 1) in v units, min(SNR, 5)/SNR in eps units
    snr = (path.alpha(T) / path.sigma(T)) ** 2
    got_v = MinSNR(5.0).x0(path, T, v) * v.gain(path, T) ** 2
    got_eps = MinSNR(5.0).x0(path, T, eps) * eps.gain(path, T) ** 2
    torch.testing.assert_close(got_v, snr.clamp(max=5) / (snr + 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(got_eps, snr.clamp(max=5) / snr, rtol=1e-12, atol=0)


def test_edm_weight_is_one_in_edm_units() -> None:
    """Karras et al. choose lambda(sigma) so that F's loss has weight 1."""
    for name in ("edm", "ve", "vp", "flow"):
        path, rule = paths.registry.make(name), predictions.EDM(sd=0.5)
        got = EDM(sd=0.5).x0(path, T, rule) * rule.gain(path, T) ** 2
        want = (
            torch.ones_like(T)
            if name in ("edm", "ve")
            else path.alpha(T) ** -2
            * (path.alpha(T) ** 2 + path.sigma(T) ** 2 / 0.25)
            * path.alpha(T) ** 2
            / (path.alpha(T) ** 2 + path.sigma(T) ** 2 / 0.25)
        )
        torch.testing.assert_close(got, want, rtol=1e-11, atol=0)


@pytest.mark.parametrize("path", ["vp", "cosine", "flow", "subvp"])
def test_likelihood_weighting_is_the_elbo(path: str) -> None:
    """g^2/(2 sigma^2) |d eps|^2 with g^2 = d sigma^2/dt - 2 (alpha'/alpha) sigma^2 (Song et al. 2021b, eq. 7)."""
    path = paths.registry.make(path)
    alpha, sigma, (da, ds) = path.alpha(T), path.sigma(T), path.rates(T)
    g2 = 2 * sigma * ds - 2 * da / alpha * sigma**2
    eps = predictions.Eps()
    got = ELBO().x0(path, T, eps) * eps.gain(path, T) ** 2
    torch.testing.assert_close(got, g2 / (2 * sigma**2), rtol=1e-9, atol=0)


@pytest.mark.parametrize("times", objective.times.names())
@pytest.mark.parametrize("path", ["vp", "flow", "cosine"])
def test_draws_have_their_density(times: str, path: str) -> None:
    """P(t <= q) counted equals the integral of p, and quantiles invert it."""
    path, sampler = paths.registry.make(path), objective.times.make(times)
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    t = sampler.times(u, path).sort().values
    inner = t[(t > 1e-6) & (t < 1 - 1e-6)]
    middle = (inner[1:] + inner[:-1]) / 2
    mass = (sampler.density(middle, path) * inner.diff()).sum()
    assert abs(mass - (len(inner) - 1) / 20_000) < 2e-3


def test_stratified_times_cover_every_stratum() -> None:
    t = Stratified(strata=32).numbers(0, torch.arange(320))
    assert all(sorted((block * 32).long().tolist()) == list(range(32)) for block in t.split(32))


def test_elbo_does_not_depend_on_the_times() -> None:
    """An integral over t has the same value however its points are drawn: three densities, one number."""
    data = GaussianMixture.random(3, 2, seed=2)
    path, index = paths.VP(), torch.arange(40_000)
    x0 = data.sample(len(index), seed=5)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    means, errors = [], []
    for times in (Uniform(), LogitNormal(mean=-0.5, std=1.5), LogNormalSigma(mean=-1.0, std=2.0)):
        aim = Objective(times=times, weight=ELBO(), span=(2e-3, 1 - 1e-6))
        t = aim.draw(path, 0, index).clamp(max=1 - 1e-9)
        inside = (t > 0.05) & (t < 0.9)
        d = data.at(path)(path.mix(x0, eps, t), t)
        cost = torch.where(inside, aim.price(path, t, predictions.Eps()) * (d.x0 - x0).square().sum(1), 0.0)
        means.append(cost.mean().item())
        errors.append(cost.std().item() / math.sqrt(len(index)))
    for mean, error in zip(means[1:], errors[1:], strict=True):
        assert abs(mean - means[0]) < 4 * math.hypot(error, errors[0])


def test_unit_weight_is_the_answers_own_mse() -> None:
    for name in predictions.registry.names():
        rule = predictions.registry.make(name)
        got = Unit().x0(paths.Flow(), T, rule) * rule.gain(paths.Flow(), T) ** 2
        torch.testing.assert_close(got, torch.ones_like(T), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", predictions.registry.names())
def test_the_loss_is_the_answers_error_at_its_price(name: str) -> None:
    """Unit: the mean square error of y itself; simple: that of eps, whatever is predicted."""
    g = torch.Generator().manual_seed(3)
    x0, eps, y = (torch.randn(len(T), 4, generator=g, dtype=torch.float64) for _ in range(3))

    class Stubborn(torch.nn.Module):
        path, prediction = paths.Cosine(), predictions.registry.make(name)

        def answer(self, x: torch.Tensor, t: torch.Tensor, cond: object = None) -> tuple[torch.Tensor, None]:
            return y, None

    model, t = Stubborn(), T
    target, x = model.prediction.target(model.path, x0, eps, t), model.path.mix(x0, eps, t)
    believed = predictions.solve(model.prediction, model.path, x, y, t)
    for weight, wrong in ((Unit(), y - target), (Simple(), believed.eps - eps)):
        loss = Objective(weight=weight).loss(model, x0, eps, t)  # type: ignore[arg-type]
        torch.testing.assert_close(loss, wrong.square().mean(1), rtol=1e-8, atol=0)


def learner_of_variance(bound: float) -> tuple[Denoiser, Objective]:
    """A small model with channels for its variance, and what it learns by."""
    with seeded(1):
        net = nets.registry.make({"name": "mlp", "width": 16, "blocks": 1, "out": 6}, (3,), 0)
        torch.nn.init.normal_(net.leave.weight, std=0.5)
    return Denoiser(net, "cosine", "eps"), Objective(weight=weights.make("simple"), bound=bound, steps=40)


def test_the_learned_variances_divergence_is_that_of_its_gaussians() -> None:
    """Against torch's own, from the posterior's mean and variance on every path (Nichol & Dhariwal 2021, eq. 15)."""
    t, step = torch.linspace(0.1, 0.95, 7, dtype=torch.float64), 0.05
    x0, guess, eps, spread = (normal(s, torch.arange(7), 0, (3,), dtype=torch.float64) for s in range(4))
    for path in (paths.VP(), paths.Flow(), paths.VE(), paths.Cosine()):
        s, x = t - step, path.mix(x0, eps, t)
        share = -torch.expm1(2 * (path.lam(t) - path.lam(s)))[:, None]
        least, most = path.sigma(s)[:, None] ** 2 * share, path.sigma(t)[:, None] ** 2 * share
        kept = path.sigma(s) * torch.exp(path.lam(t) - path.lam(s)) / path.sigma(t)
        mean = [path.alpha(s)[:, None] * c + kept[:, None] * (x - path.alpha(t)[:, None] * c) for c in (x0, guess)]
        std = torch.exp((spread * most.log() + (1 - spread) * least.log()) / 2)
        law = [torch.distributions.Normal(m, v) for m, v in zip(mean, (least.sqrt(), std), strict=True)]
        expected = torch.distributions.kl_divergence(*law).mean(1)
        torch.testing.assert_close(divergence(path, t, step, x0 - guess, spread), expected, rtol=1e-9, atol=1e-12)


def test_the_hybrid_loss_leaves_the_means_gradient_alone() -> None:
    """Nichol & Dhariwal 2021, section 3.1: the bound moves the variance and nothing else; without it nothing does."""
    x0, index = normal(0, torch.arange(32), 0, (3,)), torch.arange(32)
    grads = []
    for bound in (0.0, 0.5):
        model, objective = learner_of_variance(bound)
        objective(model, objective.lesson(x0, {}, 0, index), 0).mean().backward()
        grads.append(model.net.leave.weight.grad)
    torch.testing.assert_close(grads[0][:3], grads[1][:3], rtol=0, atol=0)
    assert not grads[0][3:].any() and grads[1][3:].any()


def test_the_spread_reaches_the_sampler_and_is_learnt_to_be_the_best() -> None:
    """Where the estimate is exact but for the data's own variance, the least divergence has d KL/d spread = 0."""
    path, t = paths.Cosine(), torch.full((4000,), 0.5, dtype=torch.float64)
    error = normal(3, torch.arange(4000), 0, (1,), dtype=torch.float64) * 0.2
    spread = torch.full((1,), 0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([spread], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        divergence(path, t, 0.1, error, spread.expand(4000, 1)).mean().backward()
        optimizer.step()
    h = path.lam(t - 0.1) - path.lam(t)
    k = torch.exp(2 * path.lam(t - 0.1)) * -torch.expm1(-2 * h)
    best = torch.log1p(k[0] * error.square().mean()) / (2 * (path.sigma(t) / path.sigma(t - 0.1)).log()[0])
    torch.testing.assert_close(spread.detach()[0], best, rtol=1e-3, atol=1e-3)
    assert learner_of_variance(0.1)[0](error.float().expand(-1, 3)[:5], t[:5]).spread.shape == (5, 3)


def test_a_learned_clock_is_moved_by_the_objective_and_does_not_move_its_value() -> None:
    net = nets.registry.make({"name": "mlp", "width": 16, "blocks": 1}, (3,), 0)
    model = Denoiser(net, paths.Learned(degree=6), "eps", clock="lam")
    still = Denoiser(net, paths.Cosine(), "eps", clock="lam")
    x0, index = normal(0, torch.arange(64), 0, (3,)), torch.arange(64)
    aim = Objective(weight=weights.make("elbo"))
    losses = [aim(m, aim.lesson(x0, {}, 0, index), 0) for m in (model, still)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)
    losses[0].mean().backward()
    assert model.path.logits.grad is None  # the loss is the same on every clock
    for m, found in zip((model, still), losses, strict=True):
        aim.even(m.path, found, 0, index)
    assert model.path.logits.grad.abs().max() > 0


def test_a_chains_bound_is_its_steps_divergence_and_tends_to_the_continuous_one() -> None:
    """With the least variance of all; at T times the steps what is left out is a T-th."""
    x0, guess = (normal(s, torch.arange(49), 0, (3,), dtype=torch.float64) for s in range(2))
    for path in (paths.VP(), paths.Flow(), paths.Cosine()):
        w = Chain(20).x0(path, T.clamp(min=0.1), predictions.Eps())
        expected = 20 * divergence(path, T.clamp(min=0.1), 1 / 20, x0 - guess, torch.zeros_like(x0))
        torch.testing.assert_close(w * (x0 - guess).square().mean(1), expected, rtol=1e-9, atol=0)
        exact, late = ELBO().x0(path, T, predictions.Eps()), T > 0.3
        misses = [(Chain(n).x0(path, T, predictions.Eps()) / exact - 1)[late].abs() for n in (1000, 2000)]
        assert torch.allclose(misses[0] / misses[1], torch.tensor(2.0).double(), rtol=0.02)


def test_the_bound_alone_teaches_mean_and_variance() -> None:
    """Its gradients, by the mean and by the variance, are those of the divergence itself."""
    model, _ = learner_of_variance(0.0)
    aim, t = Objective(weight=Chain(40)), torch.linspace(0.1, 0.9, 32, dtype=torch.float64)
    x0, eps = (normal(s, torch.arange(32), 0, (3,)) for s in range(2))
    loss = aim.loss(model, x0, eps, t)
    d = model(model.path.mix(x0, eps, t), t)
    torch.testing.assert_close(loss, 40 * divergence(model.path, t, 1 / 40, x0 - d.x0, d.spread), rtol=1e-5, atol=1e-6)
    loss.mean().backward()
    assert model.net.leave.weight.grad[:3].any() and model.net.leave.weight.grad[3:].any()


LEVELS = 20


def known(t: torch.Tensor) -> torch.Tensor:
    """A loss that is known: it lies in few of the levels, as that of the bound does."""
    return torch.exp(-6 * (t * LEVELS).floor() / LEVELS) * 50


def informed() -> SecondMoment:
    """Times that have heard the loss everywhere."""
    times = SecondMoment(levels=LEVELS)
    while times.heard.min() < 10:
        t = times.times(times.numbers(0, torch.arange(64) + int(times.heard.sum())), paths.VP())
        assert torch.equal(times.density(t, paths.VP()), torch.ones_like(t))  # all alike until every level is known
        times.hear(t, known(t))
    return times


def test_times_by_second_moments_leave_the_mean_and_take_its_variance() -> None:
    """Nichol & Dhariwal 2021, sec. 3.3: p_k ~ sqrt(E l_k^2). For a loss without noise nothing is left to vary."""
    times, exact = informed(), known(torch.arange(LEVELS).double() / LEVELS)
    chances = 0.999 * exact / exact.sum() + 0.001 / LEVELS
    torch.testing.assert_close(times.chances(), chances)
    share = exact / (LEVELS * chances)  # what a draw of each level says: its expectation and variance, in full
    torch.testing.assert_close((chances * share).sum(), exact.mean())
    assert (chances * share.square()).sum() - exact.mean() ** 2 < 1e-3 * exact.var(unbiased=False)
    t = times.times(times.numbers(1, torch.arange(4000)), paths.VP())
    said = known(t) / times.density(t, paths.VP())
    assert abs(said.mean() - exact.mean()) < 4 * said.std() / 4000**0.5
    assert said.std() < 0.1 * known(torch.rand(4000, generator=torch.Generator().manual_seed(0)).double()).std()


def test_of_each_level_the_last_ten_losses_are_remembered() -> None:
    """However they come: one by one, or many of a level in one batch."""
    t, losses = torch.rand(300, generator=torch.Generator().manual_seed(1)).double(), torch.arange(300).double()
    whole, single = SecondMoment(levels=7), SecondMoment(levels=7)
    for part in torch.arange(300).split(130):
        whole.hear(t[part], losses[part])
    for i in range(300):
        single.hear(t[i : i + 1], losses[i : i + 1])
    for k in range(7):
        last = losses[(t * 7).long() == k][-10:]
        assert all(torch.equal(times.losses[k].sort().values, last) for times in (whole, single))
    assert torch.equal(whole.losses, single.losses) and torch.equal(whole.heard, single.heard)


def test_a_price_stands_for_uniform_times_where_they_learn() -> None:
    """Whatever the weight and wherever it looks, the expected loss is that of uniform times."""
    times, index = informed(), torch.arange(30_000)
    x0, eps = (normal(s, index, 0, (2,), dtype=torch.float64) for s in range(2))

    class Silent(torch.nn.Module):
        path, prediction = paths.VP(), predictions.Eps()

        def answer(self, x: torch.Tensor, t: torch.Tensor, cond: object = None) -> tuple[torch.Tensor, None]:
            return torch.zeros_like(x), None

    found = []
    for law in (Uniform(), times):
        aim = Objective(law, MinSNR())
        loss = aim.loss(Silent(), x0, eps, aim.draw(Silent.path, 0, index))  # type: ignore[arg-type]
        found.append((loss.mean(), loss.std() / len(index) ** 0.5))
    assert abs(found[0][0] - found[1][0]) < 4 * torch.hypot(found[0][1], found[1][1])
