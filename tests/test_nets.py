"""Networks: silent at first, no dead weights, strangers in a batch never meet, and each layer is its formula.

Parametrised over the registry: a new network is tested by being registered.
"""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid import checkpoint
from pellucid.denoiser import Denoiser, seeded
from pellucid.errors import PellucidError
from pellucid.nets import MLP, Network, dit, magnitude, registry
from pellucid.nets.blocks import Add, Attention, Norm, ResBlock, Scale, Style, grow, grow_conv, shrink
from pellucid.nets.dropout import Dropout, coins, dropping, mix
from pellucid.nets.features import Fourier, Hearing, Sinusoidal
from pellucid.types import Context

SMALL: dict[str, dict[str, Any]] = {
    "dit": {"name": "dit", "width": 16, "depth": 2, "head": 8},
    "mlp": {"name": "mlp", "width": 16, "blocks": 2},
    "mp-unet": {"name": "mp-unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [8], "head": 4},
    "unet": {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [8], "head": 4, "groups": 4},
}
STYLE = Style(dims=2, heard=12, groups=4, head=4, fed="scale", dropout=0.0)
every_net = pytest.mark.parametrize("name", sorted(registry.classes))


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
    assert set(SMALL) == set(registry.classes)


@every_net
def test_it_says_nothing_before_training(name: str) -> None:
    assert (make(name)(*inputs(2)) == 0).all()


WAYS = [
    ("mlp", {}),
    ("mlp", {"features": "fourier"}),
    ("unet", {"fed": "add", "resample": "plain"}),
    ("unet", {"fed": "add", "features": "fourier"}),
    ("unet", {"fed": "scale", "attention": [4]}),
    ("mp-unet", {}),
    ("mp-unet", {"features": "sinusoidal", "attention": []}),
    ("dit", {}),
    ("dit", {"positions": "learned", "normed": False}),
    ("dit", {"positions": "sincos", "patch": 4}),
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
    twin = registry.make(json.loads(json.dumps(registry.describe(net))), net.shape, 5)
    assert twin.options == net.options
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(*inputs(2)), net(*inputs(2)))


@every_net
def test_a_checkpoint_holds_the_whole_network(name: str, tmp_path: Path) -> None:
    model = Denoiser(awake(make(name, context=0)))
    folder = checkpoint.save(tmp_path / "c", {"ema": model.state_dict()}, {"step": 1, "config": model.config()})
    loaded, t = checkpoint.load(folder), torch.tensor([0.2, 0.9], dtype=torch.float64)
    assert torch.equal(loaded(inputs(2)[0], t).x0, model.eval()(inputs(2)[0], t).x0)


@every_net
def test_as_many_outputs_as_asked(name: str) -> None:
    assert make(name, out=6)(*inputs(2)).shape == (2, 6, 8, 8)


@every_net
def test_it_learns_a_sample_by_heart(name: str) -> None:
    net, (x, clock, ctx) = make(name), inputs(4)
    target = torch.randn(x.shape, generator=generator(3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    for _ in range(120):
        optimizer.zero_grad()
        loss = (net(x, clock, ctx) - target).square().mean()
        loss.backward()
        optimizer.step()
        if loss < 0.1:
            return
    pytest.fail(f"it still misses {loss:.2f} of the variance")


@every_net
def test_it_is_finite_at_all_clocks_and_large_inputs(name: str) -> None:
    net, (x, _, ctx) = awake(make(name)), inputs(5)
    clock = torch.tensor([-20.0, -1.0, 0.0, 20.0, 1000.0])
    y = net(torch.stack([0 * x[0], 1e4 * x[1], x[2], -1e4 * x[3], x[4].sign()]), clock, ctx)
    y.square().mean().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in net.parameters())


@every_net
def test_it_works_in_double_precision_and_under_autocast(name: str) -> None:
    """The answer has the precision of the weights, and bfloat16 is near the truth, which is what float64 says."""
    net, (x, clock, ctx) = awake(make(name)), inputs(3)
    y = net(x, clock, ctx)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(x, clock, ctx)
    truth = net.double()(x.double(), clock.double(), Context(ctx.vec.double()))
    assert truth.dtype == torch.float64 and y.dtype == torch.float32
    assert (y - truth).norm() < 1e-5 * truth.norm()
    assert (rough - truth).norm() < 0.06 * truth.norm()


def noted(sizes: list[int], kept: Tensor) -> Tensor:
    sizes.append(kept.numel())
    return kept


@pytest.mark.parametrize("name", [name for name in sorted(registry.classes) if name != "mlp"])
def test_what_is_computed_again_has_the_same_gradient(name: str) -> None:
    """Less is kept for it: dropout drops the same, too."""
    gradients, kept, weights = [], [], awake(make(name)).state_dict()
    for recompute in (False, True):
        net, sizes = make(name, recompute=recompute, dropout=0.3), list[int]()
        net.load_state_dict(weights)
        with (
            torch.random.fork_rng(),
            torch.autograd.graph.saved_tensors_hooks(partial(noted, sizes), lambda t: t),
        ):
            torch.manual_seed(0)
            loss = net(*inputs(3)).square().sum()
        kept.append(sum(sizes))
        loss.backward()
        gradients.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in sorted(registry.classes) if name != "mlp"])
def test_a_block_is_one_program(name: str) -> None:
    """Compiled block by block, nothing falls back to Python."""
    net = awake(make(name))
    y = net(*inputs(2))
    for blocks in net.modules():
        if isinstance(blocks, nn.ModuleList):
            for block in blocks:
                block.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(net(*inputs(2)), y)


@pytest.mark.parametrize("shape", [(1, 9), (2, 16), (3, 7, 7), (1, 9, 5), (2, 2, 3), (1, 5, 4, 7)], ids=str)
@pytest.mark.parametrize(
    ("name", "options"), [("unet", {"resample": "plain"}), ("unet", {"resample": "resblock"}), ("mp-unet", {})]
)
def test_any_sides_in_one_to_three_dimensions(shape: tuple[int, ...], name: str, options: dict[str, Any]) -> None:
    net = awake(make(name, shape, 0, attention=[], **options))
    x, clock, ctx = inputs(2, shape, 0)
    x.requires_grad_()
    y = net(x, clock, ctx)
    y.square().sum().backward()
    assert y.shape == x.shape and x.grad is not None and (x.grad != 0).all()


@pytest.mark.parametrize("shape", [(1, 10), (2, 4, 8), (1, 2, 4, 6)], ids=str)
@pytest.mark.parametrize("positions", ["rope", "sincos", "learned"])
def test_patches_in_one_to_three_dimensions(shape: tuple[int, ...], positions: str) -> None:
    """Every input reaches every output, and every place is told from every other."""
    net = awake(make("dit", shape, 0, positions=positions))
    x, clock, ctx = inputs(1, shape, 0)
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x, clock, ctx), x)
    assert (jacobian != 0).all()
    flat = net(torch.ones_like(x), clock, ctx).flatten(1)  # the same patch at each place
    patches = net.enter(torch.ones_like(x)).flatten(2).transpose(1, 2)
    assert (positions == "rope") or torch.cdist(net.places(patches)[0], net.places(patches)[0]).add(
        9 * torch.eye(patches.shape[1])
    ).min() > 1e-3
    assert flat.isfinite().all()


def test_dropout_drops_in_training_only() -> None:
    for name in ("unet", "mp-unet", "dit"):
        net = awake(make(name, dropout=0.5))
        with torch.random.fork_rng():
            assert not torch.equal(net(*inputs(1)), net(*inputs(1)))
        assert torch.equal(net.eval()(*inputs(1)), net(*inputs(1)))


def test_extra_channels_are_inputs() -> None:
    for name in ("unet", "mp-unet", "dit"):
        net, (x, clock, ctx) = awake(make(name, channels=2)), inputs(2)
        y = net(x, clock, ctx._replace(channels=torch.zeros(2, 2, 8, 8)))
        assert not torch.allclose(net(x, clock, ctx._replace(channels=torch.ones(2, 2, 8, 8))), y, rtol=1e-3)


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
    torch.testing.assert_close(add(h.clone(), e), F.silu(Norm.forward(add.norm, h + shift)))
    gamma, beta = scale.project(e)[:, :, None, None].split(8, dim=1)
    torch.testing.assert_close(scale(h, e), F.silu((1 + gamma) * Norm.forward(scale.norm, h) + beta))


def test_hearing_is_linear_in_the_context() -> None:
    hearing = Hearing("sinusoidal", 8, 6, context=3)
    clock, vec = torch.tensor([5.0]), torch.tensor([[1.0, 2.0, 3.0]])
    expected = F.silu(hearing.time(hearing.features(clock)) + vec @ hearing.context.weight.T)
    torch.testing.assert_close(hearing(clock, Context(vec)), expected)


PAPERS = {  # shape, classes, outputs over inputs, millions of weights; a class is told by a vector of the blocks' width
    "ddpm-cifar10": ((3, 32, 32), 0, 1, 35.7),
    "iddpm-cifar10": ((3, 32, 32), 0, 2, 52.5),
    "adm-64": ((3, 64, 64), 1000, 2, 296),
    "adm-128": ((3, 128, 128), 1000, 2, 422),
    "adm-256": ((3, 256, 256), 1000, 2, 554),
    "dit-s/2": ((4, 32, 32), 1001, 2, 33),
    "dit-b/2": ((4, 32, 32), 1001, 2, 130),
    "dit-l/2": ((4, 32, 32), 1001, 2, 458),
    "dit-xl/2": ((4, 32, 32), 1001, 2, 675),
    "edm2-xs": ((4, 64, 64), 1000, 1, 124.7),
    "edm2-s": ((4, 64, 64), 1000, 1, 280.2),
    "edm2-m": ((4, 64, 64), 1000, 1, 497.8),
    "edm2-l": ((4, 64, 64), 1000, 1, 777.5),
    "edm2-xl": ((4, 64, 64), 1000, 1, 1119.3),
    "edm2-xxl": ((4, 64, 64), 1000, 1, 1523.2),
}


@pytest.mark.parametrize("name", PAPERS)
def test_named_sizes_have_the_weights_of_their_papers(name: str) -> None:
    """As they print them: in whole millions, or to a tenth."""
    shape, classes, outputs, millions = PAPERS[name]
    with torch.device("meta"):
        net: Any = registry.make({"name": name, "out": outputs * shape[0]}, shape)
    heard = net.middle.hear.weight.shape[1] if name.startswith("edm2") else net.hearing.time[2].out_features
    counted = (sum(p.numel() for p in net.parameters()) + classes * heard) / 1e6
    assert round(counted, 0 if isinstance(millions, int) else 1) == millions


@pytest.mark.parametrize("name", [name for name in registry.settings if name not in PAPERS])
def test_every_other_size_is_a_network(name: str) -> None:
    with torch.device("meta"):
        assert isinstance(registry.make(name, (4, 32, 32)), Network)


def test_turned_queries_and_keys_hear_how_far_they_are_apart() -> None:
    """The product of two turned vectors depends on the difference of their places alone, on each axis."""
    g, (rows, columns, d) = generator(), (5, 7, 12)
    q, k = torch.randn(2, d, generator=g, dtype=torch.float64)
    turn = dit.Rope((rows, columns), d).double()
    places = q.expand(rows * columns, d), k.expand(rows * columns, d)
    product = (turn(places[0]) @ turn(places[1]).T).unflatten(0, (rows, columns)).unflatten(2, (rows, columns))
    torch.testing.assert_close(product[1, 2, 3, 5], product[0, 1, 2, 4])
    torch.testing.assert_close(product[4, 6, 4, 6], q @ k)
    assert abs(product[1, 2, 3, 5] - product[1, 2, 2, 5]) > 1e-3 < abs(product[1, 2, 3, 5] - product[1, 2, 3, 4])


def test_a_transformers_block_is_its_formula() -> None:
    net = awake(make("dit", (3, 4, 6), 0, positions="sincos", depth=1))
    block, h, e = (
        net.blocks[0],
        torch.randn(2, 6, 16, generator=generator()),
        torch.randn(2, 16, generator=generator(1)),
    )
    s1, g1, a1, s2, g2, a2 = block.hear(e)[:, None].split(16, dim=2)

    def norm(x: Tensor) -> Tensor:
        return (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, unbiased=False) + 1e-6).sqrt()

    def rms(x: Tensor, gain: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1.1920929e-07).sqrt() * gain

    x = (1 + g1) * norm(h) + s1
    q, k, v = (x @ part.T for part in block.attention.qkv.weight.split(16))
    heads = []
    for d in (slice(0, 8), slice(8, 16)):
        a, b = rms(q[..., d], block.attention.norm_q.weight), rms(k[..., d], block.attention.norm_k.weight)
        heads.append((a @ b.transpose(1, 2) / 8**0.5).softmax(dim=2) @ v[..., d])
    h1 = h + a1 * block.attention.out(torch.cat(heads, dim=2))
    expected = h1 + a2 * block.mlp((1 + g2) * norm(h1) + s2)
    torch.testing.assert_close(block(h, e), expected, rtol=1e-4, atol=1e-5)


def test_patches_come_back_where_they_were() -> None:
    """With each patch's own values as its vector, cutting and joining is the identity."""
    x = torch.randn(2, 3, 4, 6, generator=generator())
    net = make("dit", (3, 4, 6), 0)
    cut = x.unflatten(3, (3, 2)).unflatten(2, (2, 2)).permute(0, 2, 4, 1, 3, 5).reshape(2, 6, 12)
    assert torch.equal(net.whole(cut), x)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator())


def power(x: Tensor) -> float:
    return x.detach().square().mean().item()


MAGNITUDES: dict[str, Any] = {
    "silu": lambda: magnitude.silu(normal(10**6)),
    "mix": lambda: magnitude.mix(normal(10**6), normal(10**6).flip(0), 0.3),
    "join": lambda: magnitude.join(normal(4, 30, 999), normal(4, 10, 999), 0.3),
    "unit": lambda: magnitude.unit(7 * normal(99, 64)),
    "linear": lambda: magnitude.Layer(512, 512)(normal(512, 512)),
    "convolution": lambda: magnitude.Layer(64, 128, 3, 2)(normal(8, 64, 66, 66))[..., 1:-1, 1:-1],
}


@pytest.mark.parametrize("part", MAGNITUDES)
def test_unit_variance_in_unit_variance_out(part: str) -> None:
    assert power(MAGNITUDES[part]()) == pytest.approx(1, abs=0.03)


def test_joined_parts_are_heard_in_their_ratio() -> None:
    """Of what a layer makes of [a, b], the shares of a and b have powers (1 - t)^2 : t^2, few channels or many."""
    a, b, t = normal(4, 60, 999), normal(4, 20, 999), 0.3
    with seeded(0):
        layer = magnitude.Layer(80, 500, 1, 1)
    of_a, of_b = (power(layer(magnitude.join(*pair, t))) for pair in ((a, 0 * b), (0 * a, b)))
    assert of_b / of_a == pytest.approx((t / (1 - t)) ** 2, rel=0.05)


def test_weights_forced_to_their_length_compute_the_same_and_learn_the_same() -> None:
    """The answer does not hear the length of the weights; their gradient is at right angles to them."""
    net, given = awake(make("mp-unet")).eval(), inputs(2)
    y = net(*given)
    with torch.no_grad():
        for layer in (layer for layer in net.modules() if isinstance(layer, magnitude.Layer)):
            layer.weight.mul_(torch.rand(len(layer.weight), *(1,) * (layer.weight.dim() - 1)) * 9 + 0.5)
    torch.testing.assert_close(net(*given), y, rtol=1e-3, atol=1e-4)
    net.train()(*given).square().sum().backward()
    for layer in (layer for layer in net.modules() if isinstance(layer, magnitude.Layer)):
        w, g = layer.weight.flatten(1), layer.weight.grad.flatten(1)
        torch.testing.assert_close(w.square().mean(1), torch.ones(len(w)))  # as fresh ones
        assert ((w * g).sum(1).abs() < 1e-4 * w.norm(dim=1) * g.norm(dim=1) + 1e-5).all()


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["fresh", "grown"])
def test_magnitudes_hold_through_all_blocks(scale: float) -> None:
    """Fresh, or grown thirtyfold and forced back: every block makes about unit variance of unit variance."""
    with seeded(0), torch.no_grad():
        net = registry.make({"name": "mp-unet", "width": 48, "blocks": 2, "attention": [16], "head": 16}, (3, 32, 32))
        for p in net.parameters():
            p.mul_(scale)
    powers = []
    for block in net.modules():
        if type(block).__name__ == "Block":
            block.register_forward_hook(lambda module, given, h: powers.append(power(h)))
    net(normal(4, 3, 32, 32), torch.linspace(-1, 1, 4), Context())
    assert all(0.6 < p < 1.3 for p in powers)  # what lies beyond the edges is zero


REFUSED: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("never reached", (3, 8, 8), {"attention": [16]}),
    ("does not divide 12", (3, 8, 8), {"width": 12, "groups": 8}),
    ("head is 5", (3, 8, 8), {"head": 5}),
    ("more than one position", (3, 4, 4), {"multipliers": [1, 1, 1], "attention": []}),
    ("give 1 to 3", (3, 8, 8), {"multipliers": []}),
    ("1 to 3 sides, or net=mlp for points", (3,), {}),
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
    if set(options) <= {"attention", "head", "multipliers", "blocks", "dropout", "channels"} and "head" not in options:
        with pytest.raises(PellucidError, match=why):
            make("mp-unet", shape, **options)


@pytest.mark.parametrize(
    ("why", "shape", "options"),
    [
        ("do not cover sides", (3, 8, 9), {}),
        ("1 to 3 sides, or net=mlp for points", (3,), {}),
        ("head is 5 at width 16", (3, 8, 8), {"head": 5}),
        ("head is 1 at width 16", (3, 8, 8), {"head": 1}),
        ("depth is 0", (3, 8, 8), {"depth": 0}),
        ("dropout is 1", (3, 8, 8), {"dropout": 1.0}),
    ],
)
def test_a_transformer_that_cannot_be_is_refused(why: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    with pytest.raises(PellucidError, match=why):
        make("dit", shape, **options)


def test_a_transformer_refuses_other_sides() -> None:
    with pytest.raises(PellucidError, match=r"sides \(8, 6\)"):
        make("dit")(*inputs(1, (3, 8, 6)))


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_a_balance_that_weighs_nothing_is_refused(balance: float) -> None:
    with pytest.raises(PellucidError, match="balance is"):
        make("mp-unet", balance=balance)


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


@every_net
def test_the_classes_are_networks(name: str) -> None:
    assert issubclass(registry.classes[name], Network)


# ---- Dropout


def test_coins_fall_as_often_as_they_should_and_alone() -> None:
    """The share, and no correlation between neighbours, samples, layers' keys that follow each other, or bits apart."""
    n, share = 2**16, 0.3
    kept = coins(torch.arange(16, dtype=torch.int32), n, share)
    noise = (share * (1 - share) / n) ** 0.5
    assert (kept.double().mean(1) - (1 - share)).abs().max() < 5 * noise
    z = (kept.double() - (1 - share)) / (share * (1 - share)) ** 0.5
    assert ((z @ z.T / n).fill_diagonal_(0)).abs().max() < 5 / n**0.5
    for apart in (1, 2, 8, 32, 256, 1024):
        assert (z[:, apart:] * z[:, :-apart]).mean().abs() < 5 / (16 * n) ** 0.5


def test_mix_is_one_to_one() -> None:
    """The change of any one bit changes every bit half of the time, and no two numbers meet."""
    x = torch.arange(2**18, dtype=torch.int32) * 7919
    assert len(mix(x).unique()) == len(x)
    for bit in range(32):
        flipped = mix(x) ^ mix(x ^ torch.tensor(1 << bit).to(torch.int32))
        odds = torch.stack([(flipped >> k & 1).double().mean() for k in range(32)])
        assert (odds - 0.5).abs().max() < 0.02


def test_what_a_sample_loses_is_its_own() -> None:
    layer, h = Dropout(0.4), torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    keys = torch.tensor([3, 2**32 - 1, 7, 0, 2**31, 9])
    with dropping(layer, lambda n: keys):
        whole = layer(h)
    for i in range(6):
        with dropping(layer, lambda n, i=i: keys[i : i + 1]):
            assert torch.equal(layer(h[i : i + 1]), whole[i : i + 1])
    kept = whole != 0
    torch.testing.assert_close(whole[kept], h[kept] / 0.6)
    assert torch.equal(layer.eval()(h), h) and layer.keys is None
