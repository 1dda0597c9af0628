"""A grid falls strictly from the noisy end to the data, for every path, and keeps its own rule."""

import math
from typing import Any, Literal

import diffusers
import numpy as np
import pytest
import torch
from scipy import stats

from pellucid import PellucidError, grids, paths
from pellucid.explain.verify.theorem import all_paths
from pellucid.grids.times import beta_quantile

PATHS = all_paths()
GRIDS = {name: grids.registry.make(name) for name in grids.registry.names() if name not in ("restart", "fitted")}
STARTS_LOWER = {"leading", "linspace", "ddim-uniform"}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_times_fall_strictly_to_the_data(grid: grids.Grid, path: paths.Path) -> None:
    most = grid.known if isinstance(grid, grids.Distilled) else 999
    for steps in (1, 2, 3, 4, 5, 10, 50, *(n for n in (400, 999) if n <= most)):
        times = grid(path, steps)
        assert len(times) == steps + 1 and times.dtype == torch.float64
        assert times[-1] == 0 and 0 < times[0] <= 1 and (times.diff() < 0).all()
        assert (path.lam(times).diff() > 0).all()


@pytest.mark.parametrize("name", sorted(set(GRIDS) - STARTS_LOWER))
def test_the_first_call_is_at_the_noisy_end(name: str) -> None:
    for path in PATHS.values():
        for steps in (1, 7):
            assert GRIDS[name](path, steps)[0] == 1


def test_uniform_has_equal_steps() -> None:
    torch.testing.assert_close(
        GRIDS["uniform"](paths.VP(), 8), torch.arange(8, -1, -1, dtype=torch.float64) / 8, rtol=1e-15, atol=0
    )


@pytest.mark.parametrize("name", ["edm", "ve", "cosine", "flow", "vp", "shifted"])
def test_karras_is_equation_5(name: str) -> None:
    path, steps = PATHS[name], 12
    end = float(torch.exp(-path.lam(torch.ones(1, dtype=torch.float64))))
    high, i = min(end, 80.0) ** (1 / 7), np.arange(steps)
    expected = (high + i / (steps - 1) * (0.002 ** (1 / 7) - high)) ** 7
    got = torch.exp(-path.lam(GRIDS["karras"](path, steps)))[:-1].numpy()
    np.testing.assert_allclose(got[1:], expected[1:], rtol=1e-9)


@pytest.mark.parametrize("name", ["edm", "ve", "cosine", "flow", "vp", "shifted"])
def test_lam_has_equal_ratios(name: str) -> None:
    path = PATHS[name]
    end = float(torch.exp(-path.lam(torch.ones(1, dtype=torch.float64))))
    sigmas = torch.exp(-path.lam(GRIDS["lam"](path, 20)))[1:-1]
    ratio = (0.002 / min(end, 80.0)) ** (1 / 19)
    torch.testing.assert_close(
        sigmas[1:] / sigmas[:-1], torch.full((18,), ratio, dtype=torch.float64), rtol=1e-9, atol=0
    )
    assert float(sigmas[-1]) == pytest.approx(0.002, rel=1e-9)


def test_options_bound_the_noise() -> None:
    for grid in (grids.Karras(sigma_min=0.1, sigma_max=10.0), grids.Lam(sigma_min=0.1, sigma_max=10.0)):
        sigmas = torch.exp(-paths.EDM().lam(grid(paths.EDM(), 9)))
        assert float(sigmas[-2]) == pytest.approx(0.1) and float(sigmas[1]) < 10 < float(sigmas[0])


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_spacings_are_diffusers_indices_for_every_number_of_steps(spacing: str) -> None:
    """The formulas of its schedulers' set_timesteps, in numpy as there; index i of 1000 sits at t = (i + 1)/1000."""
    for steps in range(1, 1001):
        match spacing:
            case "linspace":
                indices = np.linspace(0, 999, steps).round()[::-1].astype(np.int64)
            case "leading":
                indices = (np.arange(0, steps) * (1000 // steps)).round()[::-1].astype(np.int64)
            case "trailing":
                indices = np.round(np.arange(1000, 0, -1000 / steps)).astype(np.int64) - 1
        times = GRIDS[spacing](paths.LinearTable(), steps)
        assert (times[:-1] * 1000 - 1).round().long().tolist() == indices[:steps].tolist(), steps


def test_leading_is_moved_by_its_offset() -> None:
    still, moved = (grids.Leading(offset=k)(paths.LinearTable(), 10) for k in (0, 1))
    torch.testing.assert_close(moved[:-1] - still[:-1], torch.full((10,), 0.001, dtype=torch.float64))


def test_lam_with_rho_is_k_diffusions_polyexponential() -> None:
    low, high, ramp = math.log(0.002), math.log(80), np.linspace(1, 0, 9)
    sigmas = torch.exp(-paths.EDM().lam(grids.Lam(rho=2.0)(paths.EDM(), 9)))[:-1].numpy()
    np.testing.assert_allclose(sigmas, np.exp(ramp**2 * (high - low) + low), rtol=1e-9)


@pytest.mark.parametrize("name", ["edm", "ve", "cosine", "flow", "vp"])
def test_kl_optimal_has_equal_angles(name: str) -> None:
    path = PATHS[name]
    angles = torch.exp(-path.lam(grids.KL()(path, 11))[1:-1]).atan()
    high = torch.exp(-path.lam(torch.ones(1, dtype=torch.float64))).clamp(max=80).atan()
    step = (high - math.atan(0.002)) / 10
    torch.testing.assert_close(-angles.diff(), step.expand(9), rtol=1e-9, atol=1e-12)
    assert float(angles[-1]) == pytest.approx(math.atan(0.002), rel=1e-9)


@pytest.mark.parametrize("law, scipy", [("normal", stats.norm), ("logistic", stats.logistic)])
@pytest.mark.parametrize("name", ["edm", "ve", "cosine", "flow", "vp"])
def test_quantiles_share_the_mass_between_the_ends(name: str, law: Literal["normal", "logistic"], scipy: Any) -> None:
    lams = PATHS[name].lam(grids.Quantile(law, mean=0.7, scale=1.3)(PATHS[name], 12))
    mass = np.diff(scipy.cdf(lams.numpy(), 0.7, 1.3))
    np.testing.assert_allclose(mass, mass.sum() / 12, rtol=1e-8)
    assert mass.sum() == pytest.approx(scipy.sf(float(lams[0]), 0.7, 1.3))


@pytest.mark.parametrize("a, b", [(0.6, 0.6), (0.1, 0.1), (1.0, 1.0), (0.1, 20.0), (20.0, 20.0), (2.0, 5.0)])
def test_beta_has_scipys_quantiles(a: float, b: float) -> None:
    share = np.linspace(0, 1, 301)[1:]
    got = beta_quantile(torch.from_numpy(share), a, b).numpy()
    np.testing.assert_allclose(got, stats.beta.ppf(share, a, b), rtol=1e-10)


@pytest.mark.parametrize("a, b", [(0.6, 0.6), (2.0, 5.0)])
def test_beta_is_comfyuis_before_its_rounding_and_falls_without_it(a: float, b: float) -> None:
    """Its scheduler takes the indices rint(999 ppf(1 - i/N)) and drops those that repeat."""
    times = grids.Beta(a, b)(paths.LinearTable(), 30)[:-1].numpy()
    np.testing.assert_allclose(times, stats.beta.ppf(1 - np.linspace(0, 1, 30, endpoint=False), a, b), rtol=1e-10)


def test_beta_is_that_of_diffusers_flow_between_its_limits() -> None:
    """Theirs are quantiles at 1 - i/(N - 1), squeezed between sigma_min and 1. On other paths they are those of sigma,
    not of t: the paper's rule is for timesteps."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_beta_sigmas=True)
    scheduler.set_timesteps(21)
    low = 1 / 1000
    theirs = (scheduler.sigmas[:-1].double() - low) / (1 - low)
    torch.testing.assert_close(theirs, grids.Beta()(paths.Flow(), 20), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_shifted_is_diffusers_flow_shift_and_lowers_lam_by_its_log(shift: float) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 12, 12).tolist())
    times = grids.Shifted(shift)(paths.Flow(), 12)
    torch.testing.assert_close(times, scheduler.sigmas.double(), rtol=1e-5, atol=1e-7)
    moved = paths.Flow().lam(grids.Uniform()(paths.Flow(), 12)[1:-1]) - paths.Flow().lam(times[1:-1])
    torch.testing.assert_close(moved, torch.full_like(moved, math.log(shift)), rtol=1e-12, atol=1e-12)


def test_shifted_by_mu_is_diffusers_dynamic_shift() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 12, 12).tolist(), mu=0.8)
    times = grids.Shifted(math.exp(0.8))(paths.Flow(), 12)
    torch.testing.assert_close(times, scheduler.sigmas.double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [2, 3, 10, 31])
def test_linear_quadratic_bends_half_way_without_a_corner(steps: int) -> None:
    """Half of the steps are equal and cover `threshold`; the rest have a constant second difference, and end at 0."""
    times, m = grids.LinearQuadratic(0.03)(paths.Flow(), steps), steps // 2
    torch.testing.assert_close(times[: m + 1].diff(), torch.full((m,), -0.03 / m, dtype=torch.float64))
    first, *bends = times[m:].diff().tolist()
    bend = (1 - 0.03 * steps / m) / (steps - m) ** 2
    assert first == pytest.approx(-0.03 / m - bend)
    assert np.diff([first, *bends]) == pytest.approx(-2 * bend)


def test_fitted_times_are_taken_as_they_are() -> None:
    grid = grids.registry.make({"name": "fitted", "at": [0.99, 0.5, 0.125]})
    assert grid(paths.Cosine(), 3).tolist() == [0.99, 0.5, 0.125, 0]
    with pytest.raises(PellucidError, match="steps is 4, but this grid was fitted for 3"):
        grid(paths.Cosine(), 4)
    with pytest.raises(PellucidError, match="pellucid tune RUN"):
        grids.registry.make("fitted")
    for wrong in ((0.5, 0.6), (1.5, 0.2), (0.5, 0.0), (0.5, 0.5), (float("nan"),)):
        with pytest.raises(PellucidError, match="expected them to fall"):
            grids.Fitted(wrong)


@pytest.mark.parametrize("steps", [0, -3, 2.0, "20", True, None])
def test_steps_that_are_no_count_are_refused(steps: object) -> None:
    with pytest.raises(PellucidError, match="expected a whole number, 1 or more"):
        GRIDS["uniform"](paths.VP(), steps)  # type: ignore[arg-type]


def test_more_steps_than_a_discrete_schedule_has_are_refused() -> None:
    for name in ("linspace", "leading", "trailing"):
        with pytest.raises(PellucidError, match="at most 1000"):
            GRIDS[name](paths.LinearTable(), 1001)


def test_a_grid_whose_times_would_repeat_is_refused() -> None:
    class Stuck(grids.Grid):
        def times(self, path: paths.Path, steps: int) -> torch.Tensor:
            return torch.full((steps,), 0.5, dtype=torch.float64)

    with pytest.raises(PellucidError, match="would repeat"):
        Stuck()(paths.VP(), 2)


@pytest.mark.parametrize("time", [1.5, -0.5, float("nan")])
def test_a_grid_that_leaves_the_times_is_refused(time: float) -> None:
    class Stray(grids.Grid):
        def times(self, path: paths.Path, steps: int) -> torch.Tensor:
            return torch.full((steps,), time, dtype=torch.float64)

    with pytest.raises(PellucidError, match="leave the times from 0 to 1"):
        Stray()(paths.VP(), 1)


def test_limits_are_given_the_right_way_round() -> None:
    for make in (grids.Karras, grids.Lam):
        with pytest.raises(PellucidError, match="expected the first to be the smaller one"):
            make(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(PellucidError, match="offset is -1; expected"):
        grids.Leading(offset=-1)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_restart_walks_its_interval_again(path: paths.Path) -> None:
    base, times = grids.Karras()(path, 40), grids.Restart(repeats=2)(path, 40)
    sigmas = torch.exp(-path.lam(base))
    again = base[(sigmas >= 0.06) & (sigmas <= 0.3)]
    assert len(again) > 2 and len(times) == len(base) + 2 * len(again)
    for t in base.tolist():
        assert int((times == t).sum()) == (3 if t in again.tolist() else 1)
    assert int((times.diff() > 0).sum()) == 2 and times[-1] == 0
    assert torch.equal(grids.Restart()(path, 2), grids.Karras()(path, 2))  # nothing lies there
    for wrong in ({"low": 0.5}, {"repeats": 0}, {"base": grids.Restart()}):
        with pytest.raises(PellucidError, match="expected"):
            grids.Restart(**wrong)
