"""What all tests share: one thread for torch, so that they neither fight for cores nor depend on how many there are;
a cache of their own."""

import os
import signal
from typing import Any

import pytest
import torch

from pellucid.explain.verify import theorem


def one_of_each_kind() -> list[Any]:
    """Every sampler as a parameter; those that differ from an earlier one in numbers alone are slow."""
    quick = theorem.one_of_each_kind()
    marks = {name: [] if name in quick else [pytest.mark.slow] for name in theorem.all_samplers()}
    return [pytest.param(sampler, id=name, marks=marks[name]) for name, sampler in theorem.all_samplers().items()]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def ears() -> None:
    """What a shell starts in the background is deaf to SIGINT, and so are its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stores are packed where the tests are, not where the user's are."""
    os.environ["PELLUCID_CACHE"] = str(tmp_path_factory.mktemp("cache"))
