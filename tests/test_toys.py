"""The toys: their density is a density, and it is the density of their samples."""

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from pellucid.data.toys import Curve, Moons, Toy, registry
from pellucid.errors import PellucidError

NAMES = registry.names()
HALF = 2 * 3**0.5  # the window [-HALF, HALF]^2: its grid fits the squares of the checkerboard
SIDE, BLOCK = 144, 6  # a grid finer than every noise, and blocks of it to count in


@pytest.fixture(params=NAMES)
def toy(request: pytest.FixtureRequest) -> Toy:
    return registry.make(request.param)


@cache
def mass(toy: Toy) -> Tensor:
    """Probability of every cell of the grid, [SIDE, SIDE], by the midpoint rule."""
    line = (torch.arange(SIDE, dtype=torch.float64) + 0.5) * (2 * HALF / SIDE) - HALF
    points = torch.cartesian_prod(line, line)
    return toy.log_prob(points).exp().reshape(SIDE, SIDE) * (2 * HALF / SIDE) ** 2


def chi_square(x: Tensor, cells: Tensor) -> float:
    """p of "x [n, 2] is of the law with these cell masses", counted in blocks; blocks that expect < 5 are pooled."""
    number = ((x.double() + HALF) * (SIDE / (2 * HALF))).long().clamp(0, SIDE - 1) // BLOCK
    counts = (number[:, 0] * (SIDE // BLOCK) + number[:, 1]).bincount(minlength=(SIDE // BLOCK) ** 2).double()
    expected = cells.unfold(0, BLOCK, BLOCK).unfold(1, BLOCK, BLOCK).sum((2, 3)).flatten() * len(x)
    enough = expected >= 5
    counts = torch.cat([counts[enough], counts[~enough].sum().reshape(1)])
    expected = torch.cat([expected[enough], expected[~enough].sum().reshape(1)])
    keep = expected > 0
    statistic = ((counts - expected)[keep] ** 2 / expected[keep]).sum()
    return torch.special.gammaincc((keep.sum() - 1) / 2, statistic / 2).item()


def test_density_integrates_to_one(toy: Toy) -> None:
    assert mass(toy).sum().item() == pytest.approx(1, abs=1e-6)


def test_samples_have_the_density(toy: Toy) -> None:
    cells, x = mass(toy), toy.sample(20_000, seed=1)
    assert chi_square(x, cells) > 1e-3
    assert chi_square(1.03 * x, cells) < 1e-3, "the test would not notice a wrong law"


def test_mean_log_density_of_samples_is_the_negative_entropy(toy: Toy) -> None:
    cells = mass(toy)
    density = cells * (SIDE / (2 * HALF)) ** 2
    log_p = toy.log_prob(toy.sample(4_000, seed=2))
    error = log_p.std().item() / len(log_p) ** 0.5
    assert log_p.mean().item() == pytest.approx(torch.xlogy(cells, density).sum().item(), abs=4 * error + 1e-6)


def test_seeds_and_prefixes(toy: Toy) -> None:
    x = toy.sample(64, seed=3)
    assert x.shape == (64, 2) and x.dtype == torch.float32
    assert torch.equal(x, toy.sample(64, seed=3))
    assert torch.equal(x, toy.sample(128, seed=3)[:64])
    assert not torch.isclose(x, toy.sample(64, seed=4)).any(1).all()


def test_centred_with_variance_about_one(toy: Toy) -> None:
    x = toy.sample(20_000, seed=5).double()
    assert x.mean(0).abs().max() < 0.05
    assert 0.95 < x.var(0).mean() < 1.05


@pytest.mark.parametrize("name", [name for name in NAMES if issubclass(registry.classes[name], Curve)])
def test_quadrature_is_the_integral_along_the_curve(name: str) -> None:
    toy = registry.make(name)
    u = (torch.arange(96_000, dtype=torch.float64) + 0.5) / 96_000  # brute force: a fine midpoint rule, whole pieces
    centres, weights = toy.skeleton()
    assert weights.sum().item() == pytest.approx(1, abs=1e-13)
    angle = torch.linspace(0, 6, 24, dtype=torch.float64)
    away = torch.linspace(0, 8, 24, dtype=torch.float64) * toy.noise  # up to eight noises off the curve
    x = toy.at(u[::4000]) + away.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], dim=1)
    square = (x.unsqueeze(1) - toy.at(u)).square().sum(-1) / toy.noise**2
    brute = torch.logsumexp(-square / 2, dim=1) - math.log(len(u) * 2 * math.pi * toy.noise**2)
    torch.testing.assert_close(toy.log_prob(x), brute, atol=2e-6, rtol=0)


def test_checkerboard_has_edges() -> None:
    board = registry.make({"name": "checkerboard", "cells": 2, "half_width": 1.0})
    inside, outside = torch.tensor([[-0.5, -0.5], [0.5, 0.5]]), torch.tensor([[0.5, -0.5], [1.5, 0.5], [-3.0, 0.2]])
    assert board.log_prob(inside).tolist() == pytest.approx([-math.log(2)] * 2)
    assert board.log_prob(outside).tolist() == [-math.inf] * 3
    assert board.log_prob(board.sample(50_000, seed=0)).isfinite().all()


@pytest.mark.parametrize("options", [{"noise": 0.0}, {"noise": math.nan}, {"noise": "much"}, {"nois": 0.1}])
def test_bad_options_are_one_sentence(options: dict[str, object]) -> None:
    with pytest.raises(PellucidError):
        registry.make({"name": "moons", **options})


def test_narrow_noise_is_still_exact() -> None:
    toy = Moons(noise=0.01)
    crest = 2**0.5 * torch.tensor([[-0.5, 0.75]])  # of the upper moon: there the curve is a line, and its ends are far
    line = 0.5 / (2**0.5 * math.pi) / (toy.noise * (2 * math.pi) ** 0.5)
    assert toy.log_prob(crest).exp().item() == pytest.approx(line, rel=1e-3)
