"""Strangers share calls and nothing else: each gets what it gets alone, whoever comes, goes, fails or is cancelled."""

import math
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid import CFG, Denoiser, PellucidError, conditioning, paths, sample, samplers
from pellucid.batcher import Batcher, Question, Request, join
from pellucid.denoiser import seeded
from pellucid.oracle import GaussianMixture
from pellucid.sampling import invert
from pellucid.types import Batch, Cond, Denoised, Model, Times, Wrapper

DATA = GaussianMixture.random(4, 2, seed=1)
ORACLE = DATA.at(paths.Cosine())
ADAPTIVE = {"name": "dopri5", "rtol": 1e-3, "atol": 1e-3}


def network(net: dict[str, object], shape: tuple[int, ...]) -> Denoiser:
    """A small model with random weights, none of them zero."""
    conditioner = {"name": "label", "classes": 2, "width": 8}
    config = {"shape": shape, "net": net, "conditioner": conditioner, "path": "cosine", "prediction": "v"}
    model = Denoiser.from_config({**config, "data_std": 1.0, "clock": "time"}).eval()
    with seeded(1), torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn(weight.shape)
    return model


POINTS = network({"name": "mlp", "width": 32, "blocks": 2}, (2,))
PICTURES = network({"name": "unet", "width": 16, "multipliers": (1, 2), "blocks": 1, "groups": 4}, (1, 8, 8))


@dataclass(frozen=True)
class Wish:
    """The arguments of `sample` for one stranger; called with a model it is a request."""

    n: int
    options: dict[str, Any]

    def __call__(self, model: Model) -> Tensor:
        return sample(model, self.n, **self.options)


def wishes(count: int, seed: int) -> list[Wish]:
    """Strangers: any sampler, grid, number of steps, seed, guidance, label."""
    chance = random.Random(seed)
    names = [*samplers.registry.names()]
    chance.shuffle(names)
    out = []
    for i in range(count):
        sampler = samplers.registry.make(names[i % len(names)])
        label = chance.choice([None, 0, 1])
        options = {
            "sampler": sampler if sampler.calls else ADAPTIVE,
            "steps": chance.randint(1, 20) if sampler.calls else 1,
            "grid": chance.choice(["karras", "uniform", "lam"]),
            "seed": chance.randint(0, 99),
            "first": chance.randint(0, 9),
            "cond": None if label is None else {"label": label},
            "guidance": None if label is None else chance.choice([None, 0.0, 1.5, CFG(3.0, interval=(0.2, 0.8))]),
            "noise": "independent",
        }
        out.append(Wish(chance.randint(1, 3), options))
    return out


class Usher(Wrapper):
    """A model that lets something happen at each of its calls: it is asked from within the tick."""

    def __init__(self, model: Model, events: Callable[[int], None] = lambda call: None) -> None:
        super().__init__(model)
        self.events, self.sizes = events, list[int]()

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        self.sizes.append(len(x))
        self.events(len(self.sizes))
        return self.model(x, t, cond)


def together(
    model: Model, works: Sequence[Callable[[Model], Any]], **settings: Any
) -> tuple[list[Request[Any]], Usher]:
    """Requests of which each joins at a call that another makes, and the model that saw them."""
    requests, arriving = list[Request[Any]](), list(reversed(works))
    arrived = threading.Event()

    def one_more(call: int) -> None:
        if arriving:
            requests.append(batcher.submit(arriving.pop()))
        else:
            arrived.set()

    usher = Usher(model, one_more)
    with Batcher(usher, patience=math.inf, **settings) as batcher:
        while not arrived.wait(0.01):
            if all(request.done() for request in requests):  # so few calls that nobody was there to open the door
                one_more(0)
    return requests, usher


@pytest.mark.parametrize("seed", range(2))
def test_strangers_get_what_they_get_alone(seed: int) -> None:
    """To the last bit with the oracle: other samplers, grids, steps, seeds, guidance, labels, and ticks of arrival."""
    works = wishes(20, seed)
    requests, usher = together(ORACLE, works)
    assert all(torch.equal(r.result(), work(ORACLE)) for r, work in zip(requests, works, strict=True))
    assert max(usher.sizes) > 8  # they did meet


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_many_strangers_get_what_they_get_alone(seed: int) -> None:
    works = wishes(120, seed)
    requests, _ = together(ORACLE, works, batch=48, requests=32)
    assert all(torch.equal(r.result(), work(ORACLE)) for r, work in zip(requests, works, strict=True))


@pytest.mark.parametrize("model", [POINTS, PICTURES], ids=["points", "pictures"])
def test_with_a_network_to_the_rounding_of_its_kernels(model: Denoiser) -> None:
    works = [wish for wish in wishes(13, 5) if wish.options["sampler"] is not ADAPTIVE]  # it may take another step
    requests, _ = together(model, works)
    for request, work in zip(requests, works, strict=True):
        alone = work(model)
        assert float((request.result() - alone).abs().max()) <= 1e-5 * float(alone.abs().max().clamp(min=1))


@pytest.mark.parametrize("model", [POINTS, PICTURES], ids=["points", "pictures"])
def test_row_by_row_strangers_are_equal_to_the_last_bit(model: Denoiser) -> None:
    names = "dpmpp-2m", "ddpm", "heun", "dpmpp-sde", "unipc"
    works = [
        Wish(2, {"sampler": name, "steps": 4, "seed": i, "cond": {"label": i % 2}}) for i, name in enumerate(names)
    ]
    requests, usher = together(model, works, batch=1)
    assert set(usher.sizes) == {1}
    for request, work in zip(requests, works, strict=True):
        assert torch.equal(request.result(), sample(model, work.n, exact=True, **work.options))


def test_requests_in_step_take_the_calls_of_one() -> None:
    works = [Wish(1, {"sampler": "dpmpp-2m", "steps": 12, "seed": i}) for i in range(16)]
    requests, usher = together(ORACLE, works)
    assert sum(usher.sizes) == 16 * 12 and len(usher.sizes) <= 12 + 16  # who comes last takes 12 more
    assert all(request.calls == 12 for request in requests)


def test_no_call_has_more_rows_than_it_may() -> None:
    works = [
        Wish(n, {"sampler": "euler", "steps": 3, "seed": n, "guidance": 2.0, "cond": {"label": 1}}) for n in (1, 5, 9)
    ]
    requests, usher = together(ORACLE, works, batch=4)
    assert max(usher.sizes) <= 4 and sum(usher.sizes) == 2 * 3 * 15
    assert all(torch.equal(r.result(), work(ORACLE)) for r, work in zip(requests, works, strict=True))


def test_work_is_any_function_of_a_model() -> None:
    x = DATA.sample(3, seed=2)
    works: list[Callable[[Model], Tensor]] = [
        lambda model: invert(model, x, steps=5).noise,
        lambda model: sample(model, 2, path="flow", steps=5),
        lambda model: model(x, torch.full((3,), 0.5, dtype=torch.float64)).eps,
    ]
    requests, _ = together(ORACLE, works)
    assert all(torch.equal(r.result(), work(ORACLE)) for r, work in zip(requests, works, strict=True))


def test_who_asks_for_gradients_gets_them() -> None:
    def slope(model: Model) -> Tensor:
        x = DATA.sample(3, seed=2).requires_grad_()
        with torch.enable_grad():
            d = model(x, torch.full((3,), 0.5, dtype=torch.float64))
            return torch.autograd.grad(d.x0.square().sum(), x)[0]

    works: list[Callable[[Model], Tensor]] = [slope, Wish(2, {"steps": 5}), slope]
    requests, _ = together(ORACLE, works)
    assert all(torch.equal(r.result(), work(ORACLE)) for r, work in zip(requests, works, strict=True))


# Faults of one are nobody else's


def fails(model: Model) -> Tensor:
    sample(model, 1, steps=2)
    raise ValueError("mine alone")


def test_a_request_that_fails_spoils_no_other() -> None:
    """Its own fault, a label that the model does not know, a shape that is not the model's, a sampler unknown."""
    good = wishes(4, 3)
    bad: list[tuple[Callable[[Model], Any], type[Exception], str]] = [
        (fails, ValueError, "mine alone"),
        (Wish(1, {"cond": {"label": 7}}), PellucidError, "label 7 has no data"),
        (Wish(1, {"sampler": "dpmpp-2mm"}), PellucidError, "did you mean 'dpmpp-2m'"),
        (
            lambda model: model(torch.zeros(1, 3), torch.ones(1)),
            PellucidError,
            r"x is of shape \(3,\) and torch.float32",
        ),
    ]
    requests, _ = together(ORACLE, [good[0], bad[0][0], bad[1][0], good[1], good[2], bad[2][0], bad[3][0], good[3]])
    for i, (_, error, words) in zip((1, 2, 5, 6), bad, strict=True):
        with pytest.raises(error, match=words):
            requests[i].result()
    for i, wish in zip((0, 3, 4, 7), good, strict=True):
        assert torch.equal(requests[i].result(), wish(ORACLE))


ZERO, HALF = torch.zeros(2, 2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("t", "cond", "said"),
    [
        (HALF[:1], None, "t is of shape"),
        (0.5, None, "t is 0.5"),
        (HALF, {"label": "cat"}, "condition 'label' is 'cat'"),
        (HALF, {"label": torch.tensor([1, 0, 1])}, "condition 'label' has 3 values, not 2"),
        (HALF, {"text": torch.tensor(2.0).expand(5, 3)}, "condition 'text' has 5 values, not 2"),
        (HALF, [3], "expected values by name"),
    ],
)
def test_a_question_that_is_none_is_refused_and_others_are_answered(t: Any, cond: Any, said: str) -> None:
    with Batcher(ORACLE) as batcher:
        with pytest.raises(PellucidError, match=said):
            batcher.submit(lambda model: model(ZERO, t, cond)).result(20)
        assert batcher.submit(Wish(1, {"steps": 3})).result(20).shape == (1, 2)


def test_one_label_is_that_of_all_rows_as_in_sampling() -> None:
    with Batcher(ORACLE) as batcher:
        one, each = (
            batcher.submit(lambda model, label=label: model(ZERO, HALF, {"label": label})).result(20).x0  # type: ignore[misc]
            for label in (1, torch.tensor([1, 1]))
        )
    assert torch.equal(one, each)


def test_a_model_that_answers_nonsense_is_heard_by_those_who_asked_it_alone() -> None:
    class Once(Wrapper):
        seen = 0

        def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
            self.seen += 1
            return Denoised(x[:0], x) if self.seen == 1 else self.model(x, t, cond)

    with Batcher(Once(ORACLE)) as batcher:
        with pytest.raises(RuntimeError):
            batcher.submit(Wish(2, {"steps": 3})).result(20)
        assert batcher.submit(Wish(1, {"steps": 3})).result(20).shape == (1, 2)


def test_a_cancelled_request_frees_its_place_and_spoils_no_other() -> None:
    """At its fifth call one of three is cancelled: it is in no later one. One in the queue never begins."""
    works = [Wish(1, {"sampler": "euler", "steps": 12, "seed": i}) for i in range(4)]
    requests = list[Request[Tensor]]()
    gate = threading.Event()

    def event(call: int) -> None:
        gate.wait()
        if call == 5:
            requests[1].cancel()
            requests[3].cancel()

    usher = Usher(ORACLE, event)
    with Batcher(usher, requests=3, patience=math.inf) as batcher:
        requests += [batcher.submit(work) for work in works]
        gate.set()
        for i in (0, 2):
            assert torch.equal(requests[i].result(), works[i](ORACLE))
        for i in (1, 3):
            with pytest.raises(CancelledError):
                requests[i].result()
    assert requests[1].calls <= 5 and requests[3].calls == 0
    assert sum(usher.sizes) == 24 + requests[1].calls


def test_the_late_are_not_waited_for_longer_than_patience() -> None:
    late = threading.Event()

    def slow(model: Model) -> int:
        late.wait()
        return 1

    with Batcher(ORACLE, patience=0.0) as batcher:
        waits = batcher.submit(slow)
        assert batcher.submit(Wish(1, {"steps": 3})).result(20).shape == (1, 2)
        late.set()
        assert waits.result() == 1


def test_leaving_by_an_error_cancels_what_is_under_way() -> None:
    requests = list[Request[Tensor]]()
    began = threading.Event()

    def event(call: int) -> None:
        began.set()

    with pytest.raises(KeyError), Batcher(Usher(ORACLE, event), requests=1) as batcher:
        requests += [batcher.submit(Wish(1, {"sampler": "euler", "steps": 1000})) for _ in range(2)]
        began.wait()
        raise KeyError
    assert all(request.done() for request in requests) and requests[1].calls == 0
    for request in requests:
        with pytest.raises(CancelledError):
            request.result()
    with pytest.raises(PellucidError, match="closed; submit requests before that"):
        batcher.submit(lambda model: 1)


# Conditions


def question(n: int, **cond: Tensor) -> Question:
    return Question(torch.zeros(n, 2), torch.ones(n), cond, None)  # type: ignore[arg-type]


def test_who_has_no_condition_withholds_that_of_the_others() -> None:
    mask = torch.tensor([False, True])
    _, _, cond = join(
        [question(1, label=torch.tensor([3])), question(2), question(2, label=torch.tensor([1, 2]), drop=mask)]
    )
    assert cond and cond["label"].tolist() == [3, 0, 0, 1, 2]
    assert cond["drop"].tolist() == [False, True, True, False, True]
    _, _, cond = join([question(1, label=torch.tensor([3])), question(1, label=torch.tensor([4]))])
    assert cond and cond["label"].tolist() == [3, 4] and "drop" not in cond
    assert join([question(1), question(2)])[2] is None


@pytest.mark.parametrize("name", conditioning.registry.names())
def test_absent_is_withheld_for_every_conditioner(name: str) -> None:
    """So a row without a condition may stand beside rows that have one."""
    conditioner = conditioning.registry.make({"name": name, **({"classes": 3} if name == "label" else {})})
    cond = {"label": torch.tensor([0, 2]), "drop": torch.tensor([True, True])}
    a, b = (conditioner(c, 2, torch.device("cpu"), torch.float32) for c in (None, cond))
    for absent, withheld in zip(a, b, strict=True):
        assert (absent is None and withheld is None) or torch.equal(absent, withheld)


def test_other_conditions_are_asked_apart() -> None:
    """A row cannot withhold its text and keep its label: those of another kind make a call of their own."""
    seen = list[set[str]]()

    class Listening(Wrapper):
        def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
            seen.append(set(cond or ()))
            return Denoised(x, x)

    asks: list[Callable[[Model], Any]] = [
        lambda model, cond=cond: model(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1), cond)  # type: ignore[misc]
        for cond in ({"label": torch.tensor([1])}, {"text": torch.zeros(1, 3)}, {"text": torch.zeros(1, 4)}, None)
    ]
    gate = threading.Barrier(4)
    with Batcher(Listening(ORACLE), patience=math.inf) as batcher:
        for request in [batcher.submit(lambda model, ask=ask: (gate.wait(), ask(model))) for ask in asks]:  # type: ignore[misc]
            request.result()
    assert (
        len(seen) == 3 and sum("label" in names for names in seen) == 1 and sum("drop" in names for names in seen) == 1
    )


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"requests": 0}, {"patience": -1.0}, {"patience": math.nan}])
def test_settings_out_of_bounds_are_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(PellucidError, match=f"{next(iter(wrong))}.* is|{next(iter(wrong))} .*; expected 1, 1 and 0"):
        Batcher(ORACLE, **wrong)
