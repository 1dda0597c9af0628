"""Conditions: withheld is withheld, by whichever way; a label is its row; what is not a class is refused."""

import pytest
import torch
from torch import Tensor

from pellucid.conditioning import Label, Unconditional, drop, null, registry
from pellucid.errors import PellucidError
from pellucid.types import Cond

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 3, 9, 3])


def heard(conditioner: Label, cond: Cond | None, b: int = 4) -> Tensor:
    vec = conditioner(cond, b, CPU, torch.float32).vec
    assert vec is not None
    return vec


def label() -> Label:
    with torch.random.fork_rng():
        conditioner: Label = registry.make({"name": "label", "classes": 10, "width": 6})  # type: ignore[assignment]
    return conditioner


def test_a_label_is_its_row() -> None:
    conditioner = label()
    assert torch.equal(heard(conditioner, {"label": LABELS}), conditioner.embedding.weight[LABELS])


def test_there_is_one_way_of_hearing_nothing() -> None:
    """No conditions, conditions without a label, all withheld, and the null row are the same."""
    conditioner = label()
    nothing = conditioner.embedding.weight[10].expand(4, 6)
    everyone = torch.ones(4, dtype=torch.bool)
    for cond in (None, {}, {"drop": everyone}, null({"label": LABELS}), drop({"label": LABELS}, everyone)):
        assert torch.equal(heard(conditioner, cond), nothing)


def test_withholding_from_some_leaves_the_others() -> None:
    conditioner, mask = label(), torch.tensor([True, False, False, True])
    vec = heard(conditioner, drop({"label": LABELS}, mask))
    assert torch.equal(vec[~mask], heard(conditioner, {"label": LABELS})[~mask])
    assert torch.equal(vec[mask], heard(conditioner, None)[mask])


def test_withholding_adds_up_and_changes_no_argument() -> None:
    cond: Cond = {"label": LABELS, "drop": torch.tensor([True, False, False, False])}
    both = drop(cond, torch.tensor([False, True, False, False]))
    assert both["drop"].tolist() == [True, True, False, False]
    assert cond["drop"].tolist() == [True, False, False, False]
    assert null(both)["drop"].all() and null({}) == {}


def test_nothing_is_learnt_only_where_it_is_heard() -> None:
    conditioner = label()
    heard(conditioner, drop({"label": LABELS}, torch.tensor([True, False, False, False]))).sum().backward()
    rows = conditioner.embedding.weight.grad.abs().sum(1)  # type: ignore[union-attr]
    assert rows.nonzero().flatten().tolist() == [3, 9, 10]


@pytest.mark.parametrize("wrong", [-1, 10])
def test_a_label_that_is_no_class_is_refused(wrong: int) -> None:
    """Not even the null row can be asked for as if it were a class."""
    with pytest.raises(PellucidError, match=f"label is {wrong}; expected a class from 0 to 9"):
        heard(label(), {"label": torch.tensor([1, wrong, 2, 3])})


def test_no_classes_are_refused() -> None:
    with pytest.raises(PellucidError, match="classes = 0"):
        Label(classes=0)


def test_the_unconditional_hear_nothing() -> None:
    conditioner = Unconditional()
    assert conditioner.width == 0
    assert conditioner({"label": LABELS}, 4, CPU, torch.float32) == (None, None, None)


def test_the_context_has_the_precision_of_the_network() -> None:
    vec = label()({"label": LABELS}, 4, CPU, torch.bfloat16).vec
    assert vec is not None and vec.dtype == torch.bfloat16


def test_options_make_the_conditioner_again() -> None:
    for conditioner in (label(), registry.make("none")):
        twin = registry.make(registry.describe(conditioner))
        twin.load_state_dict(conditioner.state_dict())
        assert type(twin) is type(conditioner)
