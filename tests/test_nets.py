"""Networks: silent at first, no dead weights, strangers in a batch never meet, and each layer is its formula.

Parametrised over the registry: a new network is tested by being registered.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.errors import PellucidError
from pellucid.nets import MLP, Network, UNet, registry
from pellucid.nets.blocks import Add, Attention, ResBlock, Scale, Style, grow, grow_conv, shrink
from pellucid.nets.features import Fourier, Hearing, Sinusoidal
from pellucid.types import Context

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "width": 16, "blocks": 2},
    "unet": {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [8], "head": 4, "groups": 4},
}
STYLE = Style(dims=2, heard=12, groups=4, head=4, fed="scale", dropout=0.0)
every_net = pytest.mark.parametrize("name", registry.names())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def awake(net: nn.Module, seed: int = 1) -> Any:
    """`net` away from its silent start: every parameter moved by a small random amount."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator(seed)))
    return net


def make(name: str, shape: tuple[int, ...] = (3, 8, 8), context: int = 5, **options: Any) -> Any:
    return registry.make(SMALL[name] | options, shape, context)


def inputs(b: int, shape: tuple[int, ...] = (3, 8, 8), context: int = 5) -> tuple[Tensor, Tensor, Context]:
    vec = torch.randn(b, context, generator=generator(2)) if context else None
    return torch.randn(b, *shape, generator=generator(0)), torch.linspace(1, 900, b), Context(vec)


def test_every_network_is_tested_here() -> None:
    assert set(SMALL) == set(registry.names())


@every_net
def test_it_says_nothing_before_training(name: str) -> None:
    assert (make(name)(*inputs(2)) == 0).all()


WAYS = [
    ("mlp", {}),
    ("mlp", {"features": "fourier"}),
    ("unet", {"fed": "add", "resample": "plain"}),
    ("unet", {"fed": "add", "features": "fourier"}),
    ("unet", {"fed": "scale", "attention": [4]}),
]


@pytest.mark.parametrize(("name", "options"), WAYS)
def test_every_weight_learns(name: str, options: dict[str, Any]) -> None:
    """Not a single number of any parameter is dead: the key of attention has no bias for this reason."""
    net = awake(make(name, **options))
    net(*inputs(4)).square().sum().backward()
    for key, p in net.named_parameters():
        assert (p.grad != 0).all(), key


@every_net
def test_strangers_in_a_batch_never_meet(name: str) -> None:
    net, (x, clock, ctx) = awake(make(name)), inputs(5)
    together = net(x, clock, ctx)
    alone = torch.cat([net(x[i : i + 1], clock[i : i + 1], Context(ctx.vec[i : i + 1])) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * float(together.detach().abs().max()))
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = net(x[order], clock[order], Context(ctx.vec[order]))
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-5 * float(together.detach().abs().max()))


@every_net
def test_clock_and_context_are_heard(name: str) -> None:
    net, (x, clock, ctx) = awake(make(name)), inputs(1)
    y = net(x, clock, ctx)
    assert not torch.allclose(net(x, clock + 100, ctx), y, rtol=1e-3)
    assert not torch.allclose(net(x, clock, Context(ctx.vec + 1)), y, rtol=1e-3)


@every_net
@pytest.mark.parametrize("features", ["sinusoidal", "fourier"])
def test_options_and_weights_are_the_whole_network(name: str, features: str) -> None:
    net = awake(make(name, features=features))
    twin = registry.make(registry.describe(net), net.shape, 5)
    assert twin.options == net.options
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(*inputs(2)), net(*inputs(2)))


@every_net
def test_as_many_outputs_as_asked(name: str) -> None:
    assert make(name, out=6)(*inputs(2)).shape == (2, 6, 8, 8)


@every_net
def test_it_learns_a_sample_by_heart(name: str) -> None:
    net, (x, clock, ctx) = make(name), inputs(4)
    target = torch.randn(x.shape, generator=generator(3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (net(x, clock, ctx) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.mark.parametrize("shape", [(1, 9), (2, 16), (3, 7, 7), (1, 9, 5), (2, 2, 3), (1, 5, 4, 7)], ids=str)
@pytest.mark.parametrize("resample", ["plain", "resblock"])
def test_any_sides_in_one_to_three_dimensions(shape: tuple[int, ...], resample: str) -> None:
    net = awake(make("unet", shape, 0, attention=[], resample=resample))
    x, clock, ctx = inputs(2, shape, 0)
    x.requires_grad_()
    y = net(x, clock, ctx)
    y.square().sum().backward()
    assert y.shape == x.shape and x.grad is not None and (x.grad != 0).all()


def test_dropout_drops_in_training_only() -> None:
    net = awake(make("unet", dropout=0.5))
    with torch.random.fork_rng():
        assert not torch.equal(net(*inputs(1)), net(*inputs(1)))
    assert torch.equal(net.eval()(*inputs(1)), net(*inputs(1)))


def test_extra_channels_are_inputs() -> None:
    net, (x, clock, ctx) = awake(make("unet", channels=2)), inputs(2)
    y = net(x, clock, ctx._replace(channels=torch.zeros(2, 2, 8, 8)))
    assert not torch.allclose(net(x, clock, ctx._replace(channels=torch.ones(2, 2, 8, 8))), y, rtol=1e-3)


def test_autocast_is_near_the_truth() -> None:
    net = awake(make("unet"))
    y = net(*inputs(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(*inputs(2))
    assert (rough - y).norm() < 0.03 * y.norm()


@pytest.mark.parametrize("kind", [Sinusoidal, Fourier])
def test_features_tell_every_clock_from_every_other(kind: Any) -> None:
    """Over the clock that they are made for; and neighbours are equally far apart everywhere."""
    clock = torch.linspace(0, 1000, 501) if kind is Sinusoidal else torch.linspace(-10, 10, 501)
    f = kind(64)(clock)
    torch.testing.assert_close(f.square().sum(1), torch.full((501,), 32.0))  # cos^2 + sin^2
    apart = torch.cdist(f, f) + 9 * torch.eye(501)
    assert apart.min() > 0.1
    near = apart[:-1, 1:].diagonal()
    assert near.std() < 0.01 * near.mean()


def test_a_scale_is_a_change_of_clock() -> None:
    clock = torch.linspace(-3, 3, 7)
    for kind in (Sinusoidal, Fourier):
        torch.testing.assert_close(kind(8, 0.5)(clock), kind(8, 1.0)(clock / 2))


def test_sinusoidal_frequencies_are_geometric() -> None:
    w = Sinusoidal(8).frequencies
    torch.testing.assert_close(w[1:] / w[:-1], torch.full((3,), 0.1))
    assert w[0] == 1


def test_fourier_features_approximate_a_gaussian_kernel() -> None:
    """E[f(c) f(c')]/h = exp(-2 (pi s (c - c'))^2) (Rahimi & Recht 2007)."""
    f = Fourier(2**14, scale=0.25)(torch.tensor([0.0, 0.7]))
    assert abs(float(f[0] @ f[1]) / 2**13 - math.exp(-2 * (math.pi * 0.25 * 0.7) ** 2)) < 0.03


def test_halving_and_growing_undo_each_other() -> None:
    for shape in [(1, 1, 7), (1, 2, 9, 4), (1, 1, 5, 6, 3)]:
        h = torch.randn(shape, generator=generator())
        small = shrink(h)
        assert list(small.shape[2:]) == [-(-side // 2) for side in shape[2:]]
        torch.testing.assert_close(shrink(grow(small, shape[2:])), small)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_growing_and_convolving_in_one_step(dims: int) -> None:
    style = Style(dims, heard=1, groups=1, head=1, fed="add", dropout=0.0)
    conv, h = style.conv(2, 3), torch.randn(2, 2, *range(3, 3 + dims), generator=generator())
    whole = conv(grow(h, [2 * side for side in h.shape[2:]]))
    torch.testing.assert_close(grow_conv(conv, h, whole.shape[2:]), whole)
    cut = [side - 1 for side in whole.shape[2:]]
    torch.testing.assert_close(grow_conv(conv, h, cut), whole[(..., *map(slice, cut))])


def test_attention_is_its_formula() -> None:
    layer = awake(Attention(STYLE, 8))
    h = torch.randn(2, 8, 3, 5, generator=generator())
    x = F.group_norm(h, 4, layer.norm.weight, layer.norm.bias)
    expected = h.clone()
    for i in range(2):
        tokens = x[i].reshape(8, 15).T
        q, k, v = layer.query(tokens), layer.key(tokens), layer.value(tokens)
        heads = [slice(0, 4), slice(4, 8)]
        seen = torch.cat([(q[:, d] @ k[:, d].T / 2).softmax(dim=1) @ v[:, d] for d in heads], dim=1)
        expected[i] += layer.out(seen).T.reshape(8, 3, 5)
    torch.testing.assert_close(layer(h), expected)


def test_a_silent_residual_block_is_the_identity() -> None:
    h = torch.randn(2, 8, 4, 4, generator=generator())
    assert torch.equal(ResBlock(STYLE, 8, 8)(h, torch.randn(2, 12, generator=generator())), h)


def test_blocks_hear_by_addition_or_by_scale_and_shift() -> None:
    h, e = torch.randn(2, 8, 4, 4, generator=generator()), torch.randn(2, 12, generator=generator(1))
    add, scale = awake(Add(STYLE, 8)), awake(Scale(STYLE, 8))
    shift = add.project(e)[:, :, None, None]
    torch.testing.assert_close(add(h.clone(), e), add.norm(h + shift))
    gamma, beta = scale.project(e)[:, :, None, None].split(8, dim=1)
    torch.testing.assert_close(scale(h, e), (1 + gamma) * scale.norm(h) + beta)


def test_hearing_is_linear_in_the_context() -> None:
    hearing = Hearing("sinusoidal", 8, 6, context=3)
    clock, vec = torch.tensor([5.0]), torch.tensor([[1.0, 2.0, 3.0]])
    expected = F.silu(hearing.time(hearing.features(clock)) + vec @ hearing.context.weight.T)
    torch.testing.assert_close(hearing(clock, Context(vec)), expected)


REFUSED: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("never reached", (3, 8, 8), {"attention": [16]}),
    ("does not divide 12", (3, 8, 8), {"width": 12, "groups": 8}),
    ("head is 5", (3, 8, 8), {"head": 5}),
    ("more than one position", (3, 4, 4), {"multipliers": [1, 1, 1], "attention": []}),
    ("give 1 to 3", (3, 8, 8), {"multipliers": []}),
    ("1 to 3 sides", (3,), {}),
    ("blocks is 0", (3, 8, 8), {"blocks": 0}),
    ("multiplier 1 is 0", (3, 8, 8), {"multipliers": [1, 0]}),
    ("dropout is 1.0", (3, 8, 8), {"dropout": 1.0}),
    ("channels is -1", (3, 8, 8), {"channels": -1}),
    ("even width", (3, 8, 8), {"width": 9, "groups": 3, "head": 9}),
    ("scale is 0.0", (3, 8, 8), {"scale": 0.0}),
]


@pytest.mark.parametrize(("why", "shape", "options"), REFUSED, ids=[why for why, _, _ in REFUSED])
def test_options_that_can_do_nothing_are_refused(why: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    with pytest.raises(PellucidError, match=why):
        make("unet", shape, **options)


def test_a_lift_of_nothing_is_refused() -> None:
    with pytest.raises(PellucidError, match="lift"):
        MLP((2,), lift=0.0)


@every_net
def test_what_it_was_not_built_to_hear_is_refused(name: str) -> None:
    x, clock, ctx = inputs(2)
    for context, heard in [(5, Context()), (0, ctx)]:
        with pytest.raises(PellucidError, match="context vector"):
            make(name, context=context)(x, clock, heard)
    with pytest.raises(PellucidError, match="channels"):
        make(name)(x, clock, ctx._replace(channels=x))
    with pytest.raises(PellucidError, match="tokens"):
        make(name)(x, clock, ctx._replace(tokens=torch.zeros(2, 3, 5)))


def test_the_classes_are_networks() -> None:
    assert issubclass(UNet, Network) and issubclass(MLP, Network)
