"""What all tests share: one thread for torch, so that they neither fight for cores nor depend on how many there are."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
