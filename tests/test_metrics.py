"""The metrics: closed forms, brute force, invariances; and tests that keep their level and have power."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pellucid import PellucidError
from pellucid.metrics import (
    Case,
    Figure,
    Metric,
    Moments,
    View,
    bootstrap,
    c2st,
    class_accuracy,
    copies,
    copy_ratio,
    decibels,
    density_coverage,
    energy_distance,
    expected_coverage,
    frechet,
    frechet_distance,
    frechet_limit,
    gaussian,
    halved,
    influence,
    judge,
    kid,
    mmd,
    moments,
    nearest,
    origin,
    polynomial,
    precision_recall,
    registry,
    share,
    sliced_wasserstein,
    snr,
    spectrum,
    two_sample,
    vendi,
)
from pellucid.metrics.sets import spaced
from pellucid.metrics.sliced import wasserstein


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normal(d, d, seed=seed)).Q


def permutations(n: int, times: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randperm(n, generator=rng) for _ in range(times)]


# energy -----------------------------------------------------------------------------------------------------------


def test_energy_of_point_masses() -> None:
    x, y = torch.zeros(3, 2), torch.tensor([[3.0, 4.0]]).repeat(5, 1)
    assert energy_distance(x, y) == pytest.approx(2 * 5)


def test_energy_of_equal_samples_is_zero_and_else_positive() -> None:
    x = normal(40, 3)
    assert energy_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-14)
    assert energy_distance(x, normal(30, 3, seed=1)) > 0


def test_energy_in_one_dimension_is_twice_the_area_between_the_distribution_functions() -> None:
    x, y = normal(50, 1), 0.5 + 2 * normal(70, 1, seed=1)  # Szekely & Rizzo: E = 2 integral (F - G)^2
    knots = torch.cat([x, y]).flatten().sort().values
    f, g = ((sample.flatten() <= knots[:-1].unsqueeze(1)).double().mean(1) for sample in (x, y))
    assert energy_distance(x, y) == pytest.approx((2 * (f - g) ** 2 * knots.diff()).sum().item(), rel=1e-6)


def test_energy_is_invariant_to_motion_and_follows_scale() -> None:
    x, y, q = normal(40, 4), normal(50, 4, seed=1) + 0.3, rotation(4)
    assert energy_distance(3 * x @ q + 1, 3 * y @ q + 1) == pytest.approx(3 * energy_distance(x, y), rel=1e-9)


def test_two_sample_observes_the_energy_distance_and_its_mean_under_the_null() -> None:
    x, y = normal(12, 2), normal(8, 2, seed=1)
    points = torch.cat([x, y])
    assert two_sample(x, y, rounds=1).distance == pytest.approx(energy_distance(x, y), rel=1e-9)
    parted = [two_sample(points[i[:12]], points[i[12:]], rounds=1).distance for i in permutations(20, 3000)]
    expected = torch.pdist(points).mean().item() * (1 / 12 + 1 / 8)
    error = torch.tensor(parted).std().item() / 3000**0.5
    assert sum(parted) / 3000 == pytest.approx(expected, abs=4 * error)


def test_two_sample_keeps_its_level_and_has_power() -> None:
    same = [two_sample(normal(20, 2, seed=i), normal(30, 2, seed=1000 + i), rounds=39, seed=i).p for i in range(200)]
    rejected = sum(p <= 0.1 for p in same)  # binomial(200, 0.1): 20 +- 4.2
    assert 6 <= rejected <= 34
    assert two_sample(normal(100, 2), normal(100, 2, seed=1) + 1, rounds=199).p == pytest.approx(1 / 200)


# classes ----------------------------------------------------------------------------------------------------------


def test_judge_reads_separated_classes_and_counts_the_others() -> None:
    label = torch.arange(60) % 3
    x = torch.eye(3)[label] * 10 + normal(60, 3).float() * 0.1
    read = judge(x, label)
    assert class_accuracy(read, x, label).value == 1
    wrong = label.clone()
    wrong[:15] = (wrong[:15] + 1) % 3
    share = class_accuracy(read, x, wrong)
    assert share.value == pytest.approx(0.75) and share.error == pytest.approx((0.75 * 0.25 / 60) ** 0.5)


def test_judge_reads_the_held_out_digits() -> None:
    from pellucid.data import load

    digits = load("digits")
    assert digits.test is not None and digits.train.label is not None and digits.test.label is not None
    read = judge(digits.train.x, digits.train.label)
    assert class_accuracy(read, digits.test.x, digits.test.label).value >= 0.975
    assert class_accuracy(read, 255 - digits.test.x, digits.test.label).value < 0.5


# neighbours -------------------------------------------------------------------------------------------------------


def test_nearest_is_brute_force() -> None:
    x, data = normal(7, 3, 2), normal(300, 3, 2, seed=1)
    brute = [min((a - b).norm().item() for b in data) for a in x]
    assert nearest(x, data).tolist() == pytest.approx(brute, rel=1e-9)


def test_copies_are_found_among_new_samples_with_their_originals() -> None:
    train, fresh = normal(400, 6), normal(200, 6, seed=1)
    mixed = torch.cat([train[:40] + 0.05 * normal(40, 6, seed=2), fresh])
    found = origin(mixed, train)
    assert found.place[:40].tolist() == list(range(40)) and (found.ratio[:40] < 1 / 3).all()
    assert copies(mixed, train).low > copies(fresh, train).high
    brute = (fresh[:5, None] - train).norm(dim=2).sort(1).values[:, :2]
    assert torch.allclose(found.distance[40:45], brute[:, 0]) and torch.allclose(
        found.ratio[40:45], brute[:, 0] / brute[:, 1]
    )
    assert copies(train[:3], train.repeat(2, 1)).value == 1  # 0 of 0: the training data hold each twice


def test_copy_ratio_of_copies_of_fresh_data_and_of_strangers() -> None:
    train, held_out, fresh = normal(400, 4), normal(200, 4, seed=1), normal(200, 4, seed=2)
    assert copy_ratio(train[:200], train, held_out).value == pytest.approx(0, abs=1e-6)
    assert copy_ratio(held_out, train, held_out).value == 1
    ratio = copy_ratio(fresh, train, held_out)
    assert abs(ratio.value - 1) < 4 * ratio.error < 0.5
    assert copy_ratio(fresh + 10, train, held_out).value > 4


# moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[100], [1] * 100, [99, 1], [3, 40, 57]])
def test_moments_of_a_stream_are_those_of_the_whole(sizes: list[int]) -> None:
    x = 1000 + normal(100, 5) @ normal(5, 5, seed=1)  # far from 0: sums of squares would lose half the digits
    streamed = moments(part.clone() for part in x.split(sizes))
    assert streamed.n == 100 and torch.allclose(streamed.mean, x.mean(0), rtol=1e-14)
    assert torch.allclose(streamed.covariance, x.T.cov(), rtol=1e-11, atol=0)


def test_moments_of_many_features_are_computed_in_blocks() -> None:
    x = normal(40, 700).float()
    assert torch.allclose(moments(x).covariance, x.double().T.cov(), rtol=1e-12, atol=1e-14)


# frechet ----------------------------------------------------------------------------------------------------------


def definition(x: Tensor, y: Tensor) -> float:
    from scipy.linalg import sqrtm

    one, other = torch.atleast_2d(x.T.cov()), torch.atleast_2d(y.T.cov())
    root = sqrtm((one @ other).numpy()).real
    return ((x.mean(0) - y.mean(0)).square().sum() + (one + other).trace() - 2 * root.trace()).item()


@pytest.mark.parametrize("d", [1, 12, 300])
def test_frechet_is_its_definition(d: int) -> None:
    x, y = normal(400, d) @ normal(d, d, seed=1) / d**0.5, normal(350, d, seed=2).relu() + 0.1
    assert frechet(x, y) == pytest.approx(definition(x, y), rel=1e-6)
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(definition(x, y), rel=1e-6)


def test_frechet_of_commuting_gaussians_compares_their_deviations() -> None:
    q, s1, s2 = rotation(5), torch.arange(5).double(), torch.arange(5).flip(0).double() + 0.5
    m1, m2 = normal(5), normal(5, seed=1)
    a, b = Moments(2, m1, q @ (s1**2).diag() @ q.T), Moments(2, m2, q @ (s2**2).diag() @ q.T)
    expected = (m1 - m2).square().sum() + (s1 - s2).square().sum()  # one deviation is 0: singular
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_with_fewer_samples_than_features() -> None:
    x, y = normal(10, 40), normal(15, 40, seed=1) + 0.1
    cx, cy = (x - x.mean(0)) / 3, (y - y.mean(0)) / 14**0.5  # C = c' c, so tr (C1 C2)^(1/2) is a nuclear norm
    nuclear = torch.linalg.svdvals(cx @ cy.T).sum()
    expected = (x.mean(0) - y.mean(0)).square().sum() + cx.square().sum() + cy.square().sum() - 2 * nuclear
    assert frechet(x, y) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_of_sets_that_do_not_vary() -> None:
    x, y = torch.ones(5, 3), normal(200, 3)
    expected = (1 - y.mean(0)).square().sum() + y.T.cov().trace()
    assert frechet(x, y) == pytest.approx(expected.item(), rel=1e-12) == frechet(y, x)
    assert frechet(x, 3 * x) == 12


def test_frechet_is_a_squared_distance() -> None:
    sets = [(1 + i) * normal(50, 6, seed=i) + i for i in range(3)]
    ab, bc, ac = (math.sqrt(frechet(*pair)) for pair in itertools.combinations(sets, 2))
    assert frechet(sets[0], sets[0]) == pytest.approx(0, abs=1e-9)
    assert frechet(sets[1], sets[0]) == pytest.approx(ab**2, rel=1e-9)
    assert bc <= ab + ac and ac <= ab + bc


def weighted(x: Tensor, w: Tensor) -> Moments:
    mean = (w @ x) / w.sum()
    return Moments(len(x), mean, ((x - mean).T * (w / w.mean())) @ (x - mean))


@pytest.mark.parametrize("d", [3, 30])
def test_an_influence_is_the_slope_in_a_weight(d: int) -> None:
    x, y = normal(20, d) * 2 + 1, normal(25, d, seed=1)
    found, ones = influence(x, y), torch.ones(20).double()
    assert found.distance == pytest.approx(frechet(x, y), rel=1e-9)
    for i in (0, 7):
        e = torch.zeros(20).double()
        e[i] = 20e-4  # of one sample more: F moves by 1e-4 towards it
        up, down = (frechet_distance(weighted(x, ones + s * e), moments(y)) for s in (1, -1))
        assert found.x[i].item() == pytest.approx((up - down) / 2e-4, rel=1e-5)
    turned = influence(y, x)
    assert torch.allclose(turned.y, found.x, rtol=1e-6) and torch.allclose(turned.x, found.y, rtol=1e-6)


def test_the_bootstrap_along_influences_is_the_bootstrap() -> None:
    x, y = normal(300, 3) * 1.5 + 0.5, normal(200, 3, seed=1)
    rng, found = torch.Generator().manual_seed(0), []
    for _ in range(400):
        i, j = (torch.randint(n, (n,), generator=rng) for n in (300, 200))
        found.append(frechet(x[i], y[j]))
    whole = torch.tensor(found).std().item()
    assert bootstrap(*influence(x, y)).error == pytest.approx(whole, rel=4 / 800**0.5)  # its own error


def test_the_limit_is_the_distance_of_the_laws() -> None:
    d = torch.tensor([frechet_limit(normal(400, 8, seed=i), normal(300, 8, seed=1000 + i) + 0.2) for i in range(60)])
    biased = frechet(normal(400, 8), normal(300, 8, seed=1000) + 0.2)
    assert abs(d.mean().item() - 8 * 0.04) < 4 * d.std().item() / 60**0.5 < 0.05 < biased - 8 * 0.04


# kernels ----------------------------------------------------------------------------------------------------------


def brute_mmd(k: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor) -> float:
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kid_is_brute_force_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(13, 4), normal(9, 4, seed=1) + 0.5
    brute = brute_mmd(lambda a, b: (a @ b / 4 + 1).item() ** 3, x, y)
    whole = mmd(x, y, polynomial)
    assert kid(x, y) == pytest.approx(brute, rel=1e-12)
    monkeypatch.setattr("pellucid.metrics.kernel.BLOCK", 4)
    assert kid(x, y) == pytest.approx(brute, rel=1e-12)
    assert torch.allclose(mmd(x, y, polynomial).x, whole.x, rtol=1e-12)


def test_mmd_is_brute_force_with_the_width_of_the_real_data() -> None:
    x, y = normal(13, 4), normal(9, 4, seed=1) + 0.5
    s = torch.pdist(y).median().item()
    brute = brute_mmd(lambda a, b: math.exp(-(a - b).square().sum().item() / (2 * s * s)), x, y)
    assert mmd(x, y, gaussian(y)).squared == pytest.approx(brute, rel=1e-9)


def test_mmd_has_no_bias() -> None:
    kernel = gaussian(normal(100, 3))
    found = torch.tensor([mmd(normal(20, 3, seed=i), normal(30, 3, seed=999 + i), kernel).squared for i in range(300)])
    assert abs(found.mean().item()) < 4 * found.std().item() / 300**0.5


# neighbourhoods ---------------------------------------------------------------------------------------------------


def brute_manifolds(x: Tensor, y: Tensor, k: int) -> list[list[bool]]:
    """[n][m] whether x_i lies within the distance of y_j to its k-th nearest other."""
    radius = [sorted((y[j] - other).norm().item() for i, other in enumerate(y) if i != j)[k - 1] for j in range(len(y))]
    return [[(a - b).norm().item() <= r for b, r in zip(y, radius, strict=True)] for a in x]


@pytest.mark.parametrize("k", [1, 3])
def test_precision_recall_density_and_coverage_are_brute_force(k: int) -> None:
    x, y = normal(23, 2), normal(31, 2, seed=1) * 0.5 + 0.5
    near, turned = brute_manifolds(x, y, k), brute_manifolds(y, x, k)
    precision, recall = (sum(map(any, rows)) / len(rows) for rows in (near, turned))
    assert precision_recall(x, y, k) == (pytest.approx(precision), pytest.approx(recall))
    density, coverage = sum(map(sum, near)) / (k * 23), sum(map(any, zip(*near, strict=True))) / 31
    assert density_coverage(x, y, k) == (pytest.approx(density), pytest.approx(coverage))
    assert 0.2 < min(precision, recall, coverage) < max(precision, recall, coverage) < 1


def test_density_and_coverage_of_equal_laws_have_the_means_of_theory() -> None:
    found = torch.tensor([density_coverage(normal(40, 3, seed=i), normal(30, 3, seed=999 + i)) for i in range(200)])
    error = 4 * found.std(0) / 200**0.5
    expected = torch.tensor([1, expected_coverage(40, 30, 5)])
    assert ((found.mean(0) - expected).abs() < error).all() and (error < 0.06).all()


def test_neighbours_of_equal_points_lie_at_zero() -> None:
    x = torch.tensor([[1e3, 1.0], [1e3, 1.0], [1e3, 2.0]])
    assert precision_recall(x[:2].repeat(20, 1), x.repeat(20, 1)) == (1, pytest.approx(2 / 3))


# sliced wasserstein -----------------------------------------------------------------------------------------------


def test_sliced_wasserstein_of_a_line_matches_in_order() -> None:
    x, y = normal(4, 1), normal(6, 1, seed=1) + 2
    repeated = x.repeat_interleave(6, 0).sort(0).values - y.repeat_interleave(4, 0).sort(0).values
    assert sliced_wasserstein(x, y) == pytest.approx(repeated.square().mean().sqrt().item(), rel=1e-12)
    best = min((x[list(order)] - y[:4]).square().mean().sqrt().item() for order in itertools.permutations(range(4)))
    assert sliced_wasserstein(x, y[:4]) == pytest.approx(best, rel=1e-12)


def test_sliced_wasserstein_of_a_shift_is_its_length_over_the_root_of_the_dimension() -> None:
    x, shift = normal(50, 8), torch.full((8,), 3.0)
    found = sliced_wasserstein(x, x + shift, directions=20_000)  # mean (u's)^2 = |s|^2/d
    assert found == pytest.approx(3, rel=4 * (1.5 / 20_000) ** 0.5)


# classifier two-sample test ---------------------------------------------------------------------------------------


def test_a_classifier_guesses_where_laws_are_equal_and_tells_others_apart() -> None:
    blind = [c2st(normal(60, 2, seed=i), normal(80, 2, seed=999 + i), seed=i) for i in range(200)]
    assert sum(e.value for e in blind) / 200 == pytest.approx(0.5, abs=4 * (0.25 / 60 / 200) ** 0.5)
    assert 180 <= sum(e.low <= 0.5 <= e.high for e in blind) <= 199
    ring = torch.nn.functional.normalize(normal(400, 2), dim=1)  # the moments of the other set, but another law
    assert c2st(ring * 2**0.5, normal(400, 2, seed=1)).low > 0.6


def test_a_model_that_draws_one_sample_is_told_apart_at_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of the kernel is the data's, whatever the samples are."""
    monkeypatch.setattr("pellucid.metrics.kernel.MEDIAN_OF", 100)
    assert c2st(torch.zeros(400, 2), normal(400, 2)).low > 0.75


def test_the_first_of_sorted_data_do_not_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.metrics.kernel.MEDIAN_OF", 50)
    classes = 100.0 * (torch.arange(400) // 100)[:, None] + normal(400, 1)
    assert gaussian(classes)(classes[:1], classes[-1:]) > 0.01  # they lie apart by one and a half median distances
    held_out = torch.tensor([10.0] * 80 + [1.0] * 120)[:, None]
    assert copy_ratio(torch.ones(60, 1), torch.zeros(1, 1), held_out).value == 1
    assert spaced(400, 4).tolist() == [50, 150, 250, 350] and spaced(3, 9).tolist() == [0, 1, 2]


def test_places_among_many_are_exact() -> None:
    """Where single precision would round them."""
    n = 2**25 + 2
    assert spaced(n, 2).tolist() == [n // 4, 3 * n // 4]


# vendi ------------------------------------------------------------------------------------------------------------


def test_vendi_counts_the_different_samples() -> None:
    assert vendi(torch.eye(7).repeat(3, 1)).score == pytest.approx(7)
    assert vendi(torch.ones(9, 2) * torch.arange(1, 10)[:, None]).score == pytest.approx(1)
    share = torch.tensor([0.75, 0.25]).double()
    expected = torch.exp(-(share * share.log()).sum()).item()
    assert vendi(torch.eye(2)[[0, 0, 0, 1]]).score == pytest.approx(expected)


def test_vendi_knows_no_difference_between_samples_and_dimensions() -> None:
    x = normal(20, 12)
    wide = torch.cat([x, torch.zeros(20, 30)], 1)
    assert vendi(wide).score == pytest.approx(vendi(x).score, rel=1e-9)
    assert torch.allclose(vendi(wide).influence, vendi(x).influence, rtol=1e-9)


def test_vendis_influence_is_its_slope_in_a_weight() -> None:
    x = normal(20, 5)
    more = torch.cat([x.repeat(20_000, 1), x[:1]])  # e = 1/400001 towards the first
    slope = (vendi(more).score - vendi(x).score) * 400_001
    found = vendi(x)
    assert slope == pytest.approx((found.influence - found.influence.mean())[0].item(), rel=1e-3)


# estimates --------------------------------------------------------------------------------------------------------


def covered(estimates: list[Figure], truth: float) -> float:
    return sum(e.low <= truth <= e.high for e in estimates) / len(estimates)


def test_half_samples_give_the_error_of_a_mean() -> None:
    x = normal(40, 1)
    found = halved(0.0, lambda i: x[i].mean().item(), 40, rounds=4000)
    assert found.error == pytest.approx((x.var() / 40).sqrt().item(), rel=4 / 8000**0.5)


@pytest.mark.parametrize("p, n", [(0.5, 30), (0.03, 100), (0.99, 60)])
def test_the_interval_of_a_share_covers_it(p: float, n: int) -> None:
    found = [share(torch.rand(n, generator=torch.Generator().manual_seed(i)) < p) for i in range(1000)]
    assert covered(found, p) > 0.92
    assert share(torch.ones(50).bool())[2:] == (pytest.approx(0.9286, abs=1e-4), 1)  # 50/(50 + 1.96^2)


def one_hot(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0] < 0.6745, x[:, 0] >= 0.6745], 1).double()  # three quarters and one


APART = 2 * (2 * math.exp(-1 / 4) / math.pi**0.5 + math.erf(1 / 2)) - 4 / math.pi**0.5
CALIBRATED: dict[str, tuple[Callable[[Tensor, Tensor], Figure], float]] = {  # of x ~ N(0, 1) and y ~ N(1, 1)
    "frechet": (lambda x, y: quick(*influence(x, y)), 1),
    "limit": (lambda x, y: quick(frechet_limit(x, y), *influence(x, y)[1:]), 1),
    "kid": (lambda x, y: quick(*mmd(x / 2, y / 2, polynomial)), 19 / 16 + 44 / 16 - 2 * 22 / 16),
    "energy": (lambda x, y: quick(energy_distance(x, y), *mmd(x, y, lambda a, b: -torch.cdist(a, b))[1:]), APART),
    "vendi": (lambda x, y: quick(*vendi(one_hot(x))), 4 / 3**0.75),
    "wasserstein": (lambda x, y: halved(wasserstein(x, y), lambda i, j: wasserstein(x[i], y[j]), len(x), len(y)), 1),
}


def quick(value: float, *influences: Tensor) -> Figure:
    return bootstrap(value, *influences, rounds=400)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALIBRATED)
def test_an_interval_covers_the_truth_as_often_as_it_says(name: str) -> None:
    estimate, truth = CALIBRATED[name]
    found = [estimate(normal(300, 1, seed=i), normal(200, 1, seed=5000 + i) + 1) for i in range(300)]
    assert 0.92 <= covered(found, truth) <= 0.98


# spectral ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 12), (16,), (4, 5, 6)])
def test_spectrum_keeps_the_energy(size: tuple[int, ...]) -> None:
    x = normal(5, 3, *size)
    s = spectrum(x)
    assert (s.modes * s.power).sum().item() == pytest.approx(x.square().sum().item() / 15, rel=1e-12)
    assert s.modes.sum() == math.prod(size) and (s.modes > 0).all()


def test_spectrum_of_white_noise_is_one() -> None:
    s = spectrum(normal(2000, 1, 8, 8))
    error = (2 / (2000 * s.modes)).sqrt()  # |X|^2 of at most one real degree of freedom a mode
    assert ((s.power - 1).abs() < 4.5 * error).all()


@pytest.mark.parametrize("k", [0, 1, 3])
def test_spectrum_of_a_wave_is_a_line(k: int) -> None:
    wave = torch.cos(2 * math.pi * k * torch.arange(16) / 16).double().expand(1, 1, 16, 16)
    s = spectrum(wave)
    assert s.frequency[s.power > 1e-9].tolist() == [k]
    assert torch.equal(spectrum(wave.transpose(2, 3)).power > 1e-9, s.power > 1e-9)


def test_spectral_distance_is_in_decibels() -> None:
    power = torch.tensor([100.0, 4.0, 1.0])
    assert decibels(10 * power, power) == pytest.approx(10, rel=1e-4)
    assert decibels(power, 10 * power) == pytest.approx(10, rel=1e-4) and decibels(power, power) == 0
    assert 0 < decibels(torch.zeros(3), power) < math.inf  # pictures of one colour


def test_snr_is_what_the_bands_of_a_noisy_picture_have() -> None:
    alpha, sigma = torch.tensor([1.0, 0.8, 0.3]).double(), torch.tensor([0.0, 0.6, 0.9]).double()
    power = torch.tensor([100.0, 4.0]).double()
    expected = [[math.inf] * 2, [100 * 0.64 / 0.36, 4 * 0.64 / 0.36], [100 / 9, 4 / 9]]
    assert torch.allclose(snr(power, alpha, sigma), torch.tensor(expected).double())


# the registry -----------------------------------------------------------------------------------------------------


def view(n: int, seed: int, shift: float = 0.0) -> View:
    x, label = normal(n, 1, 4, 4, seed=seed) + shift, torch.arange(n) % 2
    x[:, 0, 0, 0] = x[:, 0, 0, 0].abs() * (2 * label - 1) + shift
    return View(x, x.flatten(1), label)


every_metric = pytest.mark.parametrize("name", registry.names())


def case(shift: float = 0.0) -> Case:
    """Samples of the data's law, or `shift` away from it; a judge that reads labels best where x has mean 0."""
    sets = view(120, 0, shift), view(100, 1), view(200, 2).x, view(120, 3)
    return Case(*sets, seed=3, judge=lambda x: (x[:, 0, 0, 0] > 0).long())


@every_metric
def test_a_metric_gives_figures_with_intervals_and_always_the_same(name: str) -> None:
    metric: Metric = registry.make(name)
    found = metric(case())
    assert found and found == metric(case())
    for estimate in found.values():
        assert math.isfinite(estimate.error)
        assert estimate.low <= estimate.value <= estimate.high and estimate.low < estimate.high


@every_metric
def test_real_data_score_the_floor_and_other_data_do_not(name: str) -> None:
    metric: Metric = registry.make(name)
    floor, same, far = metric(metric.floor(case())), metric(case()), metric(case(3.0))
    assert all(overlap(floor[key], same[key]) for key in floor)
    assert not all(overlap(floor[key], far[key]) for key in floor)


def overlap(a: Figure, b: Figure) -> bool:
    return max(a.low, b.low) <= min(a.high, b.high)


@every_metric
def test_a_metric_meets_samples_that_are_all_one(name: str) -> None:
    """A model that draws one picture is bad, but is measured."""
    stuck = View(torch.ones(50, 1, 4, 4), torch.ones(50, 16).double(), torch.zeros(50).long())
    for estimate in registry.make(name)(case().instead(stuck)).values():
        assert math.isfinite(estimate.value) and math.isfinite(estimate.error)


BAD: dict[str, tuple[Callable[[Tensor, Tensor], object], str]] = {
    "frechet": (frechet, "2 or more"),
    "influence": (influence, "2 or more"),
    "limit": (frechet_limit, "8 or more"),
    "kid": (kid, "2 or more"),
    "precision": (precision_recall, "4 or more"),
    "density": (density_coverage, "6 or more"),
    "c2st": (c2st, "4 or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_has_no_distance_is_one_sentence(name: str) -> None:
    metric, least = BAD[name]
    x = normal(10, 3)
    with pytest.raises(PellucidError, match=f"a set has 0 samples; expected {least}"):
        metric(x[:0], x)
    with pytest.raises(PellucidError, match=f"a set has 1 sample; expected {least}"):
        metric(x, x[:1])
    with pytest.raises(PellucidError, match=r"the shapes \[3\] and \[2\]; expected one shape"):
        metric(x, x[:, :2])
    with pytest.raises(PellucidError, match="1 of 10 samples are not finite numbers"):
        metric(x.index_fill(0, torch.tensor([4]), math.nan), x)


@pytest.mark.parametrize("metric", [energy_distance, two_sample])
def test_energy_of_what_has_none_is_one_sentence(metric: Callable[[Tensor, Tensor], object]) -> None:
    x = normal(10, 3)
    for other, said in ((x[:0], "0 samples; expected 1"), (x[:, :2], "expected one shape"), (x / 0, "not finite")):
        with pytest.raises(PellucidError, match=said):
            metric(x, other)
    assert metric(x[:1], x)


def test_data_without_width_or_direction_are_one_sentence() -> None:
    with pytest.raises(PellucidError, match="the kernel has no width"):
        gaussian(torch.ones(5, 2))
    with pytest.raises(PellucidError, match="have no direction"):
        vendi(torch.zeros(5, 2))
    x = normal(5, 2)
    for known in (5, 2):  # of the held-out data: two of five may be most of what is redrawn
        with pytest.raises(PellucidError, match="are training data too"):
            copy_ratio(normal(5, 2, seed=1), x, torch.cat([x[:known], normal(5, 2, seed=2)])[:5])


def test_a_judge_of_one_class_is_refused() -> None:
    with pytest.raises(PellucidError, match="two classes or more"):
        judge(normal(9, 2), torch.ones(9).long())


@pytest.mark.parametrize("name", ["precision-recall", "density-coverage"])
def test_a_neighbour_farther_than_a_half_of_the_set_is_one_sentence(name: str) -> None:
    few = case().instead(view(20, 1), view(20, 2))
    assert registry.make({"name": name, "k": 9})(few)
    with pytest.raises(PellucidError, match="a set has 20 samples; expected 22 or more"):
        registry.make({"name": name, "k": 10})(few)
    with pytest.raises(PellucidError, match="expected a whole number from 1"):
        registry.make({"name": name, "k": 0})
