"""What all tests share: one thread for torch, so that they neither fight for cores nor depend on how many there are."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pellucid.explain.verify.theorem import all_samplers


def one_of_each_kind() -> Iterator[Any]:
    """Every sampler as a parameter; those that differ from an earlier one in numbers alone are slow."""
    kinds = set[tuple[object, ...]]()
    for name, sampler in all_samplers().items():
        options = ("variable", "clock", "mode", "start")
        kind = type(sampler), sampler.stochastic, *(getattr(sampler, option, None) for option in options)
        yield pytest.param(sampler, id=name, marks=[pytest.mark.slow] if kind in kinds else [])
        kinds.add(kind)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
