"""A step keeps nothing but its state, and no number of steps breaks a sampler."""

import gc
import tracemalloc
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import one_of_each_kind
from pellucid import noise, paths, samplers
from pellucid.explain.verify.theorem import all_paths, all_samplers, mixture
from pellucid.sampling import Scheme, sample, walk
from pellucid.types import Batch, Denoised, Times

STEPS = 10, 1000
OBJECT = 28  # bytes of the smallest thing that Python can keep
BROWNIAN = "ddpm", pytest.param("dpmpp-sde", marks=pytest.mark.slow)  # one draw a step, and two


class Fading:
    """A Denoise that believes in a share of x: new tensors at each call, none of them kept."""

    path = paths.Cosine()

    def __call__(self, x: Batch, t: Times) -> Denoised:
        return Denoised(0.5 * x, 0.5 * x)


def held() -> tuple[int, int]:
    """Bytes that Python and numpy hold, and bytes of all tensors."""
    gc.collect()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in gc.get_objects() if type(t) is Tensor}
    return tracemalloc.get_traced_memory()[0], sum(storage.nbytes() for storage in storages.values())


def growth(sampler: samplers.Sampler | str, kind: str, shape: tuple[int, ...]) -> list[float]:
    """Bytes a step, from step 10 to step 1000 of a run."""
    few, many = STEPS
    scheme, seen = Scheme.make(Fading.path, sampler, many + 100, "uniform", kind), list[tuple[int, int]]()
    begun = scheme.sampler.init(torch.ones(shape), torch.ones(shape[0], dtype=torch.float64))
    warm, states = (walk(Fading(), scheme, begun, 0, torch.arange(shape[0])) for _ in range(2))
    next(islice(warm, 300, None))  # what Python and torch keep at hand for themselves
    tracemalloc.start()
    try:
        for step in (few, many - few):
            next(islice(states, step - 1, None))
            seen.append(held())
    finally:
        tracemalloc.stop()
    return [(after - before) / (many - few) for before, after in zip(*seen, strict=True)]


@pytest.mark.parametrize("sampler", one_of_each_kind())
def test_a_step_keeps_nothing(sampler: samplers.Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_ROOM", 1)  # nothing is drawn ahead
    assert max(growth(sampler, "independent", (4, 3, 8, 8))) < OBJECT


@pytest.mark.parametrize("sampler", BROWNIAN)
def test_a_brownian_step_keeps_nothing(sampler: str) -> None:
    assert growth(sampler, "brownian", (2, 1, 2, 2))[1] <= 0  # of tensors


def test_what_is_kept_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure is one: a sampler that remembers a number a step is found out."""
    kept, move = list[Any](), samplers.Ancestral.move
    monkeypatch.setattr(samplers.Ancestral, "move", lambda *args: kept.append(float(len(kept))) or move(*args))
    assert max(growth("ddim", "independent", (4, 3, 8, 8))) > OBJECT


@pytest.mark.parametrize("sampler", one_of_each_kind())
def test_a_thousand_steps_end(sampler: samplers.Sampler) -> None:
    """From 1 step to 1000: finite, and the data's size. (Every length to 50 on every path: the theorem `finite`.)"""
    oracle = mixture().at(Fading.path)
    size = float(mixture().sample(100).abs().max())
    for steps in (1, 2, 1000):
        x = sample(oracle, 4, sampler=sampler, steps=steps, grid="uniform")
        assert x.isfinite().all() and float(x.abs().max()) < 3 * size


@pytest.mark.soak
@pytest.mark.parametrize("path", all_paths().values(), ids=all_paths())
def test_a_thousand_steps_end_on_every_path(path: paths.Path) -> None:
    for name, sampler in all_samplers().items():
        for grid in ("uniform", "karras"):
            x = sample(mixture().at(path), 2, sampler=sampler, steps=1000, grid=grid)
            assert x.isfinite().all(), (name, grid)
