"""Every path is what its paper says, inverts, composes, and is exact at both ends."""

import math

import pytest
import torch

from pellucid import PellucidError, paths
from pellucid.explain.verify.theorem import all_paths, interior, times
from pellucid.paths import carry, slope


def trained(degree: int = 12, base: paths.Path | None = None) -> paths.Learned:
    """A learned clock far from where it began."""
    path = paths.Learned(base=base or paths.Cosine(), degree=degree)
    with torch.no_grad():
        path.logits.copy_(1.5 * torch.sin(3.0 * torch.arange(degree)))
    return path.requires_grad_(False)


PATHS = all_paths() | {"learned, trained": trained(), "learned, over ve": trained(5, paths.VE())}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
T = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)


def close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@every_path
def test_data_is_data_and_noise_only_grows(path: paths.Path) -> None:
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert path.alpha(t)[0] == 1 and path.sigma(t)[0] == 0
    assert path.lam(t)[0] == torch.inf and (path.lam(t).diff() < 0).all()
    assert torch.stack([path.alpha(t), path.sigma(t)]).isfinite().all()


@every_path
def test_time_inverts_lam_to_the_last_digits_at_both_ends(path: paths.Path) -> None:
    early = torch.logspace(-12 if not isinstance(path, paths.EDM) else -6, -0.4, 60, dtype=torch.float64)
    close(path.time(path.lam(early)) / early, torch.ones_like(early), 1e-9)
    close(path.time(path.lam(T)), T)
    late = 1 - torch.logspace(-12, -0.4, 60, dtype=torch.float64)
    close(path.time(path.lam(late)), late)
    assert path.time(times(torch.inf)) == 0


@every_path
def test_functions_are_elementwise_on_any_shape(path: paths.Path) -> None:
    t = T[:12].reshape(3, 4)
    for f in (path.alpha, path.sigma, path.lam, lambda t: path.time(path.lam(t)), lambda t: path.rates(t)[1]):
        assert f(t).shape == t.shape and f(t).dtype == torch.float64
        close(f(t)[1, 2], f(t[1, 2]))


@every_path
def test_rates_are_derivatives(path: paths.Path) -> None:
    t = ((interior(path) * 1000).floor() + 0.5) / 1000  # between the knots of tables
    h = (0.02 * torch.minimum(t, 1 - t)).clamp(max=4e-4)
    for rate, f in zip(path.rates(t), (path.alpha, path.sigma), strict=True):
        wide, narrow = ((f(t + d) - f(t - d)) / (2 * d) for d in (h, h / 2))
        close(rate, (4 * narrow - wide) / 3, 1e-7)


@every_path
def test_forward_steps_compose(path: paths.Path) -> None:
    s, u, t = (interior(path, 103)[i : i + 101] for i in range(3))
    (a, p), (b, q), (scale, std) = path.transition(s, u), path.transition(u, t), path.transition(s, t)
    close(a * b, scale)
    close(torch.hypot(b * p, q), std)
    for one, other in zip(path.transition(0 * t, t), (path.alpha(t), path.sigma(t)), strict=True):
        close(one, other)
    assert (path.transition(t, t)[1] == 0).all() and (std > 0).all()
    small = path.transition(t, t * (1 + 1e-9))[1] / path.transition(t, t * (1 + 4e-9))[1]  # no cancellation
    close(small, torch.full_like(t, 0.5), 1e-4)


@every_path
def test_mix_is_the_equation(path: paths.Path) -> None:
    x0, eps = torch.tensor([[2.0, -3.0]], dtype=torch.float64), torch.tensor([[0.5, 7.0]], dtype=torch.float64)
    mixed = path.mix(x0.expand(500, 2), eps.expand(500, 2), T)
    close(mixed, path.alpha(T)[:, None] * x0 + path.sigma(T)[:, None] * eps)


def test_where_nothing_is_left_of_the_data_alpha_is_zero_to_the_bit() -> None:
    for name in ("cosine", "sigmoid", "flow", "table", "shifted"):
        assert PATHS[name].alpha(times(1.0)) == 0 and PATHS[name].lam(times(1.0)) == -torch.inf


def test_mix_has_the_stated_law() -> None:
    eps = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = paths.VP().mix(torch.full_like(eps, 2.0), eps, times(0.3).expand(len(eps)))
    assert (
        abs(x.mean() - 2 * paths.VP().alpha(times(0.3))) < 0.01 and abs(x.std() - paths.VP().sigma(times(0.3))) < 0.01
    )


# What the papers say


def beta_integral(beta, t: float) -> float:
    u = torch.linspace(0, t, 20_001, dtype=torch.float64)
    return float(torch.trapezoid(beta(u), u))


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_vp_is_the_integral_of_its_beta(t: float) -> None:
    linear = beta_integral(lambda u: 0.1 + u * (20 - 0.1), t)
    assert float(paths.VP().alpha(times(t))) == pytest.approx(math.exp(-linear / 2), rel=1e-7)
    assert float(paths.VP().sigma(times(t))) == pytest.approx(math.sqrt(1 - math.exp(-linear)), rel=1e-7)
    scaled = beta_integral(lambda u: (math.sqrt(0.85) + u * (math.sqrt(12) - math.sqrt(0.85))) ** 2, t)
    assert float(paths.ScaledLinear().alpha(times(t))) == pytest.approx(math.exp(-scaled / 2), rel=1e-7)
    assert float(paths.SubVP().alpha(times(t))) == pytest.approx(math.exp(-linear / 2), rel=1e-7)
    assert float(paths.SubVP().sigma(times(t))) == pytest.approx(1 - math.exp(-linear), rel=1e-7)


def test_cosine_is_nichol_and_dhariwals() -> None:
    def f(t):
        return torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    close(paths.Cosine().alpha(T) ** 2, f(T) / f(times(0.0)))
    close(paths.Cosine().sigma(T) ** 2, 1 - f(T) / f(times(0.0)))
    assert paths.Cosine().alpha(times(1.0)) == 0


def test_sigmoid_is_jabris() -> None:
    low, high, at = torch.sigmoid(times(-3)), torch.sigmoid(times(3)), torch.sigmoid(-3 + 6 * T)
    close(paths.Sigmoid().alpha(T) ** 2, (high - at) / (high - low))
    close(paths.Sigmoid().sigma(T) ** 2, (at - low) / (high - low))
    low, high, at = (torch.sigmoid(v / 0.7) for v in (times(-2), times(4), -2 + 6 * T))
    close(paths.Sigmoid(-2, 4, 0.7).alpha(T) ** 2, (high - at) / (high - low))


def test_ve_and_edm_are_songs_and_karras() -> None:
    assert float(paths.VE().sigma(times(0.9))) == pytest.approx(0.01 * 5000**0.9, rel=1e-6)
    assert (paths.VE().alpha(T) == 1).all() and (paths.EDM().alpha(T) == 1).all()
    close(paths.EDM().sigma(T), 80 * T**7)


def test_ddpm_table_is_the_product_of_its_betas() -> None:
    path = paths.LinearTable()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    knots = torch.arange(1, 1001, dtype=torch.float64) / 1000
    close(path.alpha(knots) ** 2, (1 - betas).cumprod(0))
    assert path.n == 1000 and float(path.alpha(knots[-1]) ** 2) == pytest.approx(4.0358e-5, rel=1e-4)
    scale, std = path.transition(torch.cat([times(0.0), knots[:-1]]), knots)  # Ho et al. 2020, eq. 2
    close(scale, (1 - betas).sqrt())
    close(std, betas.sqrt(), 1e-9)
    stable = paths.registry.make("stable-diffusion-table")
    assert float(stable.alpha(times(1.0)) ** 2) == pytest.approx(0.00466, rel=1e-3)
    assert stable.betas[0] == pytest.approx(0.00085) and stable.betas[-1] == pytest.approx(0.012)


def test_cosine_table_is_capped() -> None:
    path = paths.CosineTable()
    assert max(path.betas) == 0.999 and path.betas[0] == pytest.approx(4.1283e-5, rel=1e-3)
    knots = torch.arange(1, 1001, dtype=torch.float64) / 1000
    close(path.alpha(knots) ** 2, (1 - torch.tensor(path.betas, dtype=torch.float64)).cumprod(0))
    close(path.alpha(knots[:900]), paths.Cosine().alpha(knots[:900]))


def test_between_its_knots_a_tables_angle_is_linear() -> None:
    path = paths.Table((0.1, 0.5, 0.2))
    angle = torch.atan2(path.sigma(T), path.alpha(T))
    knots = torch.atan2(path.sigma(times(1 / 3, 2 / 3)), path.alpha(times(1 / 3, 2 / 3)))
    inside = (T > 1 / 3) & (T < 2 / 3)
    close(angle[inside], knots[0] + (knots[1] - knots[0]) * (3 * T[inside] - 1))
    close(path.alpha(T) ** 2 + path.sigma(T) ** 2, torch.ones_like(T))


def test_shifted_flow_is_essers_and_shifted_vp_hoogebooms() -> None:
    flow = paths.Shifted(paths.Flow(), shift=3.0)
    close(flow.sigma(T), 3 * T / (1 + 2 * T))
    ends = times(0.0, 1.0)
    for rate, sign in zip(flow.rates(ends), (-1, 1), strict=True):
        close(rate, sign * times(3.0, 1 / 3))  # d/dt 3 t/(1 + 2 t), at the ends too
    for base in (paths.Flow(), paths.VP(), paths.Cosine(), paths.VE()):
        shifted = paths.Shifted(base, shift=2.0)
        close(shifted.lam(T), base.lam(T) - math.log(2), 1e-9)
        close(shifted.rates(T)[1], slope(shifted.sigma, T), 1e-9)


@every_path
def test_carry_keeps_the_signal_to_noise_ratio_and_the_pair(path: paths.Path) -> None:
    t = path.time(torch.linspace(4, -2, 20, dtype=torch.float64))
    x0, eps = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for other in PATHS.values():
        x, moved = carry(path.mix(x0, eps, t), t, path, other)
        close(other.lam(moved), path.lam(t), 1e-9)
        close(x, other.mix(x0, eps, moved), 1e-9)


@every_path
def test_carry_stops_at_the_last_time(path: paths.Path) -> None:
    for other in PATHS.values():
        x, t = carry(torch.ones(1, 2, dtype=torch.float64), times(1.0), other, path)
        assert x.isfinite().all() and 0 < t <= 1
    assert carry(x, times(1.0), paths.Cosine(), path)[1] == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: paths.Table(()),
        lambda: paths.Table((0.1, 0.0)),
        lambda: paths.Table((0.1, 1.5)),
        lambda: paths.Shifted(paths.Flow(), shift=0.0),
        lambda: paths.VE(sigma_min=2.0, sigma_max=1.0),
        lambda: paths.ScaledLinear(beta_min=12.0, beta_max=12.0),
        lambda: paths.Sigmoid(start=3.0, end=-3.0),
        lambda: paths.Sigmoid(end=1e6),
        lambda: paths.LinearTable(steps=0),
        lambda: paths.CosineTable(cap=2.0),
    ],
)
def test_a_path_that_cannot_be_is_refused(make) -> None:
    with pytest.raises(PellucidError, match="expected"):
        make()


def test_a_learned_clock_is_its_base_before_training_and_rises_after() -> None:
    base, fresh, path = paths.Cosine(), paths.Learned(base=paths.Cosine()), trained()
    close(fresh.alpha(T), base.alpha(T), 1e-10)
    u = path.inner(T)
    close(path.clock(u), T)
    close(path.density(u), slope(path.clock, u), 1e-9)
    assert (path.density(u) > 0).all() and float((u - T).abs().max()) > 0.05


def test_a_learned_clock_makes_a_loss_even() -> None:
    """E_t[L^2], L = l(u)/v'(u), is least where v' is in proportion to l: the variance of the estimate is then zero."""
    path = paths.Learned(base=paths.Flow(), degree=8)
    price = lambda u: 1 + 6 * u**3  # noqa: E731 - within reach of the polynomials
    optimizer, u = torch.optim.Adam(path.parameters(), 0.05), (torch.arange(400).double() + 0.5) / 400
    for _ in range(300):
        optimizer.zero_grad()
        (price(u) ** 2 / path.density(u)).mean().backward()
        optimizer.step()
    close(path.density(u).detach() * 2.5, price(u), 0.05)
