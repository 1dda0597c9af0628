"""Augmentation: the same for a sample whoever is beside it, exact where it can be, and told to the network in full."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pellucid as pl
from pellucid import drawing
from pellucid.checkpoint import Checkpoint
from pellucid.config import Recipe
from pellucid.data.augment import NonLeaking, affine, augment, registry, rotation
from pellucid.training import Learner

PICTURES = torch.rand(400, 2, 6, 9, generator=torch.Generator().manual_seed(0))
every = pytest.mark.parametrize("name", registry.names())


def changed(name: str, index: Tensor, x: Tensor = PICTURES, seed: int = 3) -> tuple[Tensor, Tensor | None]:
    return augment([registry.make(name)], x[index % len(x)], seed, index)


@every
def test_a_sample_is_changed_alike_whoever_is_beside_it(name: str) -> None:
    index = torch.arange(50, 90)
    x, c = changed(name, index)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for part in order.split(7):
        y, d = changed(name, index[part])
        torch.testing.assert_close(y, x[part], rtol=0, atol=1e-6)
        assert (c is None) == (d is None) and (c is None or torch.equal(d, c[part]))
    assert not torch.equal(changed(name, index, seed=4)[0], x)
    assert not torch.equal(x, PICTURES[index])


@every
def test_parts_of_one_list_draw_their_own_numbers(name: str) -> None:
    index = torch.arange(60)
    part = registry.make(name)
    twice, _ = augment([part, part], PICTURES[index], 3, index)
    again, _ = augment([part], augment([part], PICTURES[index], 3, index)[0], 3, index)
    assert not torch.equal(twice, again)


def test_a_flip_is_a_mirror_for_every_other_sample() -> None:
    x, c = changed("flip", torch.arange(400))
    flipped = (x == PICTURES.flip(-1)).flatten(1).all(1)
    assert c is None and (flipped ^ (x == PICTURES).flatten(1).all(1)).all()
    assert abs(int(flipped.sum()) - 200) < 4 * 10  # four standard deviations


def test_a_crop_is_cut_from_the_picture_and_its_mirror_images() -> None:
    x, _ = augment([registry.make({"name": "crop", "pad": 3})], PICTURES, 0, torch.arange(400))
    seen = set()
    for one, whole in zip(x.numpy(), PICTURES.numpy(), strict=True):
        wide = np.pad(whole, ((0, 0), (3, 3), (3, 3)), "reflect")
        places = [(i, j) for i in range(7) for j in range(7) if np.array_equal(wide[:, i : i + 6, j : j + 9], one)]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) == 49


def test_what_can_be_moved_exactly_is() -> None:
    square = PICTURES[:, :, :, :6]
    n = len(square)
    still, none = torch.eye(2, dtype=torch.float64).expand(n, 2, 2), torch.zeros(n, 2, dtype=torch.float64)
    quarter = rotation(torch.full((n,), math.pi / 2, dtype=torch.float64))
    assert affine(square, still, none) is square
    torch.testing.assert_close(affine(square, quarter, none), square.rot90(-1, (2, 3)), rtol=0, atol=1e-5)
    shift = torch.tensor([2 / 9, -1 / 6], dtype=torch.float64).expand(n, 2)  # pixels: two to the right, one up
    moved = affine(PICTURES, still, shift)
    torch.testing.assert_close(moved[:, :, :-1, 2:], PICTURES[:, :, 1:, :-2], rtol=0, atol=1e-5)
    for one, other in ((quarter, 0.7 * still), (1.3 * still, quarter)):  # what is composed is one movement
        smooth = torch.nn.functional.avg_pool2d(torch.nn.functional.interpolate(square, scale_factor=8), 9, 1, 4)
        both = affine(affine(smooth, one, none), other, none)
        middle = slice(18, 30)
        torch.testing.assert_close(
            both[..., middle, middle], affine(smooth, other @ one, none)[..., middle, middle], rtol=0, atol=0.05
        )


def test_the_network_is_told_all_that_was_done() -> None:
    x, c = changed("edm", torch.arange(400))
    assert c is not None
    c = c.double()
    again = torch.where(c[:, 0].bool()[:, None, None, None], PICTURES.flip(-1), PICTURES)
    again = torch.where(c[:, 1].bool()[:, None, None, None], again.flip(-2), again)
    grow = torch.exp2(c[:, 2] / 5)[:, None, None] * rotation(torch.atan2(c[:, 4], c[:, 3] + 1))
    turn, a = rotation(torch.atan2(c[:, 6], c[:, 5]) / 2), torch.hypot(c[:, 5], c[:, 6])
    along = torch.diag_embed(torch.exp2(torch.stack([a, -a], 1) / 5))
    torch.testing.assert_close(affine(again, grow @ turn @ along @ turn.mT, c[:, 7:] / 8), x, rtol=0, atol=1e-4)
    alone = (c == 0).all(1)
    assert alone.any() and torch.equal(x[alone], PICTURES[alone])


@pytest.mark.parametrize("p", [0.12, 0.5])
def test_each_change_is_made_as_often_as_it_is_said_to_be(p: float) -> None:
    n = 20_000
    x, c = augment([NonLeaking(p)], torch.zeros(n, 1, 2, 2), 0, torch.arange(n))
    assert c is not None
    often = (c != 0).double().mean(0)
    for found, meant in zip(often[[0, 1, 2, 4, 5, 7]].tolist(), (0.5, p / 2, p, p, p, p), strict=True):
        assert abs(found - meant) < 5 * math.sqrt(meant * (1 - meant) / n)
    told = c[(c[:, 2] != 0), 2].double()
    assert abs(float(told.mean())) < 5 / math.sqrt(len(told)) and abs(float(told.var()) - 1) < 0.1


def recipe(**settings: Any) -> Recipe:
    small = ["net.width=8", "net.groups=4", "net.head=8", "train.batch=12", "train.steps=4"]
    return Recipe.load("digits", [*small, *(f"{k}={v}" for k, v in settings.items())])


def test_a_model_learns_from_augmented_pictures_and_draws_as_if_from_none() -> None:
    shown = recipe(**{"data.augment": "['flip', {name='edm', p=0.5}]"})
    data = shown.read()
    model = shown.build(data)
    assert Recipe.parse(shown.model_dump()) == shown and recipe(**{"data.augment": "flip"}).data.augment == ("flip",)
    assert pl.Denoiser.from_config(model.config()).config() == model.config()
    trained = pl.train(model, data, shown.plan(model, data), shown.aim())
    assert trained.conditioner.hear.weight.abs().max() > 0
    cond = {"label": torch.arange(4)}
    x, t = torch.randn(4, 1, 8, 8), torch.full((4,), 0.4, dtype=torch.float64)
    with torch.no_grad():
        plain, told = trained(x, t, cond).x0, trained(x, t, {**cond, "augment": torch.zeros(4, 9)}).x0
        turned = trained(x, t, {**cond, "augment": torch.ones(4, 9)}).x0
    assert torch.equal(plain, told) and not torch.equal(plain, turned)
    assert pl.sample(trained, 2, steps=2, cond={"label": 1}, guidance=pl.CFG(2.0)).isfinite().all()


@pytest.mark.parametrize("conditioner", ["label", "none"])
def test_a_model_of_augmented_pictures_is_drawn_by_its_classes(conditioner: str) -> None:
    shown = recipe(conditioner=conditioner, **{"data.augment": "edm"})
    data = shown.read()
    meta = {"config": shown.build(data).config(), "classes": list(data.classes)}
    labels = drawing.labels("all", Checkpoint({}, meta))
    assert labels == (tuple(range(10)) if conditioner == "label" else ())


def test_augmented_training_hangs_on_the_numbers_of_samples_alone() -> None:
    found = []
    for accumulate, workers in ((1, 0), (3, 2)):
        shown = recipe(**{"data.augment": "edm", "train.accumulate": accumulate, "train.workers": workers})
        data = shown.read()
        learner = Learner(model := shown.build(data), data, shown.plan(model, data), shown.aim())
        found.append([progress.loss for progress in learner.fit()])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_what_cannot_be_augmented_is_refused() -> None:
    points = Recipe.load("toy-2d", ["data.augment=flip"])
    with pytest.raises(pl.PellucidError, match="holds none"):
        points.build(points.read())
    with pytest.raises(pl.PellucidError, match="did you mean 'flip'"):
        Recipe.load("digits", ["data.augment=['flipp']"])
    with pytest.raises(pl.PellucidError, match="brings its own noise"):
        recipe(**{"data.augment": "flip"}).aim().lesson(PICTURES, {"noise": PICTURES}, 0, torch.arange(400))
