"""Guidance against densities that are known: its limits, its line, its interval, its rescaling, its mask."""

import pytest
import torch
from torch import Tensor

from pellucid import CFG, PellucidError, paths
from pellucid.conditioning import drop
from pellucid.explain.verify.theorem import times
from pellucid.noise import normal
from pellucid.oracle import GaussianMixture
from pellucid.types import Batch, Cond, Denoised, Model, Times, Wrapper

DATA = GaussianMixture.random(4, 3, seed=3)
PATH = paths.Cosine()
ORACLE = DATA.at(PATH)
N = 16
T = torch.linspace(0.1, 0.9, N, dtype=torch.float64)
LABEL = torch.arange(N) % 2
X = PATH.mix(DATA.sample(N), normal(1, torch.arange(N), 0, (3,), dtype=torch.float64), T)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def ask(model: Model, x: Batch = X, t: Times = T, **more: Tensor) -> Denoised:
    return model(x, t, {"label": LABEL[: len(x)], **more})


class Counted(Wrapper):
    """A model that keeps the batch sizes it was asked for."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.sizes = list[int]()

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        self.sizes.append(len(x))
        return self.model(x, t, cond)


def test_scale_1_is_conditional_and_0_unconditional() -> None:
    with_label, without = ask(ORACLE), ORACLE(X, T)
    assert torch.equal(ask(CFG(1.0)(ORACLE)).x0, with_label.x0)
    for got, expected in zip(ask(CFG(0.0)(ORACLE))[:2], without[:2], strict=True):
        close(got, expected)


@pytest.mark.parametrize("w", [-0.5, 0.3, 2.1, 7.5])
def test_guided_eps_is_the_score_of_the_tilted_density(w: float) -> None:
    """eps = -sigma grad [(1 - w) log p(x_t) + w log p(x_t | c)], the gradient by automatic differentiation."""
    own = [DATA.labels == c for c in (0, 1)]
    classes = [GaussianMixture(DATA.weights[o], DATA.means[o], DATA.covariances[o]) for o in own]
    x = X.clone().requires_grad_()
    given = torch.stack([data.log_prob(x, PATH, T) for data in classes], 1)[torch.arange(N), LABEL]
    tilted = (1 - w) * DATA.log_prob(x, PATH, T) + w * given
    (score,) = torch.autograd.grad(tilted.sum(), x)
    d = ask(CFG(w)(ORACLE))
    close(d.eps, -PATH.sigma(T)[:, None] * score, 1e-8)
    close(PATH.mix(d.x0, d.eps, T), X, 1e-10)


def test_both_halves_are_one_call_and_none_where_none_is_needed() -> None:
    model = Counted(ORACLE)
    ask(CFG(3.0)(model)), ask(CFG(1.0)(model)), CFG(3.0)(model)(X, T)
    ask(CFG(3.0, interval=(0.95, 1.0))(model))
    assert model.sizes == [2 * N, N, N, N]


def test_outside_its_interval_guidance_is_conditional() -> None:
    low, high = float(T[4]), float(T[9])
    d, whole, plain = (ask(model) for model in (CFG(3.0, (low, high))(ORACLE), CFG(3.0)(ORACLE), ORACLE))
    inside = (torch.arange(N) >= 4) & (torch.arange(N) <= 9)  # both ends belong to it
    close(d.x0[inside], whole.x0[inside])
    close(d.x0[~inside], plain.x0[~inside])
    assert float((whole.x0 - plain.x0).abs().min()) > 0


@pytest.mark.parametrize("phi", [0.0, 0.4, 1.0])
def test_rescale_brings_the_standard_deviation_back(phi: float) -> None:
    """Lin et al. 2023, eq. 15-16: phi = 1 gives the conditional one's, 0 the guided one's, and x is kept."""
    got, guided, plain = (ask(m).x0 for m in (CFG(4.0, rescale=phi)(ORACLE), CFG(4.0)(ORACLE), ORACLE))
    ratio = plain.std(1) / guided.std(1)
    close(got.std(1), guided.std(1) * (1 + phi * (ratio - 1)))
    close(got / guided, (got / guided)[:, :1].expand(N, 3))
    d = ask(CFG(4.0, rescale=phi)(ORACLE))
    close(PATH.mix(d.x0, d.eps, T), X, 1e-10)


def test_rescale_is_of_one_sample_whatever_its_shape() -> None:
    class Tall(Wrapper):
        def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
            return Denoised(*(part.reshape(x.shape) for part in self.model(x.flatten(1), t, cond)[:2]))

    rule, tall = CFG(4.0, rescale=0.7), X.reshape(N, 1, 3, 1)
    close(ask(rule(Tall(ORACLE)), tall).x0.flatten(1), ask(rule(ORACLE)).x0)
    assert torch.equal(ask(rule(ORACLE), X[:3], T[:3]).x0, ask(rule(ORACLE)).x0[:3])


def test_a_dropped_condition_cannot_be_guided_to() -> None:
    """Where drop is set, both halves are unconditional, so that no scale moves anything."""
    mask = torch.arange(N) % 3 == 0
    d, whole, none = ask(CFG(5.0)(ORACLE), drop=mask), ask(CFG(5.0)(ORACLE)), ORACLE(X, T)
    close(d.x0[mask], none.x0[mask])
    close(d.x0[~mask], whole.x0[~mask])
    cond = drop({"label": LABEL}, mask)
    close(CFG(5.0)(ORACLE)(X, T, cond).eps, d.eps)


def test_guidances_compose() -> None:
    """A guided model is a model: CFG of scale a around CFG of scale b is CFG of scale a b."""
    close(ask(CFG(2.0)(CFG(1.5)(ORACLE))).x0, ask(CFG(3.0)(ORACLE)).x0, 1e-10)
    model = CFG(2.0)(ORACLE)
    assert model.path is PATH and model.shape == (3,) and model.dtype == torch.float64


def test_the_conditions_stay_as_they_were() -> None:
    cond = {"label": LABEL.clone(), "drop": torch.zeros(N, dtype=torch.bool)}
    CFG(2.0, rescale=0.5)(ORACLE)(X, T, cond)
    assert torch.equal(cond["label"], LABEL) and not cond["drop"].any() and set(cond) == {"label", "drop"}


@pytest.mark.parametrize("options", [{"interval": (0.5, 0.2)}, {"interval": (-0.1, 1.0)}, {"interval": (0.0, 1.1)}])
def test_an_interval_that_is_none_is_refused(options: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(PellucidError, match="expected two rising times"):
        CFG(2.0, **options)


@pytest.mark.parametrize("rescale", [-0.1, 1.5])
def test_a_rescale_beyond_its_share_is_refused(rescale: float) -> None:
    with pytest.raises(PellucidError, match="from 0 to 1"):
        CFG(2.0, rescale=rescale)


def test_at_the_data_a_rescaled_pair_is_finite() -> None:
    d = CFG(3.0, rescale=1.0)(ORACLE)(X[:1], times(0.0), {"label": LABEL[:1]})
    assert torch.stack(d[:2]).isfinite().all()


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e300, "a", None])
def test_a_scale_that_no_model_survives_is_refused(scale: float) -> None:
    with pytest.raises(PellucidError, match="expected a number from -1000 to 1000"):
        CFG(scale)


def test_a_sample_of_one_number_has_no_deviation_to_rescale() -> None:
    line = GaussianMixture(torch.ones(2), times(-1.0, 1.0)[:, None], torch.tensor(0.1), torch.arange(2)).at(PATH)
    guided, rescaled = (ask(CFG(3.0, rescale=phi)(line), X[:, :1]) for phi in (0.0, 0.7))
    close(rescaled.x0, guided.x0)
