"""Sample i of seed s is one picture, whatever the batch; and `sample` is the loop that it says it is."""

import pytest
import torch
from torch import Tensor

from conftest import one_of_each_kind
from pellucid import CFG, Denoiser, PellucidError, conditioning, grids, nets, paths, sample, samplers, trajectory
from pellucid.denoiser import seeded
from pellucid.guidance import Classifier, Clip
from pellucid.noise import normal
from pellucid.oracle import GaussianMixture
from pellucid.sampling import with_eta

DATA = GaussianMixture.random(4, 2, seed=1)
ORACLE = DATA.at(paths.Cosine())
every_sampler = pytest.mark.parametrize("sampler", one_of_each_kind())


def network(net: dict[str, object], shape: tuple[int, ...], prediction: str = "v") -> Denoiser:
    """A small model with random weights, none of them zero."""
    conditioner = {"name": "label", "classes": 3, "width": 8}
    config = {"shape": shape, "net": net, "conditioner": conditioner, "path": "cosine", "prediction": prediction}
    model = Denoiser.from_config({**config, "data_std": 1.0, "clock": "time"}).eval()
    with seeded(1), torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn(weight.shape)
    return model


POINTS = network({"name": "mlp", "width": 32, "blocks": 2}, (2,))
PICTURES = network({"name": "unet", "width": 16, "multipliers": (1, 2), "blocks": 1, "groups": 4}, (1, 8, 8))


@every_sampler
@pytest.mark.parametrize("guidance", [None, 2.0])
def test_a_sample_is_the_same_at_any_batch_size(sampler: samplers.Sampler, guidance: float | None) -> None:
    cond = {"label": torch.arange(8) % 3}
    draw = lambda **how: sample(POINTS, 8, sampler=sampler, steps=6, seed=3, cond=cond, guidance=guidance, **how)  # noqa: E731
    whole = draw(batch=8)
    for batch in (1, 3):
        torch.testing.assert_close(draw(batch=batch), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(draw(exact=True, batch=8), draw(exact=True, batch=3))
    assert torch.equal(draw(exact=True), draw(batch=1))


@pytest.mark.parametrize("name", ["dpmpp-2m", "ddpm", "edm"])
def test_a_picture_is_the_same_at_any_batch_size(name: str) -> None:
    draw = lambda **how: sample(PICTURES, 8, sampler=name, steps=5, seed=3, cond={"label": 1}, **how)  # noqa: E731
    whole = draw(batch=8)
    assert whole.shape == (8, 1, 8, 8) and whole.std() > 0.1
    for batch in (1, 3):
        torch.testing.assert_close(draw(batch=batch), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(draw(exact=True, batch=8), draw(exact=True, batch=3))


@every_sampler
def test_the_start_is_bit_equal_and_keyed_by_sample(sampler: samplers.Sampler) -> None:
    begin = lambda n, first: trajectory(POINTS, n, sampler=sampler, steps=2, seed=3, first=first)[0].x  # noqa: E731
    whole = begin(8, 0)
    assert torch.equal(whole, normal(3, torch.arange(8), 0, (2,)))
    assert torch.equal(begin(3, 4), whole[4:7]) and torch.equal(begin(1, 7), whole[7:])


@every_sampler
def test_samples_may_be_drawn_in_parts(sampler: samplers.Sampler) -> None:
    whole = sample(ORACLE, 6, sampler=sampler, steps=5, seed=1)
    parts = [sample(ORACLE, 2, sampler=sampler, steps=5, seed=1, first=first) for first in (0, 2, 4)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(sample(ORACLE, 6, sampler=sampler, steps=5, seed=2), whole)


@every_sampler
def test_the_world_is_left_alone(sampler: samplers.Sampler) -> None:
    before, cond = torch.random.get_rng_state(), {"label": torch.tensor([0, 1])}
    first = sample(POINTS, 2, sampler=sampler, steps=3, cond=cond)
    torch.manual_seed(99)
    assert torch.equal(sample(POINTS, 2, sampler=sampler, steps=3, cond=cond), first)
    torch.random.set_rng_state(before)
    sample(POINTS, 2, sampler=sampler, steps=3, cond=cond)
    assert torch.equal(before, torch.random.get_rng_state()) and cond["label"].tolist() == [0, 1]
    assert not first.requires_grad


@every_sampler
def test_a_trajectory_is_the_way_of_the_samples(sampler: samplers.Sampler) -> None:
    way = trajectory(ORACLE, 4, sampler=sampler, steps=5, seed=1)
    assert torch.equal(way[-1].x, sample(ORACLE, 4, sampler=sampler, steps=5, seed=1))
    assert [step.t for step in way][0] == 1 and way[-1].t == 0 and way[-1].x0 is None and len(way) == 6
    for step in way[:-1]:
        assert step.x0 is not None and step.x0.shape == step.x.shape
    if not getattr(sampler, "churn", 0):
        step = way[2]
        seen = ORACLE(step.x, torch.full((4,), step.t, dtype=torch.float64)).x0
        torch.testing.assert_close(step.x0, seen)


@pytest.mark.parametrize("name", ["dpmpp-3m", "dpmpp-2m-sde", "heun"])
def test_samples_have_the_law_of_the_data(name: str) -> None:
    x = sample(ORACLE, 3000, sampler=name, steps=40, batch=3000, seed=2)
    centre = DATA.weights @ DATA.means
    exact = DATA.sample(100_000, seed=3)
    assert float((x.mean(0) - centre).abs().max()) < 4 * float(exact.std(0).max()) / 3000**0.5
    torch.testing.assert_close(x.std(0), exact.std(0), rtol=0.06, atol=0)
    assert abs(float(DATA.log_prob(x).mean() - DATA.log_prob(exact).mean())) < 0.12


def test_more_steps_lead_to_the_exact_flow() -> None:
    fine = sample(ORACLE, 50, sampler="rk4", steps=300, grid=grids.Lam(sigma_min=1e-4), seed=0)
    gaps = [float((sample(ORACLE, 50, steps=n, seed=0) - fine).abs().mean()) for n in (5, 10, 20, 40)]
    assert all(coarse > 2.5 * finer for coarse, finer in zip(gaps, gaps[1:], strict=False)), gaps


@pytest.mark.parametrize("name", ["flow", "vp", "ve", "edm", "linear-table", "subvp", "sigmoid", "shifted"])
def test_any_model_is_sampled_on_any_path(name: str) -> None:
    """A model trained on one path, sampled on another, is the oracle of the other: the same samples."""
    path = paths.registry.make({"name": name, **({"base": "flow"} if name == "shifted" else {})})
    own = sample(DATA.at(path), 20, steps=12)
    for trained in (paths.Cosine(), paths.Flow(), paths.Sigmoid()):
        torch.testing.assert_close(sample(DATA.at(trained), 20, steps=12, path=path), own, rtol=1e-8, atol=1e-8)
    assert sample(DATA.at(paths.VP()), 20, steps=12, path=path).isfinite().all()


def test_conditions_are_one_value_or_one_each() -> None:
    one = sample(ORACLE, 4, steps=4, cond={"label": 1})
    each = sample(ORACLE, 4, steps=4, cond={"label": torch.tensor([1, 1, 0, 1])})
    keep = [0, 1, 3]
    assert torch.equal(one[keep], each[keep]) and not torch.equal(one[2], each[2])
    batched = sample(ORACLE, 4, steps=4, cond={"label": torch.tensor([1, 1, 0, 1])}, batch=3)
    assert torch.equal(batched, each)


def test_guidance_is_a_scale_or_a_rule() -> None:
    draw = lambda guidance: sample(ORACLE, 4, steps=4, cond={"label": 1}, guidance=guidance)  # noqa: E731
    assert torch.equal(draw(3.0), draw(CFG(3.0))) and torch.equal(draw(3), draw(3.0))
    assert torch.equal(draw(1.0), draw(None))
    assert torch.equal(draw({"name": "cfg", "scale": 3}), draw(3.0))
    torch.testing.assert_close(draw(0.0), sample(ORACLE, 4, steps=4))
    assert not torch.equal(draw(3.0), draw(CFG(3.0, rescale=0.7)))


def test_what_a_model_does_not_hear_is_refused() -> None:
    plain = Denoiser(nets.registry.make({"name": "mlp", "width": 8}, (3,), 0))
    with pytest.raises(PellucidError, match="unknown condition 'label'; this model hears: none."):
        sample(plain, 2, steps=2, cond={"label": 1})
    changed = Denoiser(plain.net, conditioner=conditioning.registry.make("augmented"))
    assert changed.hears == Clip()(changed).hears == {"augment"} and POINTS.hears == {"label"}
    led = Classifier(lambda x, t, cond: -(x**2).flatten(1).sum(1) * cond["warmth"], 2.0)
    assert sample(plain, 2, steps=2, cond={"warmth": 1.0}, guidance=led).isfinite().all()


def test_progress_counts_finished_samples() -> None:
    heard = list[tuple[int, int]]()
    sample(ORACLE, 7, steps=2, batch=3, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(3, 7), (6, 7), (7, 7)]


def test_eta_belongs_to_ancestral_samplers() -> None:
    assert with_eta("ddim", 0.3) == samplers.Ancestral(0.3)
    assert with_eta("dpm2-a", 0.3).eta == 0.3 and with_eta("heun", 0) == samplers.registry.make("heun")
    with pytest.raises(PellucidError, match="'lcm' draws noise by its gamma; take ddim"):
        with_eta("lcm", 0.3)
    with pytest.raises(PellucidError, match="has no eta; take ddim"):
        with_eta("dpmpp-sde", 0)  # which draws noise
    with pytest.raises(PellucidError, match="has no eta; take ddim"):
        with_eta("heun", 0.3)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"n": 0}, "n is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"steps": 0}, "steps is 0; expected a whole number"),
        ({"sampler": "dpmpp-2mm"}, "did you mean 'dpmpp-2m'"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"path": "cosin"}, "did you mean 'cosine'"),
        ({"cond": {"label": torch.tensor([1, 2])}}, "2 values, not 4; give one, or one for each"),
        ({"cond": 3}, "cond is 3; expected values by name"),
        ({"cond": {"label": 1.5}}, "'label' is 1.5; expected a whole number"),
        ({"cond": {"label": "cat"}}, "'label' is 'cat'; expected a number"),
        ({"cond": {"label": 9}}, "label 9 has no data; take one of"),
        ({"path": 3}, "path is 3; expected a name or a table"),
        ({"guidance": float("nan")}, "scale = nan; expected a number"),
        ({"guidance": 7.0}, "guidance is 7, and there is no condition to strengthen"),
        ({"guidance": CFG(7.0)}, "guidance is 7, and there is no condition"),
        ({"guidance": "cfg"}, "guidance 'cfg' needs scale"),
        ({"guidance": [2.0]}, r"guidance is \[2.0\]; expected"),
        ({"guidance": (2.0,)}, r"guidance is \(2.0,\); expected a scale"),
        ({"cond": {"labels": 1}}, "unknown condition 'labels'; this model hears: label."),
        ({"n": "3"}, "n is '3'; expected a whole number"),
        ({"batch": 1.5}, "batch is 1.5; expected a whole number"),
        ({"seed": None}, "seed is None; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected a whole number, 0 or more"),
        ({"seed": 2**63}, "expected a number below"),
        ({"first": 0.5}, "first is 0.5; expected a whole number"),
        ({"first": 2**63 - 3}, "expected a number below"),
        ({"sampler": "Euler Karras", "grid": "beta"}, "brings the grid 'karras', and grid is 'beta'"),
        ({"sampler": "restart", "grid": grids.Uniform()}, "brings the grid 'restart', and grid is 'uniform'"),
    ],
)
def test_a_mistake_is_one_sentence(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(PellucidError, match=sentence) as caught:
        sample(ORACLE, **{"n": 4, "steps": 3} | wrong)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_a_trajectory_of_no_samples_is_refused(n: int) -> None:
    with pytest.raises(PellucidError, match=f"n is {n}; expected a whole number"):
        trajectory(ORACLE, n)


def test_the_noise_of_a_step_is_not_the_noise_of_the_start() -> None:
    """Streams and steps are kept apart: at eta = 1 from pure noise to one step, fresh noise is not the start."""
    drawn = list[Tensor]()

    class Listening(samplers.Ancestral):
        def move(self, denoise, state, s, c, noise):  # type: ignore[no-untyped-def]
            drawn.append(noise(0))
            return super().move(denoise, state, s, c, noise)

    start = trajectory(ORACLE, 3, sampler=Listening(1.0), steps=3)[0].x
    assert len(drawn) == 3 and not any(torch.equal(a, b) for i, a in enumerate([start, *drawn]) for b in drawn[i:])
