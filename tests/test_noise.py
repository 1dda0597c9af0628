"""Noise is a function of (seed, sample, step, stream): the published generator, normal, and nobody's neighbour."""

import math

import pytest
import torch
from scipy import stats

from pellucid.noise import START, TIMES, TRAIN, normal, philox, uniform, words

INDEX = torch.arange(64)


@pytest.mark.parametrize(
    "counter, key, expected",
    [  # Random123's kat_vectors, philox4x32 with 10 rounds
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_answers(counter: str, key: str, expected: str) -> None:
    tensors = lambda text: tuple(torch.tensor(int(word, 16)) for word in text.split())  # noqa: E731
    assert [f"{int(word):08x}" for word in philox(tensors(counter), tensors(key))] == expected.split()


def test_every_part_of_the_key_counts() -> None:
    """Seed (both halves), sample (both halves), step and stream: change one, and nothing is shared."""
    base = {"seed": 5, "index": torch.tensor([3]), "step": 2, "stream": START, "count": 8}
    others = [
        {"seed": 6},
        {"seed": 5 + 2**32},
        {"index": torch.tensor([4])},
        {"index": torch.tensor([3 + 2**32])},
        {"index": torch.tensor([3 + 2**50])},
        {"index": torch.tensor([3 + (TRAIN << 48)])},
        {"step": 3},
        {"stream": TRAIN},
    ]
    seen = [set(words(**base | other)[0].tolist()) for other in [{}, *others]]
    assert len(set.union(*seen)) == 8 * len(seen)
    assert all(0 <= word < 2**32 for word in set.union(*seen))


def test_streams_steps_and_samples_do_not_alias() -> None:
    """No pair of different keys gives the same words, over a block of all of them."""
    rows = [
        tuple(row)
        for seed in (0, 1, 2**31)
        for step in (0, 1, 2)
        for stream in (0, 1, 2, 101)
        for row in words(seed, torch.arange(50), step, stream, 4).tolist()
    ]
    assert len(set(rows)) == len(rows)


def test_a_sample_does_not_know_its_batch() -> None:
    whole = normal(7, INDEX, 3, (5, 2))
    for chosen in ([0], [5, 3], list(range(63, -1, -1)), [9] * 3):
        assert torch.equal(normal(7, torch.tensor(chosen), 3, (5, 2)), whole[chosen])


def test_larger_shapes_begin_with_smaller_ones() -> None:
    assert torch.equal(normal(7, INDEX, 3, (9,))[:, :4], normal(7, INDEX, 3, (4,)))
    assert torch.equal(normal(7, INDEX, 3, (3, 3)), normal(7, INDEX, 3, (9,)).reshape(-1, 3, 3))


def test_every_precision_sees_the_same_noise() -> None:
    double = normal(7, INDEX, 3, (5,), dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(normal(7, INDEX, 3, (5,), dtype=dtype), double.to(dtype))


def test_seeds_and_steps_may_differ_by_sample() -> None:
    seeds, steps = torch.tensor([4, 9]), torch.tensor([1, 6])
    both = normal(seeds, torch.tensor([2, 8]), steps, (3,))
    assert torch.equal(both[:1], normal(4, torch.tensor([2]), 1, (3,)))
    assert torch.equal(both[1:], normal(9, torch.tensor([8]), 6, (3,)))


def test_it_is_normal() -> None:
    """The whole distribution (Kolmogorov-Smirnov) and its moments up to the fourth, on 200,000 draws."""
    z = normal(1, torch.arange(2000), 0, (100,), dtype=torch.float64).flatten()
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    for power, exact, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - exact) < 4 * math.sqrt(variance / len(z))
    assert 4 < float(z.abs().max()) < 7


def test_it_is_independent() -> None:
    """No correlation of values or of squares between dimensions, samples, steps, seeds and streams."""
    n, base = 50_000, {"seed": 1, "index": torch.arange(50_000), "step": 0, "shape": (4,), "stream": START}
    z = normal(**base, dtype=torch.float64)
    others = [
        {"index": torch.arange(1, n + 1)},
        {"index": torch.arange(n) + 2**32},
        {"step": 1},
        {"seed": 2},
        {"seed": 1 + 2**32},
        {"stream": 1},
    ]
    for other in [z.roll(1, 1), *(normal(**base | change, dtype=torch.float64) for change in others)]:
        for a, b in ((z, other), (z**2 - 1, other**2 - 1)):
            assert abs(float((a * b).mean() / (a.std() * b.std()))) < 4.5 / math.sqrt(a.numel())


def test_uniform_is_uniform_and_never_an_end() -> None:
    u = uniform(3, torch.arange(100_000))
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3 and u.min() > 0 and u.max() < 1
    assert u.dtype == torch.float64 and len(u.unique()) == len(u)
    low = (u * 2**32).frac()  # the second word counts too
    assert stats.kstest(low.numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(u[:3], uniform(3, torch.arange(3), stream=TIMES))


def test_nobody_elses_random_state_is_touched() -> None:
    before = torch.random.get_rng_state()
    normal(0, INDEX, 0, (3,)), uniform(0, INDEX)
    assert torch.equal(before, torch.random.get_rng_state())
