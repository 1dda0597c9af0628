"""Training is a function of (data, plan, seed): resumed anywhere, split anywhere, it is the same training."""

import copy
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from pellucid import PellucidError, checkpoint, conditioning, nets, oracle, paths, predictions
from pellucid.data import Dataset, Split
from pellucid.denoiser import Denoiser, seeded
from pellucid.objective import LogitNormal, Objective, SecondMoment, weights
from pellucid.training import Learner, Plan, Run
from pellucid.training.learner import order

PLAN = Plan(steps=12, batch=16, lr=1e-2, warmup=3, ema=0.9)


def points(n: int = 50) -> Dataset:
    mixture = oracle.GaussianMixture.random(4, 2, seed=3)
    x = mixture.sample(n, seed=1).float()
    return Dataset("points", Split(x, (x[:, 0] > 0).long(), None), None, ("left", "right"), ())


def model() -> Denoiser:
    with seeded(0):
        label = conditioning.registry.make({"name": "label", "classes": 2, "width": 8})
        return Denoiser(nets.MLP((2,), 8, width=16, blocks=1), conditioner=label)


def unet() -> Denoiser:
    """Of a kind that drops activations."""
    with seeded(0):
        return Denoiser(nets.UNet((1, 8, 8), width=8, multipliers=(1,), blocks=1, groups=4, head=8, dropout=0.5))


def noise() -> Dataset:
    return Dataset("noise", Split(torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), None, None))


def state(learner: Learner) -> dict[str, torch.Tensor]:
    named = learner.tensors().items()
    return {f"{group}/{name}": tensor.clone() for group, tensors in named for name, tensor in tensors.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stop", range(1, 12))
def test_resumed_at_any_step_it_is_the_same_run(tmp_path: Path, stop: int) -> None:
    """Weights, average, optimiser and losses bit-equal to the run that was never stopped."""
    whole = Learner(model(), points(), PLAN)
    losses = [p.loss for p in whole.fit()]
    first = Learner(model(), points(), PLAN)
    head = [first.advance()[0] for _ in range(stop)]
    checkpoint.save(tmp_path / "c", first.tensors(), {"step": first.step, "config": first.model.config()})
    second = Learner(model(), points(), PLAN)
    second.restore(checkpoint.open_(tmp_path / "c"))
    tail = [p.loss for p in second.fit()]
    assert head + tail == losses
    assert same(state(whole), state(second))


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_a_network_of_pictures_is_resumed_however_its_kernels_lie_in_memory(tmp_path: Path, method: str) -> None:
    """What the optimiser knows of a weight lies there as the weight does, or fused steps would mix its numbers up."""
    plan = replace(PLAN, steps=5, method=method)
    whole, first, second = (Learner(unet(), noise(), plan) for _ in range(3))
    assert not all(weight.is_contiguous() for weight in first.model.parameters())
    losses, head = [p.loss for p in whole.fit()], [first.advance()[0] for _ in range(2)]
    second.restore(checkpoint.open_(checkpoint.save(tmp_path / "c", first.tensors(), first.meta())))
    assert head + [p.loss for p in second.fit()] == losses and same(state(second), state(whole))


@pytest.mark.parametrize("stop", [2, 5, 9])
def test_times_that_learn_are_resumed_with_what_they_heard(tmp_path: Path, stop: int) -> None:
    """Before every level is known and after; of two runs by one objective neither hears the other."""
    aim = Objective(SecondMoment(levels=4), weights.make("simple"))
    whole, first = (Learner(model(), points(), PLAN, aim) for _ in range(2))
    losses = [p.loss for p in whole.fit()]
    head = [first.advance()[0] for _ in range(stop)]
    checkpoint.save(tmp_path / "c", first.tensors(), {"step": first.step, "config": first.model.config()})
    second = Learner(model(), points(), PLAN, aim)
    second.restore(checkpoint.open_(tmp_path / "c"))
    assert head + [p.loss for p in second.fit()] == losses and same(state(second), state(whole))
    assert aim.memory()["heard"].sum() == 0 and whole.objective.memory()["heard"].sum() == 12 * 16
    assert whole.objective.times.chances().std() > 0.01


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    def keeper(name: str) -> Run:
        return Run(tmp_path / name, save_every=4, log_every=2)

    whole = Learner(model(), points(), PLAN)
    list(keeper("whole").fit(whole))
    cut = keeper("cut").fit(Learner(model(), points(), PLAN))
    for _ in range(7):
        next(cut)
    cut.close()
    again = Learner(model(), points(), PLAN)
    list(keeper("cut").fit(again))
    assert same(state(whole), state(again))
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert [r["step"] for r in rows[0]] == [r["step"] for r in rows[1]] == [2, 4, 6, 8, 10, 12]
    assert [r["loss"] for r in rows[0]] == [r["loss"] for r in rows[1]]
    assert len(checkpoint.folders(tmp_path / "cut")) == 2


def test_every_picture_is_seen_once_an_epoch_whatever_the_batch() -> None:
    rows = order(7, 50, torch.arange(150))
    for epoch in rows.split(50):
        assert sorted(epoch.tolist()) == list(range(50))
    assert not torch.equal(rows[:50], rows[50:100])
    assert torch.equal(rows, torch.cat([order(7, 50, part) for part in torch.arange(150).split(7)]))


def test_the_gradient_of_a_batch_is_the_sum_of_its_parts() -> None:
    """Times, noise and dropped labels belong to the sample: a batch may be split anywhere."""
    aim, data, index = Objective(times=LogitNormal(), drop=0.5), points(), torch.arange(32)
    gradients = []
    for parts in ([32], [5, 11, 16]):
        net = model()
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(p.numel()))
        for part in index.split(parts):
            x0, cond = data.batch(part)
            (aim(net, aim.lesson(x0, cond, 0, part), 0).sum() / 32).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_the_minimum_is_the_oracle() -> None:
    """A trained denoiser comes near the exact one: the loss has a floor, and training reaches for it."""
    mixture = oracle.GaussianMixture.random(3, 2, seed=1)
    x = mixture.sample(20_000, seed=0).float()
    data = Dataset("mixture", Split(x, None, None), None, (), ())
    path, rule = paths.Cosine(), predictions.V()
    with seeded(0):
        net = Denoiser(nets.MLP((2,), width=96, blocks=2), path, rule, data_std=data.std)
    trained = pellucid.train(net, data, Plan(steps=700, batch=256, lr=3e-3, warmup=20, ema=0.99))
    index, aim = torch.arange(4000), Objective(drop=0.0)
    held = mixture.sample(4000, seed=9)
    eps = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = aim.draw(path, 5, index)
    exact = mixture.at(path)(path.mix(held, eps, t), t)
    target = rule.target(path, held, eps, t)
    floor = (rule.target(path, exact.x0, exact.eps, t) - target).square().mean().item()
    got = aim.loss(trained, held.float(), eps.float(), t).mean().item()
    nothing = target.square().mean().item()
    assert floor - 0.01 < got < floor + 0.05 * (nothing - floor)


def test_the_random_world_outside_is_untouched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Learner(model(), points(), PLAN).advance()
    assert torch.equal(before, torch.get_rng_state())


WRONG: list[dict[str, Any]] = [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"ema": 1.0}, {"accumulate": 17}]
WRONG += [{"steps": 2.5}, {"seed": -1}, {"warmup": -5}, {"workers": -1}, {"lr": math.inf}, {"betas": (0.9, 2.0)}]
WRONG += [{"weight_decay": -1.0}, {"decay": "cos"}, {"precision": "fp16"}, {"parallel": "x"}, {"method": "sgd"}]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_bad_plans_are_sentences(wrong: dict[str, Any]) -> None:
    with pytest.raises(PellucidError, match="expected|did you mean"):
        replace(PLAN, **wrong)


@pytest.mark.parametrize("decay", ["constant", "cosine", "linear", "rsqrt"])
def test_the_rate_warms_up_and_decays(decay: str) -> None:
    plan = Plan(steps=1000, lr=1.0, warmup=10, decay=decay)  # type: ignore[arg-type]
    rates = [plan.rate(n) for n in range(1000)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3) and rates[4] == pytest.approx(0.5, rel=1e-2)
    assert max(rates) == pytest.approx(1.0, abs=0.03) and rates[9:] == sorted(rates[9:], reverse=True)
    end = {"constant": 1.0, "cosine": 0.0, "linear": 0.001, "rsqrt": 0.1}[decay]
    assert rates[999] == pytest.approx(end, abs=1e-5)


def test_accumulation_is_rounding() -> None:
    """A batch in parts is the same training: the same samples, and weights that differ in their last digits."""
    runs = [Learner(model(), points(), replace(PLAN, accumulate=parts)) for parts in (1, 3, 16)]
    losses = [[p.loss for p in run.fit()] for run in runs]
    for other, found in zip(runs[1:], losses[1:], strict=True):
        assert found == pytest.approx(losses[0], rel=1e-4)
        for a, b in zip(other.model.parameters(), runs[0].model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_threads_that_make_batches_change_nothing() -> None:
    runs = [Learner(model(), points(), replace(PLAN, workers=workers)) for workers in (0, 1, 5)]
    losses = [[p.loss for p in run.fit()] for run in runs]
    assert losses[0] == losses[1] == losses[2]
    assert same(state(runs[0]), state(runs[1])) and same(state(runs[0]), state(runs[2]))


def test_dropped_activations_are_a_function_of_seed_and_step() -> None:
    """Also of a network that drops some: two learners that take turns are each as if alone."""

    data, alone = noise(), Learner(unet(), noise(), PLAN)
    losses = [alone.advance() for _ in range(3)]
    first, second = Learner(unet(), data, PLAN), Learner(unet(), data, PLAN)
    turns = [(first.advance(), second.advance()) for _ in range(3)]
    assert turns == [(loss, loss) for loss in losses]
    without = Learner(unet(), data, replace(PLAN, seed=1))
    assert without.advance() != losses[0]


def parts(learner: Learner, count: int) -> torch.Tensor:
    """The gradient of its next step, worked off in so many parts."""
    learner.parts = count
    learner.gradient(learner.lesson(learner.step))
    return torch.cat([p.grad.double().flatten() for p in learner.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("split", [2, 3, 16])
def test_activations_are_dropped_by_sample(split: int) -> None:
    learner = Learner(unet(), noise(), PLAN)
    learner.advance()
    whole, apart = parts(learner, 1), parts(learner, split)
    assert (whole - apart).norm() <= 1e-6 * whole.norm()
    learner.step += 1
    assert (whole - parts(learner, 1)).norm() > 0.1 * whole.norm()  # other samples, other gradients


@pytest.mark.parametrize("split", [2, 3, 16])
def test_a_learned_clock_does_not_notice_parts(split: int) -> None:
    with seeded(0):
        vdm = Denoiser(nets.MLP((2,), width=16, blocks=1), paths.Learned(degree=6), "eps", clock="lam")
    learner = Learner(vdm, points(), PLAN, Objective(weight=weights.make("elbo")))
    whole, apart = parts(learner, 1), parts(learner, split)
    assert (whole - apart).norm() <= 1e-6 * whole.norm()
    clock = vdm.path.logits.grad.clone()
    learner.objective.even(vdm.path, torch.rand(16), 0, torch.arange(16))
    assert not torch.equal(clock, vdm.path.logits.grad)  # it has a part in it


def test_bf16_keeps_float32_weights() -> None:
    runs = [Learner(model(), points(), replace(PLAN, precision=precision)) for precision in ("float32", "bf16")]
    losses = [[p.loss for p in run.fit()] for run in runs]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.03)
    kinds = {tensor.dtype for named in runs[1].tensors().values() for tensor in named.values()}
    assert kinds <= {torch.float32, torch.float64}


@pytest.mark.slow
def test_compiled_it_is_the_same_training() -> None:
    plain, fast = (Learner(model(), points(), replace(PLAN, compile=c)) for c in (False, True))
    assert [p.loss for p in plain.fit()] == pytest.approx([p.loss for p in fast.fit()], rel=1e-4)
    assert plain.tensors()["model"].keys() == fast.tensors()["model"].keys()
    copied, x, t = copy.deepcopy(fast.model), torch.ones(3, 2), torch.full((3,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(copied(x, t).x0, plain.model(x, t).x0, rtol=1e-3, atol=1e-4)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    learner = Learner(model(), points(), PLAN)
    meta = {"step": 0, "config": learner.model.config(), "seed": 0}
    folder = checkpoint.save(tmp_path / "c", learner.tensors(), meta)
    found = checkpoint.open_(folder)
    with seeded(0):
        wider = Denoiser(nets.MLP((2,), 8, width=24, blocks=1), conditioner=model().conditioner)
    with pytest.raises(PellucidError, match="another run folder"):
        Learner(wider, points(), PLAN).restore(found)
    with pytest.raises(PellucidError, match="seed = 0, not 1"):
        Learner(model(), points(), replace(PLAN, seed=1)).restore(found)
    course = found._replace(meta=meta | learner.meta())
    for key, other in {"batch": replace(PLAN, batch=PLAN.batch + 1), "method": replace(PLAN, method="adam")}.items():
        with pytest.raises(PellucidError, match=f"{key} = .*another run folder"):
            Learner(model(), points(), other).restore(course)
    with pytest.raises(PellucidError, match="rows = 50, not 40"):
        Learner(model(), points(40), PLAN).restore(course)
    named = replace(points(), classes=("b", "a"))
    with pytest.raises(PellucidError, match="classes = "):
        Learner(model(), named, PLAN).restore(course)
    moved = replace(points(), train=points().train._replace(x=-points().train.x))
    with pytest.warns(UserWarning, match="the data has changed"):
        Learner(model(), moved, PLAN).restore(course)
    with warnings.catch_warnings(action="error"):
        Learner(model(), points(), PLAN).restore(course)
    elsewhere = course.meta | {"machine": course.meta["machine"] | {"torch": "1.0", "kernels": "none"}}
    with pytest.warns(UserWarning, match="trained with torch 1.0, not .*, kernels none, not .*: the run goes on"):
        Learner(model(), points(), PLAN).restore(found._replace(meta=elsewhere))
    for damaged in (found._replace(meta={**meta, "step": "abc"}), found._replace(tensors={})):
        with pytest.raises(PellucidError, match="another run folder"):
            Learner(model(), points(), PLAN).restore(damaged)
