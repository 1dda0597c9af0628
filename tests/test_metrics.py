"""The metrics: closed forms, brute force, invariances; and tests that keep their level and have power."""

import math

import pytest
import torch
from torch import Tensor

from pellucid.metrics import (
    Moments,
    class_accuracy,
    copy_ratio,
    energy_distance,
    frechet_distance,
    judge,
    moments,
    nearest,
    snr,
    spectrum,
    two_sample,
)


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


def test_copy_ratio_of_copies_of_fresh_data_and_of_strangers() -> None:
    train, held_out, fresh = normal(400, 4), normal(200, 4, seed=1), normal(200, 4, seed=2)
    assert copy_ratio(train[:200], train, held_out).value == pytest.approx(0, abs=1e-6)
    assert copy_ratio(held_out, train, held_out).value == 1
    ratio = copy_ratio(fresh, train, held_out)
    assert abs(ratio.value - 1) < 4 * ratio.error < 0.5
    assert copy_ratio(fresh + 10, train, held_out).value > 4


# frechet ----------------------------------------------------------------------------------------------------------


def test_frechet_is_its_definition() -> None:
    from scipy.linalg import sqrtm

    a, b = moments(normal(200, 12) @ normal(12, 12, seed=1)), moments(normal(150, 12, seed=2) + 0.5)
    root = sqrtm((a.covariance @ b.covariance).numpy()).real
    defined = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace() - 2 * root.trace()
    assert frechet_distance(a, b) == pytest.approx(defined.item(), rel=1e-6)


def test_frechet_of_commuting_gaussians_compares_their_deviations() -> None:
    q, s1, s2 = rotation(5), torch.arange(5).double(), torch.arange(5).flip(0).double() + 0.5
    m1, m2 = normal(5), normal(5, seed=1)
    a, b = Moments(m1, q @ (s1**2).diag() @ q.T), Moments(m2, q @ (s2**2).diag() @ q.T)
    expected = (m1 - m2).square().sum() + (s1 - s2).square().sum()  # one deviation is 0: singular
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_with_fewer_samples_than_features() -> None:
    x, y = normal(10, 40), normal(15, 40, seed=1) + 0.1
    cx, cy = (x - x.mean(0)) / 3, (y - y.mean(0)) / 14**0.5  # C = c' c, so tr (C1 C2)^(1/2) is a nuclear norm
    nuclear = torch.linalg.svdvals(cx @ cy.T).sum()
    expected = (x.mean(0) - y.mean(0)).square().sum() + cx.square().sum() + cy.square().sum() - 2 * nuclear
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_is_a_squared_distance() -> None:
    a, b, c = (moments((1 + i) * normal(50, 6, seed=i) + i) for i in range(3))
    ab, bc, ac = (math.sqrt(frechet_distance(*pair)) for pair in ((a, b), (b, c), (a, c)))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(b, a) == pytest.approx(ab**2, rel=1e-9)
    assert ac <= ab + bc


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


def test_snr_is_what_the_bands_of_a_noisy_picture_have() -> None:
    alpha, sigma = torch.tensor([1.0, 0.8, 0.3]).double(), torch.tensor([0.0, 0.6, 0.9]).double()
    power = torch.tensor([100.0, 4.0]).double()
    expected = [[math.inf] * 2, [100 * 0.64 / 0.36, 4 * 0.64 / 0.36], [100 / 9, 4 / 9]]
    assert torch.allclose(snr(power, alpha, sigma), torch.tensor(expected).double())
