"""A grid falls strictly from the noisy end to the data, for every path, and keeps its own rule."""

import numpy as np
import pytest
import torch

from pellucid import PellucidError, grids, paths
from pellucid.explain.verify.theorem import all_paths

PATHS = all_paths()
GRIDS = {name: grids.registry.make(name) for name in grids.registry.names() if name != "restart"}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_times_fall_strictly_to_the_data(grid: grids.Grid, path: paths.Path) -> None:
    for steps in (1, 2, 3, 4, 5, 10, 50, 400, 1000):
        times = grid(path, steps)
        assert len(times) == steps + 1 and times.dtype == torch.float64
        assert times[-1] == 0 and 0 < times[0] <= 1 and (times.diff() < 0).all()
        assert (path.lam(times).diff() > 0).all()


@pytest.mark.parametrize("name", ["uniform", "karras", "lam", "trailing"])
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
