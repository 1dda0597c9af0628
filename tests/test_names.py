"""Names: every sampler that users know by name elsewhere is one here, or one sentence says why not."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pellucid import PellucidError, paths, samplers
from pellucid.explain.verify.theorem import mixture, times
from pellucid.noise import normal
from pellucid.samplers import ExponentialSDE, Multistep
from pellucid.samplers.names import split
from pellucid.types import Bound, State, Times

COMFY = [
    "euler",
    "euler_cfg_pp",
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "heun",
    "heunpp2",
    "exp_heun_2_x0",
    "exp_heun_2_x0_sde",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]
K_DIFFUSION = [
    "euler",
    "heun",
    "euler_ancestral",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2m",
    "dpmpp_sde",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
]
LABELS = [
    "Euler",
    "Euler a",
    "Heun",
    "LMS",
    "DPM2",
    "DPM2 a",
    "DPM++ 2M",
    "DPM++ 2S a",
    "DPM++ SDE",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun",
    "DPM++ 3M SDE",
    "DPM fast",
    "DPM adaptive",
    "DDIM",
    "PLMS",
    "UniPC",
    "LCM",
    "Restart",
]


REFUSED = {"heunpp2": "first order; take heun or bosh3"}


@pytest.mark.parametrize("name", [*COMFY, *(f"sample_{name}" for name in K_DIFFUSION)])
def test_a_name_is_a_sampler_or_a_sentence_says_what_it_is(name: str) -> None:
    registry = samplers.registry
    if name.endswith("_cfg_pp"):
        with pytest.raises(PellucidError, match=r"under a guidance; take '\w+' with the guidance cfg\+\+\.$"):
            registry.make(name)
        registry.make(name.removesuffix("_cfg_pp"))
    elif name in REFUSED:
        with pytest.raises(PellucidError, match=REFUSED[name]):
            registry.make(name)
    else:
        assert registry.make(name.removesuffix("_gpu")) == registry.make(name)


def test_there_are_44_and_13() -> None:
    assert len(set(COMFY)) == 44 and len(set(K_DIFFUSION)) == 13


@pytest.mark.parametrize("label", LABELS)
def test_a_label_may_name_a_grid(label: str) -> None:
    name, grid = split(label)
    assert grid == ("restart" if label == "Restart" else None)
    assert split(f"{label} Karras") == (name, "karras") or label == "Restart"
    samplers.registry.make(name)


# Computed another way, on a grid in sigma of a variance-exploding path

PATH = paths.VE()
INDEX = torch.arange(6)
DENOISE = Bound(mixture().at(PATH))


def at(sigma: Tensor) -> Times:
    return PATH.time(-sigma.log())


def slope(x: Tensor, sigma: Tensor) -> Tensor:
    return DENOISE(x, at(sigma).expand(len(x))).eps


def walked(name: str | dict[str, object], sigmas: Tensor, x: Tensor) -> Tensor:
    sampler, grid = samplers.registry.make(name), at(sigmas)
    state = sampler.init(x, grid[:1].expand(len(x)))
    for s in grid[1:]:
        state = sampler.step(DENOISE, state, s.expand(len(x)), lambda draw: x)
    return state.x


def heunpp2(sigmas: Tensor, x: Tensor) -> Tensor:
    """Heun++: three slopes, weighed 1 - w_2 - w_3, w_k = sigma_k / (3 sigma_0)."""
    for i in range(len(sigmas) - 2):
        a, b, c = sigmas[i : i + 3]
        d = slope(x, a)
        y = x + (b - a) * d
        e = slope(y, b)
        f = slope(y + (c - b) * e, c)
        v, w = b / (3 * sigmas[0]), c / (3 * sigmas[0])
        x = x + (b - a) * ((1 - v - w) * d + v * e + w * f)
    return x


def errors(run: Callable[[Tensor, Tensor], Tensor], counts: tuple[int, int], extra: int = 0) -> list[float]:
    """Mean distances to the exact flow from sigma = 4 to 0.3; `extra`: points beyond the end that it looks at."""
    out, x = [], 4 * normal(1, INDEX, 0, (2,), dtype=torch.float64)
    exact = walked("rk4", torch.logspace(math.log10(4), math.log10(0.3), 400, dtype=torch.float64), x)
    for n in counts:
        ratio = (0.3 / 4) ** (1 / n)
        sigmas = 4 * ratio ** torch.arange(n + 1 + extra, dtype=torch.float64)
        out.append(float((run(sigmas, x) - exact).abs().mean()))
    return out


def test_heunpp2_is_of_first_order() -> None:
    """Three calls a step, and the error of Heun's two is far smaller."""
    ours = errors(lambda sigmas, x: walked("heun", sigmas, x), (40, 80))
    theirs = errors(heunpp2, (40, 80), extra=1)
    assert math.log2(theirs[0] / theirs[1]) < 1.3 and math.log2(ours[0] / ours[1]) > 1.7 and 5 * ours[1] < theirs[1]


def test_ipndm_v_integrates_quadratics_on_unequal_steps() -> None:
    """As Adams and Bashforth's method must: its shipped weights, which lost a pair of brackets, do not."""
    assert samplers.registry.make("ipndm_v") == Multistep(order=4, variable="eps", clock="sigma")
    a, b, c, d = times(3.0, 2.0, 1.6, 1.2)
    h, p, q = d - c, c - b, b - a
    exact = (d**3 - c**3) / 3  # of eps = sigma^2
    sampler, grid = Multistep(order=3, variable="eps", clock="sigma"), at(torch.stack([a, b, c, d]))
    weights = sampler.coefficients(PATH, grid[2:3], grid[3:], grid[[1, 0]][None])[-2:]
    now = d - c - sum(weights)  # all of them weigh a constant exactly
    torch.testing.assert_close(now * c**2 + weights[0] * b**2 + weights[1] * a**2, exact[None])
    lost = (1 - h / (3 * (h + p)) * (h * (h + p)) / (p * (p + q))) / 2
    shipped = 1 + h / p / 2 + lost, -h / p / 2 - (1 + p / q) * lost, lost * p / q
    assert abs(float(h * sum(w * v**2 for w, v in zip(shipped, (c, b, a), strict=True)) / exact - 1)) > 0.01


def test_dpm_fast_is_dpm_solver_3_on_a_grid_of_thirds() -> None:
    """Lu et al. 2022a, algorithm 2: the stages at 1/3 and 2/3 in lam are points of the grid."""
    x, sigmas = 4 * normal(1, INDEX, 0, (2,), dtype=torch.float64), torch.logspace(0.6, -0.5, 13, dtype=torch.float64)
    torch.testing.assert_close(walked("dpm_fast", sigmas, x), walked("dpm-solver-3", sigmas[::3], x))


def test_seeds_3_is_its_formulas() -> None:
    """Gonzalez et al. 2023: thirds of the step, phi_1(z) = (e^z - 1)/z and phi_2 = (phi_1 - 1)/z; one noise for all."""
    lam, h, rho = -0.4, 0.7, 1.0
    t, s = at(torch.exp(-times(lam))).expand(6), at(torch.exp(-times(lam + h))).expand(6)
    x, z = (normal(2, INDEX, k, (2,), dtype=torch.float64) for k in range(2))
    points = [torch.exp(-times(lam + c * h)) for c in (0, 1 / 3, 2 / 3, 1)]
    still = lambda draw: 0 * z  # noqa: E731

    def b(c: float, k: int) -> float:
        y = -(1 + rho) * c * h
        return -math.expm1(y) if k == 1 else -(math.expm1(y) - y) / y

    def grown(c: float, *terms: tuple[float, Tensor]) -> Tensor:
        return sum((w * d for w, d in terms), math.exp(-(1 + rho) * c * h) * x)

    d0 = DENOISE(x, t).x0
    d1 = DENOISE(grown(1 / 3, (b(1 / 3, 1), d0)), at(points[1]).expand(6)).x0
    d2 = DENOISE(grown(2 / 3, (b(2 / 3, 1) - 2 * b(2 / 3, 2), d0), (2 * b(2 / 3, 2), d1)), at(points[2]).expand(6)).x0
    expected = grown(1, (b(1, 1) - 1.5 * b(1, 2), d0), (1.5 * b(1, 2), d2))
    torch.testing.assert_close(ExponentialSDE(method="third").step(DENOISE, State(x, t), s, still).x, expected)


@pytest.mark.parametrize("method, shares", [("midpoint", [1 / 2]), ("heun", [1.0]), ("third", [1 / 3, 2 / 3])])
def test_the_stages_feel_one_noise(method, shares: list[float]) -> None:
    """Covariances of the noise in x at the stages and the end are those of the reverse SDE with x0 = 0."""
    lam, h = -0.4, 0.7
    t, s = (at(torch.exp(-times(v))).expand(4) for v in (lam, lam + h))
    seen = list[Tensor]()

    class Zero:
        path = PATH

        def __call__(self, x: Tensor, t: Times):  # type: ignore[no-untyped-def]
            seen.append(x)
            return DENOISE(x, t)._replace(x0=0 * x, eps=0 * x)

    unit = torch.eye(4, dtype=torch.float64)
    out = (
        ExponentialSDE(method=method)
        .step(Zero(), State(torch.zeros(4, 1, dtype=torch.float64), t), s, lambda k: unit[:, k : k + 1])
        .x
    )
    ends = [*seen[1:], out]
    for a, c in zip(ends, [*shares, 1.0], strict=True):
        for b, d in zip(ends, [*shares, 1.0], strict=True):
            if c <= d:
                sigma = math.exp(-(lam + c * h)) * math.exp(-(lam + d * h))
                covariance = sigma * math.exp(-(d - c) * h) * -math.expm1(-2 * c * h)
                torch.testing.assert_close((a * b).sum(), times(covariance)[0])
