"""Optimisers: torch's own where torch has them, orthogonal where that is promised, and resumed to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid import nets
from pellucid.checkpoint import flatten_optimizer, restore_optimizer
from pellucid.config import Recipe
from pellucid.training import Learner, Run
from pellucid.training.optimisers import Both, registry

every = pytest.mark.parametrize("name", registry.names())
BETAS = 0.9, 0.99


class Net(nn.Module):
    """A kernel, a norm, a table and matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.wide, self.tall, self.table = nn.Linear(16, 6), nn.Linear(6, 12), nn.Embedding(5, 6)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.conv(x)).mean((2, 3)).repeat(1, 4)
        return self.tall(self.wide(h).tanh() + self.table(label))


def made(seed: int = 0) -> Net:
    with pl.denoiser.seeded(seed):
        return Net()


def batch(i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(i)
    return torch.randn(8, 2, 5, 5, generator=rng), torch.arange(8) % 5, torch.randn(8, 12, generator=rng)


def walk(net: Net, optimizer: torch.optim.Optimizer, steps: range, scale: float = 1.0) -> list[torch.Tensor]:
    for i in steps:
        x, label, y = batch(i)
        optimizer.zero_grad(set_to_none=True)
        (scale * (net(x, label) - y).square().mean()).backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize(("name", "theirs"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_without_decay_they_are_torchs(name: str, theirs: Any) -> None:
    ours, other = made(), made()
    a = walk(ours, registry.make(name).make(ours, 1e-2, BETAS, 0.0), range(5))
    b = walk(other, theirs(other.parameters(), 1e-2, BETAS, weight_decay=0.0, fused=False), range(5))
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_matrices_and_kernels_decay_and_nothing_else(name: str) -> None:
    net = made()
    before = {key: p.detach().clone() for key, p in net.named_parameters()}
    optimizer = registry.make(name).make(net, 0.1, BETAS, 0.5)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for key, p in net.named_parameters():
        kept = 1 - 0.1 * 0.5 if p.dim() > 1 else 1.0
        torch.testing.assert_close(p.detach(), kept * before[key], rtol=1e-6, atol=0)


def test_muons_first_step_is_the_nearest_orthogonal_matrix() -> None:
    net, lr = made(), 1e-2
    before = {key: p.detach().clone() for key, p in net.named_parameters()}
    optimizer = registry.make({"name": "muon", "rms": 0.7}).make(net, lr, BETAS, 0.0)
    walk(net, optimizer, range(1))
    for key in ("wide.weight", "tall.weight"):
        p = dict(net.named_parameters())[key]
        assert p.grad is not None
        moved = (before[key] - p.detach()) / (lr * 0.7 * max(p.shape) ** 0.5)
        u, s, v = torch.linalg.svd(p.grad, full_matrices=False)
        sound = s > 0.05 * s.max()  # five of Newton's steps do not reach what is almost nothing
        along = torch.linalg.multi_dot([u.T, moved, v.T]).diagonal()[sound]
        assert ((along > 0.6) & (along < 1.25)).all()  # the steps' fixed interval (Jordan 2024)


def test_muons_step_knows_no_scale_and_adamw_moves_the_rest() -> None:
    one, other, plain = made(), made(), made()
    a = walk(one, registry.make("muon").make(one, 1e-2, BETAS, 0.0), range(1))
    b = walk(other, registry.make("muon").make(other, 1e-2, BETAS, 0.0), range(1), 64.0)
    c = walk(plain, registry.make("adamw").make(plain, 1e-2, BETAS, 0.0), range(1))
    for p, q, r, (key, _) in zip(a, b, c, one.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
        assert torch.equal(p, r) == (key not in ("wide.weight", "tall.weight"))


@pytest.mark.parametrize("name", nets.registry.classes)
def test_every_matrix_of_a_network_is_muons(name: str) -> None:
    net = nets.registry.make({"name": name, "width": 64}, (3, 8, 8), 4)
    optimizer = registry.make("muon").make(net, 1e-2, BETAS, 0.0)
    assert isinstance(optimizer, Both)
    (muon, _), _ = optimizer.parts
    matrices = {key for key, p in net.named_parameters() if p.dim() == 2 and min(p.shape) > 1}
    theirs = {id(p) for group in muon.param_groups for p in group["params"]}
    assert matrices and {key for key, p in net.named_parameters() if id(p) in theirs} == matrices


def test_muon_is_refused_where_it_has_nothing_to_do() -> None:
    with pytest.raises(pl.PellucidError, match="no matrices; take adamw"):
        registry.make("muon").make(nn.Conv2d(2, 2, 3), 1e-2, BETAS, 0.0)


@every
def test_a_state_that_is_kept_and_taken_goes_on_to_the_bit(name: str) -> None:
    straight, net = made(), made()
    whole = walk(straight, registry.make(name).make(straight, 1e-2, BETAS, 0.1), range(6))
    first = registry.make(name).make(net, 1e-2, BETAS, 0.1)
    walk(net, first, range(3))
    kept = {key: value.clone() for key, value in flatten_optimizer(first).items()}
    second = registry.make(name).make(net, 1e-2, BETAS, 0.1)
    restore_optimizer(second, kept)
    again = walk(net, second, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(whole, again, strict=True))
    assert flatten_optimizer(second).keys() == kept.keys()


@every
def test_a_run_that_is_cut_ends_in_the_same_weights(name: str, tmp_path: Path) -> None:
    small = ["net={name='dit',width=16,depth=1,head=8,patch=4}", "train.batch=8", "train.steps=6", "train.save_every=2"]
    recipe = Recipe.load("digits", [*small, f"optim.method={name}", "optim.weight_decay=0.1", "optim.warmup=2"])
    data = recipe.read()
    found = []
    for cut in (6, 3):
        for steps in sorted({cut, 6}):
            model = recipe.build(data)
            learner = Learner(model, data, recipe.plan(model, data), recipe.aim())
            for progress in (walking := Run(tmp_path / f"{name}{cut}", save_every=1).fit(learner)):
                if progress.step == steps:
                    break
            walking.close()
        found.append([*learner.ema.tensors[0].values(), *learner.model.state_dict().values()])
    assert all(torch.equal(p, q) for p, q in zip(*found, strict=True))


@every
def test_each_lowers_the_loss(name: str) -> None:
    net = made()
    x, label, y = batch(0)
    before = (net(x, label) - y).square().mean().item()
    optimizer = registry.make(name).make(net, 1e-2, BETAS, 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        (net(x, label) - y).square().mean().backward()
        optimizer.step()
    assert (net(x, label) - y).square().mean().item() < 0.7 * before


def test_an_unknown_optimiser_is_refused() -> None:
    with pytest.raises(pl.PellucidError, match="did you mean 'muon'"):
        Recipe.load("digits", ["optim.method=muonn"])
