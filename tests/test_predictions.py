"""Every prediction is a row of two numbers; one solve undoes them all, and says what it can where they say nothing."""

import math

import pytest
import torch
from torch import Tensor

from pellucid import paths, predictions
from pellucid.explain.verify.equation import all_predictions, condition, pairs
from pellucid.explain.verify.theorem import all_paths, interior, times
from pellucid.predictions import solve

PATHS, PREDICTIONS = all_paths(), all_predictions()
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def column(x: Tensor) -> Tensor:
    return x[:, None]


@every_path
@every_prediction
def test_solve_undoes_the_row(path: paths.Path, prediction: predictions.Prediction) -> None:
    t = interior(path)
    x0, eps = pairs(t)
    d = solve(prediction, path, path.mix(x0, eps, t), prediction.target(path, x0, eps, t), t)
    scale = column(condition(prediction, path, t))
    assert float(torch.maximum((d.x0 - x0).abs() / scale, (d.eps - eps).abs() / scale).max()) < 1e-14


@every_path
@every_prediction
def test_gain_is_what_an_error_of_the_answer_becomes(path: paths.Path, prediction: predictions.Prediction) -> None:
    t = interior(path, 31)
    x, y = pairs(t)
    moved = solve(prediction, path, x, y + 1, t).x0 - solve(prediction, path, x, y, t).x0
    gain = prediction.gain(path, t)
    close(moved.abs()[:, 0] / gain, torch.ones_like(t), 1e-9)
    assert (gain > 0).all()


# What the papers say: x0 from x and the network's answer


@pytest.fixture
def said() -> tuple[Tensor, Tensor, Tensor]:
    t = torch.linspace(0.05, 0.95, 40, dtype=torch.float64)
    return t, *pairs(t)


@pytest.mark.parametrize("path", [paths.VP(), paths.Cosine(), paths.Sigmoid()])
def test_eps_and_v_are_ho_and_salimans(path: paths.Path, said) -> None:
    t, x, y = said
    alpha, sigma = column(path.alpha(t)), column(path.sigma(t))
    close(solve(predictions.Eps(), path, x, y, t).x0, (x - sigma * y) / alpha, 1e-11)  # Ho et al. 2020, eq. 15
    close(solve(predictions.V(), path, x, y, t).x0, alpha * x - sigma * y, 1e-11)  # Salimans & Ho 2022, appendix D
    close(solve(predictions.V(), path, x, y, t).eps, sigma * x + alpha * y, 1e-11)


def test_flow_velocity_is_noise_minus_data(said) -> None:
    t, x, y = said
    close(predictions.Velocity().target(paths.Flow(), x, y, t), y - x)
    d = solve(predictions.Velocity(), paths.Flow(), x, y, t)
    close(d.x0, x - column(t) * y)
    close(d.eps, x + column(1 - t) * y)


@every_path
def test_velocity_is_the_motion_of_x(path: paths.Path) -> None:
    t = ((interior(path) * 1000).floor() + 0.5) / 1000
    h = 1e-4 * torch.minimum(t, 1 - t)
    x0, eps = pairs(t)
    motion = (path.mix(x0, eps, t + h) - path.mix(x0, eps, t - h)) / column(2 * h)
    close(predictions.Velocity().target(path, x0, eps, t), motion, 1e-5)


def test_score_is_the_gradient_of_the_log_density(said) -> None:
    t, x0, eps = said
    path, x = paths.VP(), paths.VP().mix(x0, eps, t).requires_grad_()
    density = torch.distributions.Normal(column(path.alpha(t)) * x0, column(path.sigma(t)))
    (score,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    close(predictions.Score().target(path, x0, eps, t), score, 1e-9)


@pytest.mark.parametrize("sd", [0.5, 1.3])
def test_edm_is_karras_preconditioning(sd: float, said) -> None:
    t, x, y = said
    path, sigma = paths.EDM(), column(paths.EDM().sigma(t))
    skip, out = sd**2 / (sigma**2 + sd**2), sigma * sd / (sigma**2 + sd**2).sqrt()
    close(solve(predictions.EDM(sd), path, x, y, t).x0, skip * x + out * y, 1e-11)  # Karras et al. 2022, eq. 7


@every_path
def test_edm_targets_have_unit_variance(path: paths.Path) -> None:
    a, b = predictions.EDM(sd=0.7).row(path, interior(path))
    close(a**2 * 0.49 + b**2, torch.ones_like(a))


# Where the system is singular


@pytest.mark.parametrize("path", [paths.Cosine(), paths.Flow(), PATHS["table"]], ids=["cosine", "flow", "table"])
@pytest.mark.parametrize("name", ["eps", "score"])
def test_where_nothing_is_left_of_the_data_eps_says_nothing(path: paths.Path, name: str) -> None:
    t = times(1.0, 1.0)
    x, y = pairs(t)
    d = solve(PREDICTIONS[name], path, x, y, t)
    close(d.x0, torch.zeros_like(x))
    close(d.eps, x)


@every_path
@every_prediction
def test_at_the_data_x_is_the_answer(path: paths.Path, prediction: predictions.Prediction) -> None:
    t = times(0.0, 0.0)
    x, y = pairs(t)
    d = solve(prediction, path, x, y, t)
    close(d.x0, x)
    assert d.eps.isfinite().all()


@pytest.mark.parametrize("name", ["x0", "v", "velocity", "edm"])
@pytest.mark.parametrize("path", [paths.Cosine(), paths.Flow(), PATHS["shifted"]], ids=["cosine", "flow", "shifted"])
def test_at_pure_noise_the_network_is_heard(path: paths.Path, name: str) -> None:
    t = times(1.0, 1.0)
    x0, eps = pairs(t)
    d = solve(PREDICTIONS[name], path, path.mix(x0, eps, t), PREDICTIONS[name].target(path, x0, eps, t), t)
    close(d.x0, x0)
    close(d.eps, eps)


def test_a_singular_sample_leaves_its_neighbours_alone() -> None:
    t = times(1.0, 0.3)
    x, y = pairs(t)
    both = solve(predictions.Eps(), paths.Cosine(), x, y, t)
    alone = solve(predictions.Eps(), paths.Cosine(), x[1:], y[1:], t[1:])
    assert torch.equal(both.x0[1:], alone.x0) and torch.equal(both.eps[1:], alone.eps)


@pytest.mark.parametrize("t", [1e-4, 1e-3, 0.999, 1.0])
@pytest.mark.parametrize("name", ["v", "edm"])
def test_in_single_precision_the_pair_is_good_at_both_ends(name: str, t: float) -> None:
    """eps recovered from x0 alone divides by sigma: at t = 1e-4 an error of 2.5e-3; the pair keeps 1e-6."""
    path, at = paths.Cosine(), times(t).expand(1000)
    x0, eps = (part.expand(1000, 2) for part in pairs(times(t)))
    y = PREDICTIONS[name].target(path, x0, eps, at).float()
    d = solve(PREDICTIONS[name], path, path.mix(x0, eps, at).float(), y, at)
    assert float(torch.maximum((d.x0 - x0).abs(), (d.eps - eps).abs()).max()) < 2e-6
    assert d.x0.dtype == torch.float32


@every_prediction
def test_answers_of_any_shape(prediction: predictions.Prediction) -> None:
    t = times(0.2, 0.7)
    x, y = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d = solve(prediction, paths.VP(), x, y, t)
    flat = solve(prediction, paths.VP(), x.flatten(1), y.flatten(1), t)
    assert d.x0.shape == x.shape and torch.equal(d.x0.flatten(1), flat.x0) and torch.equal(d.eps.flatten(1), flat.eps)
    assert math.isclose(float((paths.VP().mix(d.x0, d.eps, t) - x).abs().max()), 0, abs_tol=1e-12)
