"""The sampler and the grid that know details of every size: least squares, a Gaussian's flow, errors beside others'."""

import math

import pytest
import torch

from pellucid import PellucidError, paths
from pellucid.explain.verify.theorem import times
from pellucid.grids import Scales
from pellucid.oracle import Empirical, GaussianMixture
from pellucid.samplers import Scales as Sampler
from pellucid.samplers.scales import least_squares
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
    lam = path.lam(at[:-1])
    assert at[0] == 1 and float(lam[-1]) == pytest.approx(-math.log(0.5 / steps))
    torch.testing.assert_close(lam[1:].diff(), lam[1:].diff().mean().expand(steps - 2), rtol=1e-9, atol=0)
    assert float(torch.exp(-lam[1])) <= 1.25 * steps**0.5 * reach.width * (1 + 1e-12)


def test_wider_data_begins_to_show_in_more_noise() -> None:
    seconds = [float(Scales()(TABLE, 8, Extent(std, size))[1]) for std, size in ((0.5, 2), (1.0, 2), (1.0, 64))]
    assert seconds == sorted(seconds) and seconds[0] < seconds[-1]
    with pytest.raises(PellucidError, match="expected the first to be the smaller one"):
        Scales(high=0.5, low=0.8)
    with pytest.raises(PellucidError, match="expected 2, 3 or 4 values"):
        Sampler(order=5)


def test_the_extent_is_the_models() -> None:
    """Of an oracle as of a denoiser: the std of all values, against that of many samples."""
    data = GaussianMixture.random(4, 3, seed=2)
    many = data.sample(200_000)
    assert extent(data.at(TABLE)).size == 3
    assert data.at(TABLE).data_std == pytest.approx(float(many.std()), rel=0.01)
    assert Empirical(many[:50]).std == pytest.approx(float(many[:50].std(correction=0)))
