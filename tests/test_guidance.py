"""Guidance against densities that are known: its limits, its line, its interval, its rescaling, its mask."""

import pytest
import torch
from torch import Tensor

from pellucid import CFG, PellucidError, paths, samplers, sampling
from pellucid.conditioning import drop
from pellucid.explain.verify.theorem import times
from pellucid.guidance import APG, Autoguidance, CFGPlusPlus, Classifier, Clip, Ledger, Threshold, registry
from pellucid.noise import normal
from pellucid.oracle import GaussianMixture
from pellucid.types import Batch, Bound, Cond, Denoised, Model, State, Times, Wrapper

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


def explains(d: Denoised, x: Tensor = X) -> None:
    close(PATH.mix(d.x0, d.eps, T[: len(x)]), x, 1e-10)


@pytest.mark.parametrize("name", registry.names())
def test_every_rule_keeps_its_own_samples_apart_and_its_interval(name: str) -> None:
    low, high = float(T[4]), float(T[9])
    rule, within = (registry.make({"name": name, "scale": 3.0, **more}) for more in ({}, {"interval": (low, high)}))
    whole, part, plain = ask(rule(ORACLE)), ask(within(ORACLE)), ask(ORACLE)
    inside = T.clamp(low, high) == T
    assert torch.equal(ask(rule(ORACLE), X[:5], T[:5]).x0, whole.x0[:5])
    close(part.x0[inside], whole.x0[inside])
    close(part.x0[~inside], plain.x0[~inside])
    close(part.eps[~inside], plain.eps[~inside])
    assert float((whole.x0 - plain.x0).abs().amax(1).min()) > 0


@pytest.mark.parametrize("scale", [float("nan"), 1e300, "a"])
@pytest.mark.parametrize("name", registry.names())
def test_every_rule_refuses_a_scale_that_no_model_survives(name: str, scale: float) -> None:
    with pytest.raises(PellucidError):
        registry.make({"name": name, "scale": scale})


def test_cfg_plus_plus_mixes_the_guided_x0_with_the_eps_of_no_condition() -> None:
    """Chung et al. 2024, algorithm 2: one DDIM step lands on alpha_s (u + w (c - u)) + sigma_s eps_u."""
    w, s = 0.4, T / 2
    c, u = ask(ORACLE), ORACLE(X, T)
    model = Bound(CFGPlusPlus(w)(ORACLE), {"label": LABEL})
    got = samplers.registry.make("ddim").step(model, State(X, T), s, lambda k: X)
    close(got.x, PATH.mix(u.x0 + w * (c.x0 - u.x0), u.eps, s))
    close(ask(CFGPlusPlus(0.0)(ORACLE)).x0, u.x0)


def test_apg_with_all_that_lies_along_is_cfg_and_with_none_is_across() -> None:
    for got, expected in zip(ask(APG(3.0, eta=1.0)(ORACLE)), ask(CFG(3.0)(ORACLE)), strict=True):
        if expected is not None:
            close(got, expected, 1e-10)
    c, d = ask(ORACLE), ask(APG(3.0)(ORACLE))
    close(((d.x0 - c.x0) * c.x0).sum(1), torch.zeros(N, dtype=torch.float64))
    explains(d)


def test_apg_pushes_no_longer_than_it_may() -> None:
    c = ask(ORACLE)
    short, free = (ask(APG(2.0, eta=1.0, longest=limit)(ORACLE)).x0 - c.x0 for limit in (0.05, float("inf")))
    close(short.norm(dim=1), free.norm(dim=1).clamp(max=0.05))
    close(short / short.norm(dim=1, keepdim=True), free / free.norm(dim=1, keepdim=True), 1e-9)


def test_a_threshold_keeps_what_lies_within_and_brings_the_rest_back() -> None:
    wide, tight = ask(Threshold(limit=100.0)(ORACLE)), ask(Threshold(1.0, 0.3)(ORACLE))
    close(wide.x0, ask(ORACLE).x0)
    plain = ask(ORACLE).x0
    scale = plain.abs().amax(1, keepdim=True).clamp(min=0.3)
    close(tight.x0, plain * 0.3 / scale)
    close(ask(Clip(limit=0.3)(ORACLE)).x0, plain.clamp(-0.3, 0.3))
    explains(tight)
    part = ask(Threshold(0.5, 0.01)(ORACLE)).x0.abs()  # two of three numbers reach its limit: the second largest does
    assert part.max() <= 0.01 + 1e-15
    close(part.sort(1).values[:, 1], torch.full((N,), 0.01, dtype=torch.float64))


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": float("nan")}, {"limit": 0.0}])
def test_a_threshold_that_keeps_nothing_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(PellucidError, match="expected a share"):
        Threshold(**options)


OWN = [DATA.labels == c for c in (0, 1)]
CLASSES = [GaussianMixture(DATA.weights[o], DATA.means[o], DATA.covariances[o]) for o in OWN]
SHARES = torch.stack([DATA.weights[DATA.labels == c].sum() for c in (0, 1)])


def posterior(x: Batch, t: Times, cond: Cond) -> Tensor:
    """log p(y | x_t) of the mixture, exactly."""
    joint = torch.stack([data.log_prob(x, PATH, t) for data in CLASSES], 1) + SHARES.log()
    return joint.log_softmax(1).gather(1, cond["label"][:, None])[:, 0]


def test_the_exact_classifier_leads_to_the_exact_conditional_pair() -> None:
    led, given = ask(Classifier(posterior)(ORACLE)), ask(ORACLE)
    close(led.x0, given.x0, 1e-8)
    close(led.eps, given.eps, 1e-8)
    explains(led)


@pytest.mark.parametrize("w", [0.0, 2.5])
def test_a_classifier_of_any_scale_is_the_line_of_cfg(w: float) -> None:
    """grad log p(x) + w grad log p(y | x) = (1 - w) grad log p(x) + w grad log p(x | y)."""
    close(ask(Classifier(posterior, w)(ORACLE)).eps, ask(CFG(w)(ORACLE)).eps, 1e-8)


def test_a_dropped_condition_is_not_led_to_and_pure_noise_stays_finite() -> None:
    mask = torch.arange(N) % 3 == 0
    d, none = ask(Classifier(posterior, 4.0)(ORACLE), drop=mask), ORACLE(X, T)
    close(d.x0[mask], none.x0[mask])
    assert not torch.isclose(d.x0[~mask], none.x0[~mask]).all(1).any()
    last = Classifier(posterior, 4.0)(ORACLE)(X[:1], times(1.0), {"label": LABEL[:1]})
    assert torch.stack(last[:2]).isfinite().all()


def test_autoguidance_leads_away_from_the_weak_model() -> None:
    weak = GaussianMixture.random(2, 3, seed=4).at(PATH)
    strong = ORACLE(X, T)
    close(Autoguidance(ORACLE, 3.0)(ORACLE)(X, T).x0, strong.x0, 1e-10)  # away from itself is nowhere
    close(Autoguidance(weak, 1.0)(ORACLE)(X, T).x0, strong.x0)
    d = Autoguidance(weak, 2.0)(ORACLE)(X, T)
    close(d.x0, 2 * strong.x0 - weak(X, T).x0)
    explains(d)
    d = ask(Autoguidance(weak, 2.0)(ORACLE))
    close(d.x0, 2 * ask(ORACLE).x0 - ask(weak).x0)
    with pytest.raises(PellucidError, match="expected the same"):
        Autoguidance(weak, 2.0)(DATA.at(paths.Flow()))


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.0, 0.5)])
def test_the_ledger_holds_what_each_term_weighs(interval: tuple[float, float]) -> None:
    """On the mean over the samples in which it acts."""
    ledger, rule = Ledger(limit=0.9), CFG(4.0, interval, rescale=0.3)
    c, u, d = ask(ORACLE), ORACLE(X, T), ask(ledger.of(rule)(ORACLE))
    close(d.x0, ask(rule(ORACLE)).x0)
    (entry,) = ledger.entries
    acts = interval[1] >= T
    assert acts.sum() > 0 and (interval[1] == 1 or not acts.all())
    c, u, d = (Denoised(part.x0[acts], part.eps[acts]) for part in (c, u, d))
    means = [c.x0.norm(dim=1) / 3**0.5, u.x0.norm(dim=1) / 3**0.5, (d.x0 - c.x0).norm(dim=1) / 3**0.5]
    cosine = torch.nn.functional.cosine_similarity(c.x0 - u.x0, c.x0, 1)
    means += [torch.rad2deg(cosine.acos()), d.x0.square().sum(1) / c.x0.square().sum(1)]
    means += [(part.x0.abs() > 1.1 * 0.9).double().mean(1) for part in (d, c)]
    close(times(*entry), torch.stack([T[acts].mean(), *(part.mean() for part in means)]), 1e-6)


def test_the_ledger_warns_of_saturation_and_of_nothing_else() -> None:
    limit = float(DATA.sample(500).abs().max())
    said = {}
    for scale in (1.0, 1.2, 30.0):
        ledger = Ledger(limit)
        way = {"sampler": "dpmpp-2m", "grid": "karras", "steps": 8, "seed": 5}  # one that comes back too late
        sampling.sample(ORACLE, 50, cond={"label": 1}, guidance=ledger.of(CFG(scale)), **way)  # type: ignore[arg-type]
        said[scale] = ledger.warning
        assert len(ledger.entries) == (0 if scale == 1 else 8)
    assert said[1.0] is None and said[1.2] is None
    assert "guidance saturates" in str(said[30.0])
