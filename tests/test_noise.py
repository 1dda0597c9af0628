"""Noise is a function of (seed, sample, step, stream): the published generator, normal, and nobody's neighbour."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pellucid.noise import START, TIMES, TRAIN, box_muller, independent, normal, philox, uniform, words

INDEX = torch.arange(64)


@pytest.mark.parametrize(
    "counter, key, expected",
    [  # Random123's kat_vectors, philox4x64 with 10 rounds, lowest word first
        (
            "0000000000000000 0000000000000000 0000000000000000 0000000000000000",
            "0000000000000000 0000000000000000",
            "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
        ),
        (
            "ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff",
            "ffffffffffffffff ffffffffffffffff",
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
        (
            "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
            "452821e638d01377 be5466cf34e90c6c",
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter: str, key: str, expected: str) -> None:
    number = sum(int(word, 16) << 64 * i for i, word in enumerate(counter.split()))
    low, high = (int(word, 16) for word in key.split())
    assert [f"{word:016x}" for word in philox(number, (low, high), 4)] == expected.split()


@pytest.mark.parametrize("counter", [0, 1, 2**64 - 1, 2**128 - 1, 2**192 - 1, 2**256 - 1])
def test_philox_counts_in_256_bits(counter: int) -> None:
    """Two blocks at once are the block at a counter and the one at the next, with every carry."""
    after = (counter + 1) % 2**256
    both = [*philox(counter, (5, 7), 4), *philox(after, (5, 7), 4)]
    assert philox(counter, (5, 7), 8).tolist() == both


def test_every_part_of_the_key_counts() -> None:
    """Seed, sample, step (both halves of each) and stream: change one, and nothing is shared."""
    base = {"seed": 5, "index": torch.tensor([3]), "step": 2, "stream": START, "count": 8}
    others = [
        {"seed": 6},
        {"seed": -5},
        {"seed": 5 + 2**32},
        {"seed": 5 - 2**63},
        {"index": torch.tensor([4])},
        {"index": torch.tensor([5])},
        {"index": torch.tensor([3 + 2**32])},
        {"index": torch.tensor([3 + 2**50])},
        {"index": torch.tensor([2**63 - 1])},
        {"index": torch.tensor([3 + (TRAIN << 48)])},
        {"step": 3},
        {"step": 2 + 2**32},
        {"stream": TRAIN},
        {"count": 12},  # a sample of another size, and those that lie where it would
        {"index": torch.tensor([6])},
        {"index": torch.tensor([7])},
        {"index": torch.tensor([2**62]), "step": 0, "count": 64},  # beyond 2^64 blocks: no other step's
        {"index": torch.tensor([0]), "step": 2, "count": 64},
    ]
    seen = [words(**base | other)[0].tolist() for other in [{}, *others]]
    assert len({word for row in seen for word in row}) == sum(map(len, seen))
    assert all(0 <= word < 2**32 for row in seen for word in row)


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


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40), st.integers(0, 2**32)), min_size=1),
    st.integers(1, 70),
    st.integers(1, 9),
)
def test_strangers_and_rows_get_what_they_get_alone(keys: list[tuple[int, int, int]], size: int, run: int) -> None:
    """Bit for bit: seeds, samples and steps of all kinds, each followed by a run of the samples after it."""
    seed, index, step = (torch.tensor(column).repeat_interleave(run) for column in zip(*keys, strict=True))
    index = index + torch.arange(run).repeat(len(keys))
    together = normal(seed, index, step, (size,))
    for i in {0, len(index) // 2, len(index) - 1}:
        assert torch.equal(together[i : i + 1], normal(int(seed[i]), index[i : i + 1], int(step[i]), (size,)))


@pytest.mark.parametrize("shape", [(5000,), (3, 64, 64), (40_000,), (3, 7, 11), (1,)])
def test_what_is_drawn_at_once_does_not_show(shape: tuple[int, ...]) -> None:
    """Large samples are drawn a few at a time, small ones together, and large runs in pieces."""
    n = 40 if len(shape) > 1 or shape[0] > 1 else 50_000
    whole = normal(7, torch.arange(n), 3, shape)
    for i in (0, 1, n // 3, n - 1):
        assert torch.equal(whole[i : i + 1], normal(7, torch.tensor([i]), 3, shape))
    assert torch.equal(whole.flip(0), normal(7, torch.arange(n - 1, -1, -1), 3, shape))


def test_a_shape_only_folds() -> None:
    assert torch.equal(normal(7, INDEX, 3, (3, 3)), normal(7, INDEX, 3, (9,)).reshape(-1, 3, 3))


def test_threads_do_not_disturb_each_other() -> None:
    draw = lambda i: normal(i, INDEX, i, (3, 16, 16))  # noqa: E731
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(draw(i), z) for i, z in enumerate(pool.map(draw, range(100))))


@pytest.mark.parametrize("shape", [(3,), (3, 32, 32), (70_000,)])
def test_a_walk_draws_ahead_and_nobody_sees_it(shape: tuple[int, ...]) -> None:
    """A source says for step i and draw k what `normal` says, in whatever order it is asked."""
    index, clock = torch.tensor([4, 9]), torch.zeros(8, 2, dtype=torch.float64)
    draws = independent(5, index, clock, shape, torch.float32)
    for i, k in ((0, 0), (1, 0), (1, 1), (6, 0), (2, 1), (2, 0), (0, 0), (6, 3)):
        assert torch.equal(draws(i, k), normal(5, index, i, shape, stream=1 + k))


def test_every_precision_sees_the_same_noise() -> None:
    double = normal(7, INDEX, 3, (5,), dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(normal(7, INDEX, 3, (5,), dtype=dtype), double.to(dtype))
    assert torch.equal(double, double.float().double())


def test_box_and_muller_at_every_end() -> None:
    """P(R > r) = exp(-r^2/2) is (u + 1/2)/2^32 for the smallest u and the largest, at every angle; nothing is lost."""
    u = np.array([0, 1, 2, 2**8, 2**16, 2**24, 2**31, 2**32 - 2**20, 2**32 - 2**12, 2**32 - 1], np.uint32)
    v = np.array([-(2**31), -(2**30), -1, 0, 1, 2**30, 2**31 - 1], np.int32)
    grid = [np.ascontiguousarray(part) for part in np.meshgrid(u, v)]
    z = np.empty((len(v), 2 * len(u)), np.float32)
    box_muller(*grid, np.empty((3, *grid[0].shape), np.float32), z)
    x, y = z[:, : len(u)].astype(float), z[:, len(u) :].astype(float)
    assert np.isfinite(z).all() and np.hypot(x, y).max() == pytest.approx(math.sqrt(66 * math.log(2)), rel=1e-6)
    share = np.exp(-(x**2 + y**2) / 2)
    np.testing.assert_allclose(share, (grid[0].astype(float) + 0.5) / 2**32, rtol=1e-5)
    angle = np.arctan2(y, x)[:, :-1] / math.pi * 2**31  # the last u is the middle of the plane
    np.testing.assert_allclose(np.abs(angle), np.abs(grid[1].astype(float))[:, :-1], atol=2**31 * 1e-7)


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
    assert ((u * 2**52).frac() == 0.5).all()  # the middle of an interval
    low = (u * 2**32).frac()  # the second word counts too
    assert stats.kstest(low.numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(u[:3], uniform(3, torch.arange(3), stream=TIMES))


def test_nobody_elses_random_state_is_touched() -> None:
    before = torch.random.get_rng_state()
    normal(0, INDEX, 0, (3,)), uniform(0, INDEX)
    assert torch.equal(before, torch.random.get_rng_state())
