"""The sampler and the grid that know details of every size: least squares, a Gaussian's flow, errors beside others'."""

import math

import pytest
import torch
from numpy.polynomial.legendre import leggauss

from pellucid import PellucidError, paths
from pellucid.explain.verify.theorem import times
from pellucid.grids import Lam, Scales
from pellucid.oracle import Empirical, GaussianMixture
from pellucid.samplers import Scales as Sampler
from pellucid.samplers.scales import FAR, least_squares, missing, turn
from pellucid.sampling import extent, sample
from pellucid.types import Extent

TABLE = paths.LinearTable()


def test_least_squares_leaves_what_no_column_explains() -> None:
    """The rest is at right angles to each column, and a column of zeros has no weight."""
    table = torch.randn(3, 40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table[..., 2], goal = 0.0, table[..., 0].roll(1, -1) + 2 * table[..., 1]
    w = torch.stack(least_squares(table, goal), -1)
    rest = goal - (table @ w[..., None])[..., 0]
    torch.testing.assert_close((table.mT @ rest[..., None])[..., 0], torch.zeros(3, 4).double(), atol=1e-11, rtol=0)
    assert not w[:, 2].any()


@pytest.mark.parametrize("r, new", [(3.0, 1.0), (0.5, 0.4), (0.02, 1e-5), (FAR, 40.0)])
def test_what_the_re_mix_misses_is_how_x0_turns(r: float, new: float) -> None:
    """x/(alpha r) changes by -x0 dr/r^2: with y = 1/r what is missing is r' int (x0(y) - x0(y_t)) dy, of any x0."""
    sizes, wide = times(0.1, 0.5, 2.0), times(1.0, 7.0)
    roots, shares = (torch.from_numpy(row) for row in leggauss(400))
    low, high = 1 / r, 1 / new
    z = torch.asinh(times(0.01 * low, 0.01 * high))  # as fine where the details are as far away
    at = z[0] + (z[1] - z[0]) * (1 + roots) / 2
    here = turn(sizes, wide, times(r)[:, None])
    turned = turn(sizes, wide, (0.01 / torch.sinh(at))[:, None]) - here
    whole = new * (turned * (shares * torch.cosh(at) * 100 * (z[1] - z[0]) / 2)[:, None]).sum(0)
    found = missing(sizes, wide, times(r)[:, None], times(new)[:, None])[0]
    torch.testing.assert_close(found, whole, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2])
def test_clusters_far_apart_are_not_taken_for_gaussians(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In many dimensions: x0 turns sooner than that of data as wide, and most samples are twice as near to the flow."""
    means = 0.9 * torch.randn(6, 400, generator=torch.Generator().manual_seed(seed))
    data = GaussianMixture(torch.ones(6), means, torch.full((6, 1, 400), 0.16)).at(TABLE)
    exact = sample(data, 24, sampler="rk4", steps=60, grid=Lam(sigma_min=1e-4))
    known = (sample(data, 24, steps=8) - exact).square().mean(1)
    monkeypatch.setattr("pellucid.samplers.scales.APART", 0.0)
    gaussian = (sample(data, 24, steps=8) - exact).square().mean(1)
    assert known.mean() < gaussian.mean() and known.median() < gaussian.median() / 2


@pytest.mark.parametrize("steps", [5, 8, 10, 20])
@pytest.mark.parametrize("size", [0.2, 0.5, 1.0])
def test_a_gaussian_flows_as_it_does(size: float, steps: int) -> None:
    """Of N(mu, s^2) the end is known: mu + s u, u = (z - mu)/sqrt(s^2 + r^2). Nearer than DPM-Solver++ 2M, by half."""
    mean = times(0.4, -0.3)
    oracle = GaussianMixture(times(1.0), mean[None], times(size**2)[0]).at(TABLE)
    alpha, sigma = TABLE.alpha(times(1.0)), TABLE.sigma(times(1.0))
    noise = sample(oracle, 64, sampler="ddim", steps=1, grid="uniform")  # x0 of a first call is linear in the noise
    r = sigma / alpha
    u = (noise - mean) * torch.hypot(times(size), r) / size**2
    end = mean + size * u
    ours, theirs = (
        float((sample(oracle, 64, sampler=s, steps=steps, grid=g) - end).square().mean().sqrt())
        for s, g in (("scales", "scales"), ("dpmpp-2m", "karras"))
    )
    assert ours < theirs / 2


@pytest.mark.parametrize("path", [TABLE, paths.Cosine(), paths.Flow(), paths.EDM()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("steps", [3, 5, 10, 40])
def test_the_grid_has_equal_steps_after_the_first(path: paths.Path, steps: int) -> None:
    grid, reach = Scales(), Extent(std=0.5, size=64)
    at = grid(path, steps, reach)
    lam, way = path.lam(at[:-1]), reach.width / reach.std
    assert at[0] == 1 and float(lam[-1]) == pytest.approx(-math.log(0.5 / steps * way**0.1))
    torch.testing.assert_close(lam[1:].diff(), lam[1:].diff().mean().expand(steps - 2), rtol=1e-9, atol=0)
    assert float(torch.exp(-lam[1])) <= 1.05 * steps ** (2 / 3) * reach.width / way**0.2 * (1 + 1e-12)


def test_wider_data_begins_to_show_in_more_noise() -> None:
    seconds = [float(Scales()(TABLE, 8, Extent(std, size))[1]) for std, size in ((0.5, 2), (1.0, 2), (1.0, 64))]
    assert seconds == sorted(seconds) and seconds[0] < seconds[-1]
    with pytest.raises(PellucidError, match="expected the first to be the smaller one"):
        Scales(high=0.5, low=0.8)
    with pytest.raises(PellucidError, match="expected 2, 3 or 4 values"):
        Sampler(order=5)


@pytest.mark.parametrize("path", [TABLE, paths.Flow(), paths.VE()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("std", [0.0, 1e-3, 0.05])
def test_data_that_hardly_differs_is_known_at_once(std: float, steps: int, path: paths.Path) -> None:
    """One place, of values far apart or all alike: all samples lie there, as near as its std."""
    for place in (torch.full((6,), 0.3).double(), times(-2.0, 0.0, 1.0, 0.5, 3.0, -1.0)):
        data = GaussianMixture(times(1.0), place[None], torch.full((1, 1, 6), std**2))
        drawn = sample(data.at(path), 8, steps=steps)
        if data.spectrum:
            torch.testing.assert_close((drawn - place).square().mean().sqrt(), times(std)[0], rtol=0.3, atol=1e-4)
        else:
            assert drawn.isfinite().all()


def test_the_extent_is_the_models() -> None:
    """Of an oracle as of a denoiser: the std of all values, against that of many samples."""
    data = GaussianMixture.random(4, 3, seed=2)
    many = data.sample(200_000)
    assert extent(data.at(TABLE)).size == 3
    assert data.at(TABLE).data_std == pytest.approx(float(many.std()), rel=0.01)
    assert Empirical(many[:50]).std == pytest.approx(float(many[:50].std(correction=0)))
