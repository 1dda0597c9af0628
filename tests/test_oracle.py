"""The judge is judged: against quadrature, against automatic differentiation, and against counting."""

import math

import pytest
import torch
from torch import Tensor

from pellucid import PellucidError, paths
from pellucid.explain.verify.theorem import all_paths, times
from pellucid.oracle import Empirical, GaussianMixture

PATHS = all_paths()
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
LINE = GaussianMixture(times(1.0, 2.0, 1.0), times(-1.5, 0.2, 2.0)[:, None], times(0.05, 0.3, 0.5)[:, None, None])
PLANE = GaussianMixture.random(4, 2, seed=3)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def at(t: float, n: int) -> Tensor:
    return times(t).expand(n)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("path", [paths.Cosine(), paths.Flow(), paths.VE()], ids=["cosine", "flow", "ve"])
def test_the_pair_is_the_conditional_mean_by_quadrature(path: paths.Path, t: float) -> None:
    """E[x0 | x_t] = int x0 p(x0) N(x_t; alpha x0, sigma^2) dx0 / p(x_t), by brute force in one dimension."""
    x0 = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    prior = sum(
        w * torch.exp(-((x0 - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
        for w, m, v in ((0.25, -1.5, 0.05), (0.5, 0.2, 0.3), (0.25, 2.0, 0.5))
    )
    alpha, sigma = float(path.alpha(times(t))), float(path.sigma(times(t)))
    x = sigma * torch.linspace(-2, 2, 9, dtype=torch.float64) + 0.3 * alpha
    kernel = torch.exp(-((x[:, None] - alpha * x0) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi) / sigma
    mass = torch.trapezoid(prior * kernel, x0)
    d = LINE.at(path)(x[:, None], at(t, 9))
    close(d.x0[:, 0], torch.trapezoid(prior * kernel * x0, x0) / mass, 1e-8)
    close(d.eps[:, 0], torch.trapezoid(prior * kernel * (x[:, None] - alpha * x0) / sigma, x0) / mass, 1e-8)
    close(LINE.log_prob(x[:, None], path, t), mass.log(), 1e-8)


@every_path
def test_tweedie(path: paths.Path) -> None:
    """x0 = (x + sigma^2 grad log p(x_t))/alpha and eps = -sigma grad log p(x_t), the gradient by autodiff."""
    for t in path.time(times(3.0, 0.5, -1.5)).tolist():
        alpha, sigma = path.alpha(times(t)), path.sigma(times(t))
        x = path.mix(PLANE.sample(50, seed=1), torch.ones(50, 2, dtype=torch.float64), at(t, 50)).requires_grad_()
        (score,) = torch.autograd.grad(PLANE.log_prob(x, path, t).sum(), x)
        d = PLANE.at(path)(x.detach(), at(t, 50))
        close(d.eps, -sigma * score, 1e-8)
        close(d.x0, (x + sigma**2 * score) / alpha, 1e-8)


@every_path
@pytest.mark.parametrize("data", [PLANE, Empirical(PLANE.sample(20))], ids=["mixture", "empirical"])
def test_the_pair_mixes_to_x(path: paths.Path, data: GaussianMixture | Empirical) -> None:
    t = torch.cat([path.time(torch.linspace(6, -2, 30, dtype=torch.float64)), times(1.0)])
    x = path.mix(PLANE.sample(31), PLANE.sample(31, seed=5), t)
    d = data.at(path)(x, t)
    close(path.mix(d.x0, d.eps, t), x)


@every_path
def test_the_pair_is_finite_and_exact_where_there_is_no_room(path: paths.Path) -> None:
    """Data on lines: at t = 0 they are what is seen, and of the noise nothing is; without any room it is a data set."""
    lines = torch.stack([torch.diag(times(1.0, 0.0)), torch.diag(times(0.0, 0.3))])
    mixture = GaussianMixture(times(1.0, 2.0), PLANE.means[:2], lines)
    x = mixture.sample(40)
    d = mixture.at(path)(x, at(0.0, 40))
    close(d.x0, x)
    close(d.eps, torch.zeros_like(x))
    points = PLANE.sample(7)
    still = GaussianMixture(torch.ones(7), points, torch.zeros(2, 2))
    for t in (0.0, 0.4, 1.0):
        one, other = (data.at(path)(points, at(t, 7)) for data in (still, Empirical(points)))
        close(one.x0, other.x0, 1e-7)
        close(one.eps, other.eps, 1e-7)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_densities_integrate_to_one(t: float) -> None:
    path, side = paths.Cosine(), torch.linspace(-9, 9, 601, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    cell = float(side[1] - side[0]) ** 2
    assert float(PLANE.log_prob(points, path, t).exp().sum() * cell) == pytest.approx(1, abs=1e-6)
    if t > 0:
        data = Empirical(PLANE.sample(10))
        assert float(data.log_prob(points, path, t).exp().sum() * cell) == pytest.approx(1, abs=1e-6)


def test_samples_have_the_mixtures_moments_and_entropy() -> None:
    x, n = PLANE.sample(100_000, seed=2), 100_000
    centre = PLANE.weights @ PLANE.means
    spread = PLANE.means - centre
    covariance = torch.einsum("k,kij->ij", PLANE.weights, PLANE.covariances + spread[:, :, None] * spread[:, None])
    assert float((x.mean(0) - centre).abs().max()) < 4 * float(x.std(0).max()) / math.sqrt(n)
    close(x.T.cov(), covariance, 0.02)
    side = torch.linspace(-9, 9, 601, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    log_p = PLANE.log_prob(points)
    entropy = -(log_p.exp() * log_p).sum() * (side[1] - side[0]) ** 2
    close(-PLANE.log_prob(x).mean(), entropy, 0.02)
    assert torch.equal(PLANE.sample(5, seed=2), x[:5])
    which = [torch.cdist(PLANE.sample(50, seed=seed), PLANE.means).argmin(1).tolist() for seed in (2, 3)]
    assert sum(a == b for a, b in zip(*which, strict=True)) < 30  # another seed, other components


def test_the_mean_of_beliefs_is_the_mean_of_the_data() -> None:
    """E[E[x0 | x_t]] = E[x0] and E[E[eps | x_t]] = 0, at any t."""
    path, n = paths.VP(), 40_000
    x0, eps = (
        PLANE.sample(n, seed=4),
        torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    )
    for t in (0.1, 0.5):
        d = PLANE.at(path)(path.mix(x0, eps, at(t, n)), at(t, n))
        close(d.x0.mean(0), PLANE.weights @ PLANE.means, 0.03)
        close(d.eps.mean(0), torch.zeros(2, dtype=torch.float64), 0.03)


@every_path
def test_a_data_set_is_a_mixture_without_width(path: paths.Path) -> None:
    points = PLANE.sample(12, seed=9)
    narrow = GaussianMixture(torch.ones(12), points, times(1e-14)[0])
    t = path.time(torch.linspace(2, -2, 40, dtype=torch.float64))
    x = path.mix(PLANE.sample(40), PLANE.sample(40, seed=8), t)
    for one, other in zip(Empirical(points).at(path)(x, t)[:2], narrow.at(path)(x, t)[:2], strict=True):
        close(one, other, 1e-7)
    close(Empirical(points).log_prob(x, path, t), narrow.log_prob(x, path, t), 1e-7)


def test_a_data_set_recalls_its_points_and_forgets_them() -> None:
    points = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    oracle, labels = Empirical(points).at(paths.Cosine()), torch.arange(30) % 3
    close(oracle(points + 1e-3, at(1e-5, 30)).x0, points)
    close(oracle(points, at(1.0, 30)).x0, points.mean(0).expand(30, 1, 4, 4))
    assert oracle(points, at(0.0, 30)).eps.isfinite().all() and oracle.shape == (1, 4, 4)
    named = Empirical(points, labels).at(paths.Cosine())
    close(named(points, at(1.0, 30), {"label": labels}).x0[:3], torch.stack([points[i::3].mean(0) for i in range(3)]))
    drawn = Empirical(points).sample(3000, seed=1).flatten(1)
    counts = (drawn[:, None] == points.flatten(1)).all(2).sum(0)
    assert counts.sum() == 3000 and counts.min() > 60 and counts.max() < 140


@pytest.mark.parametrize("drop", [None, [False] * 6, [True] * 6, [True, False] * 3])
def test_a_label_restricts_to_its_components_unless_it_is_dropped(drop: list[bool] | None) -> None:
    path, t = paths.VP(), at(0.4, 6)
    x, label = PLANE.sample(6, seed=3), torch.tensor([0, 1] * 3)
    cond = {"label": label} | ({"drop": torch.tensor(drop)} if drop else {})
    got = PLANE.at(path)(x, t, cond)
    whole = PLANE.at(path)(x, t)
    for i in range(6):
        own = PLANE.labels == label[i]
        part = GaussianMixture(PLANE.weights[own], PLANE.means[own], PLANE.covariances[own]).at(path)(x, t)
        expected = whole if drop and drop[i] else part
        close(got.x0[i], expected.x0[i])
        close(got.eps[i], expected.eps[i])


def test_single_precision_in_single_precision_out() -> None:
    d = PLANE.at(paths.VP())(PLANE.sample(3).float(), at(0.5, 3))
    assert d.x0.dtype == d.eps.dtype == torch.float32


def test_covariances_may_be_short() -> None:
    full = GaussianMixture(times(1.0, 1.0), torch.zeros(2, 2), 0.3 * torch.eye(2).expand(2, 2, 2))
    for short in (times(0.3)[0], 0.3 * torch.eye(2)):
        close(GaussianMixture(times(1.0, 1.0), torch.zeros(2, 2), short).covariances, full.covariances, 1e-7)
    close(full.weights, times(0.5, 0.5))


def test_diagonals_are_the_matrices_they_stand_for() -> None:
    variances = times(0.1, 0.5, 0.02, 0.3, 0.2, 0.7).reshape(2, 1, 3)
    w, means = times(1.0, 2.0), PLANE.means[:2] @ times(1.0, 0.5, -1.0, 0.2, 0.3, 0.4).reshape(2, 3)
    rows, full = (GaussianMixture(w, means, v) for v in (variances, torch.diag_embed(variances[:, 0])))
    path, x, t = paths.VP(), full.sample(5), at(0.4, 5)
    for got, expected in zip(rows.at(path)(x, t), full.at(path)(x, t), strict=True):
        close(got, expected)
    close(rows.log_prob(x, path, 0.4), full.log_prob(x, path, 0.4))
    assert rows.std == pytest.approx(full.std)
    drawn = rows.sample(100_000)
    close(drawn.mean(0), full.weights @ full.means, 0.01)
    close((drawn**2).mean(0), full.weights @ (variances[:, 0] + means**2), 0.02)


def test_a_mixture_of_pictures_costs_what_it_must() -> None:
    means = torch.eye(3, 3072)
    for variances in (times(0.1)[0], torch.full((3, 1, 3072), 0.1)):
        assert GaussianMixture(torch.ones(3), means, variances).at(paths.VP())(means, at(0.5, 3)).x0.shape == (3, 3072)


@pytest.mark.parametrize(
    "weights, covariance", [((1.0, -1.0), 1.0), ((1.0, 1.0), -1.0), ((1.0, 0.0), 1.0), ((1.0,), 1.0)]
)
def test_a_mixture_that_cannot_be_is_refused(weights: tuple[float, ...], covariance: float) -> None:
    with pytest.raises(PellucidError, match="mixture"):
        GaussianMixture(torch.tensor(weights), torch.zeros(2, 3), torch.tensor(covariance))


@pytest.mark.parametrize("covariance", [[[1.0, float("nan")], [float("nan"), 1.0]], [[1.0, 0.5], [0.0, 1.0]]])
def test_a_covariance_is_finite_and_symmetric(covariance: list[list[float]]) -> None:
    with pytest.raises(PellucidError, match="finite|symmetric"):
        GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.tensor(covariance))


@pytest.mark.parametrize("data", [PLANE, Empirical(torch.eye(2), torch.tensor([0, 1]))], ids=["mixture", "points"])
def test_a_class_without_data_is_refused_unless_it_is_dropped(data: GaussianMixture | Empirical) -> None:
    model, x, cond = data.at(paths.Flow()), torch.ones(1, 2), {"label": torch.tensor([7])}
    with pytest.raises(PellucidError, match="label 7 has no data; take one of"):
        model(x, times(0.5), cond)
    close(model(x, times(0.5), {**cond, "drop": torch.tensor([True])}).x0, model(x, times(0.5)).x0)
