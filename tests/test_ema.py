"""The moving average against its closed form, against torch's own, and in and out of a module."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pellucid.ema import EMA
from pellucid.errors import PellucidError


def module(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def walk(model: nn.Module, steps: int) -> "list[dict[str, Tensor]]":
    """The weights of a model on a random walk, its start first; the model ends at the last."""
    generator, path = torch.Generator().manual_seed(1), [state(model)]
    for _ in range(steps):
        path.append({k: v + torch.randn(v.shape, generator=generator) for k, v in path[-1].items()})
    return path


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().double().clone() for name, p in model.named_parameters()}


def follow(ema: EMA, model: nn.Module, path: "list[dict[str, Tensor]]") -> None:
    for weights in path:
        model.load_state_dict(weights, strict=False)
        ema.update(model)


@pytest.mark.parametrize("warmup", [True, False])
def test_it_is_its_closed_form(warmup: bool) -> None:
    """ema_N = prod_n d_n theta_0 + sum_n (1 - d_n) prod_(m > n) d_m theta_n."""
    model = module()
    ema, path = EMA(model, decay=0.6, warmup=warmup), walk(model, 20)
    follow(ema, model, path[1:])
    d = torch.tensor([min(0.6, (1 + n) / (10 + n)) if warmup else 0.6 for n in range(20)], dtype=torch.float64)
    left = torch.cat([d.flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])  # prod_(m >= n) d_m
    shares = torch.cat([left[:1], (1 - d) * left[1:]])
    torch.testing.assert_close(shares.sum(), torch.tensor(1.0, dtype=torch.float64))
    for name in path[0]:
        expected = sum(share * weights[name] for share, weights in zip(shares, path, strict=True))
        torch.testing.assert_close(ema.state_dict()[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_it_is_torchs_average() -> None:
    model = module()
    judge = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    judge.update_parameters(model)  # the first update of theirs is a copy
    ema = EMA(model, decay=0.9, warmup=False)
    for weights in walk(model, 10):
        model.load_state_dict(weights, strict=False)
        model(torch.randn(8, 3, generator=torch.Generator().manual_seed(2)))  # moves the statistics of BatchNorm
        ema.update(model)
        judge.update_parameters(model)
    for name, expected in judge.module.state_dict().items():
        torch.testing.assert_close(ema.state_dict()[name], expected, rtol=1e-6, atol=1e-6)


def test_no_decay_is_a_copy() -> None:
    model = module()
    ema = EMA(model, decay=0.0)
    follow(ema, model, walk(model, 3))
    for name, value in model.state_dict().items():
        assert torch.equal(ema.state_dict()[name], value)


def test_applied_swaps_and_swaps_back_even_on_failure() -> None:
    model = module()
    ema = EMA(model, decay=0.5)
    follow(ema, model, walk(model, 3))
    own, averaged = state(model), {name: value.clone() for name, value in ema.state_dict().items()}
    with pytest.raises(ZeroDivisionError), ema.applied(model):
        assert all(torch.equal(value, averaged[name]) for name, value in model.state_dict().items())
        raise ZeroDivisionError
    assert all(torch.equal(value, own[name]) for name, value in state(model).items())
    assert all(torch.equal(value, averaged[name]) for name, value in ema.state_dict().items())


def test_weights_that_are_shared_stay_shared() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    ema = EMA(model, decay=0.5)
    with torch.no_grad():
        model["a"].weight.add_(1)
    ema.update(model)
    assert torch.equal(ema.state_dict()["a.weight"], ema.state_dict()["b.weight"])


def test_restored_it_goes_on_as_if_never_stopped() -> None:
    model = module()
    path, ema = walk(model, 12), EMA(model, decay=0.9)
    follow(ema, model, path[:6])
    other = EMA(module(seed=5), decay=0.9)
    other.load_state_dict({name: value.clone() for name, value in ema.state_dict().items()}, ema.updates)
    follow(ema, model, path[6:])
    follow(other, model, path[6:])
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in ema.state_dict().items())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_forgets_nothing_is_refused(decay: float) -> None:
    with pytest.raises(PellucidError, match="ema is"):
        EMA(module(), decay)
