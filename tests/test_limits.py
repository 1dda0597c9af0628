"""Limits: where one system of the family becomes another. Theorems of their papers, to rounding or to a known order.

Others stand where their parts do: of guidance in test_guidance.py, of the hybrid loss in test_objective.py, of a
straight flow in test_systems.py.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pellucid import paths, samplers
from pellucid.noise import START, normal
from pellucid.objective import ELBO, divergence
from pellucid.oracle import GaussianMixture
from pellucid.paths import Path
from pellucid.predictions import Eps
from pellucid.samplers.ddpm import DDPM
from pellucid.sampling import sample, with_eta
from pellucid.types import Bound, Denoised, State

DATA = GaussianMixture.random(3, 2, seed=5)
KINDS: list[Path] = [paths.LinearTable(), paths.VP(), paths.SubVP(), paths.VE(), paths.Flow(), paths.EDM()]


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def draw(k: int = 0) -> Tensor:
    return normal(0, torch.arange(6), k, (2,), dtype=torch.float64)


@pytest.mark.parametrize("path", KINDS, ids=lambda path: type(path).__name__)
def test_ddim_of_eta_1_is_ddpm_of_the_small_variance(path: Path) -> None:
    """Song et al. 2021a, section 4.1; the small variance is that of q(x_s | x_t, x0)."""
    t, s, model = *torch.tensor([[0.6], [0.37]], dtype=torch.float64).expand(2, 6), Bound(DATA.at(path))
    ddim, ddpm = (
        sampler.step(model, State(draw(), t), s, lambda _: draw(1)).x
        for sampler in (with_eta("ddim", 1.0), DDPM("small"))
    )
    close(ddim, ddpm)


def test_on_its_table_that_variance_is_beta_tilde() -> None:
    """(1 - abar_s)/(1 - abar_t) beta_t, from the betas alone (Ho et al. 2020, eq. 7)."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar, i = (1 - betas).cumprod(0), 400
    t, s = (torch.full((6,), (i + j) / 1000, dtype=torch.float64) for j in (1, 0))
    one, two = (
        with_eta("ddim", 1.0)
        .step(Bound(DATA.at(paths.LinearTable())), State(draw(), t), s, lambda _, k=k: k * draw(1))
        .x
        for k in (0, 1)
    )
    close((two - one) / draw(1), ((1 - bar[i - 1]) / (1 - bar[i]) * betas[i]).sqrt().expand(6, 2), 1e-7)


def learned() -> Path:
    """A clock that has learnt something."""
    path = paths.Learned(degree=4)
    path.logits.data = torch.tensor([0.3, -0.5, 0.1, 0.4], dtype=torch.float64)
    return path


def test_whatever_variance_is_learnt_the_last_step_is_the_mean() -> None:
    """A network may say more than the largest variance, or less than the least."""

    class Sure:
        path = paths.CosineTable()

        def __call__(self, x: Tensor, t: Tensor) -> Denoised:
            return Denoised(0.5 * x, 0.2 * x, torch.tensor([[-0.5, 1.5]]).expand(6, 2))

    t, zero = torch.full((6,), 1e-3, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    close(DDPM().step(Sure(), State(draw(), t), zero, lambda _: draw(1)).x, 0.5 * draw())


@pytest.mark.parametrize("path", [paths.Cosine(), paths.VP(), learned()], ids=["cosine", "vp", "vdm"])
def test_vdms_discrete_loss_tends_to_its_continuous_one(path: Path) -> None:
    """The chain's KLs, summed, against the integral of the ELBO's weight: they part like 1/T (Kingma et al. 2021, 13).

    Data of variance 1/2, so that the least error at every level is known.
    """

    def error(t: Tensor) -> Tensor:
        return (1 / (2 + torch.exp(2 * path.lam(t)))).sqrt().detach()

    def chain(steps: int) -> float:
        t = torch.arange(steps // 5 + 1, steps + 1, dtype=torch.float64) / steps
        return float(divergence(path, t, 1 / steps, error(t)[:, None], torch.zeros(len(t), 1)).sum())

    middle = 0.2 + 0.8 * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    integral = float((0.8 * ELBO().x0(path, middle, Eps()) * error(middle) ** 2).mean())
    gaps = [chain(steps) - integral for steps in (50, 100, 200, 400)]
    assert all(gap > 0 for gap in gaps)
    slopes = [math.log2(a / b) for a, b in zip(gaps, gaps[1:], strict=False)]
    assert all(abs(slope - 1) < 0.1 for slope in slopes), slopes


def test_edms_heun_without_churn_is_runge_kutta_on_the_flow() -> None:
    """Karras et al. 2022, algorithm 1 with S_churn = 0, number by number: dx/dsigma = (x - D(x; sigma))/sigma."""
    path, steps = paths.EDM(), 12
    model, sampler = DATA.at(path), replace(samplers.registry.make("edm"), churn=0.0)  # type: ignore[type-var]
    got = sample(model, 6, sampler=sampler, steps=steps, grid="uniform", seed=3)
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    sigmas = path.sigma(times).tolist()
    x = sigmas[0] * normal(3, torch.arange(6), 0, (2,), stream=START, dtype=torch.float64)

    def slope(x: Tensor, i: int) -> Tensor:
        return (x - model(x, times[i].expand(6)).x0) / sigmas[i]

    for i, (here, there) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        d = slope(x, i)
        x_next = x + (there - here) * d
        x = x_next if there == 0 else x + (there - here) * (d + slope(x_next, i + 1)) / 2
    close(got, x, 1e-9)


def test_sub_vp_never_has_more_noise_than_vp() -> None:
    """Song et al. 2021b, section 3.4: the same mean, at most the variance, and in the end the same."""
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    vp, sub = paths.VP(), paths.SubVP()
    close(sub.alpha(t), vp.alpha(t))
    inner = slice(1, -1)
    assert (sub.sigma(t)[inner] < vp.sigma(t)[inner]).all() and (sub.sigma(t)[1:] > 0).all()
    close(sub.sigma(t[-1:]), vp.sigma(t[-1:]), 1e-4)
    close(sub.sigma(t) ** 2, (1 - vp.alpha(t) ** 2) ** 2)
