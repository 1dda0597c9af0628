"""Couplings move noise about and never change what it is; the best one is the best of all permutations."""

from itertools import permutations

import pytest
import torch

from pellucid.coupling import OT, Independent, registry
from pellucid.noise import normal
from pellucid.objective import Objective

X, EPS = (normal(s, torch.arange(6), 0, (2, 2)) for s in (0, 1))


@pytest.mark.parametrize("name", registry.names())
def test_a_coupling_is_a_permutation_of_the_batch(name: str) -> None:
    coupled = registry.make(name).couple(X, EPS)
    rows = (coupled[:, None] == EPS).flatten(2).all(2).double().argmax(1)
    assert sorted(rows.tolist()) == list(range(6))


def test_optimal_transport_is_the_best_permutation() -> None:
    cost = min(float((X - EPS[list(p)]).square().sum()) for p in permutations(range(6)))
    assert float((X - OT().couple(X, EPS)).square().sum()) == pytest.approx(cost, rel=1e-6)
    assert float((X - Independent().couple(X, EPS)).square().sum()) > cost


def test_data_that_bring_their_noise_keep_it_and_no_network_hears_of_it() -> None:
    index = torch.arange(6)
    cond = {"label": index, "noise": EPS}
    for coupling in (Independent(), OT()):
        lesson = Objective(coupling=coupling).lesson(X, cond, 0, index)
        assert torch.equal(lesson.eps, EPS) and set(lesson.cond) == {"label", "drop"}
    assert "noise" in cond
    coupled, drawn = (Objective(coupling=c).lesson(X, {}, 0, index).eps for c in (OT(), Independent()))
    assert not torch.equal(coupled, drawn)
