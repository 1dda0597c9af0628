"""Layers in C++: they are their definitions, exactly where arithmetic is exact, whatever the threads, batch or machine.

On small whole numbers all of Winograd's arithmetic is exact, so the results must be equal to the last bit. Elsewhere
they are within the error that rounding can make.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pellucid.nets import UNet
from pellucid.nets.blocks import Silu
from pellucid.nets.kernels import Conv2d, compiled, conv2d, norm
from pellucid.nets.kernels.convolution import Convolution
from pellucid.types import Context

READY = shutil.which(os.environ.get("CXX", "c++")) and torch.backends.cpu.get_cpu_capability() in compiled.VECTORS
pytestmark = pytest.mark.skipif(not READY, reason="no C++ compiler, or no AVX2: torch's own layers are used")
EPS = torch.finfo(torch.float32).eps
# n, in, out, h, w: parts of tiles and of chunks of tiles, odd and single sides, unlike channels
MAPS = [(1, 32, 32, 2, 2), (1, 32, 64, 1, 5), (2, 64, 32, 7, 9), (3, 96, 64, 16, 16), (2, 32, 32, 33, 31)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(*shape: int, seed: int, times: int = 1) -> Tensor:
    """Whole numbers from -3 to 3, times a factor."""
    return times * torch.randint(-3, 4, shape, generator=generator(seed)).float()


def differentiated(f: Callable[..., Tensor], g: Tensor, *given: Tensor) -> list[Tensor]:
    """f(*given), and what g becomes on the way back to each of them."""
    leaves = [v.detach().clone().requires_grad_() for v in given]
    y = f(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, g)]


def definition(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1)


def normal(x: Tensor, a: Tensor, b: Tensor, groups: int = 8) -> Tensor:
    return F.silu(a[..., None, None] * F.group_norm(x, groups) + b[..., None, None])


def ours(x: Tensor, a: Tensor, b: Tensor, groups: int = 8) -> Tensor:
    return norm.silu(x, groups, a, b, 1e-5)


def convolution(n: int, into: int, out: int, h: int, w: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Whole numbers g, x, weight and bias; the weights are divisible by 4, as their transform divides them."""
    shapes = (n, out, h, w), (n, into, h, w), (out, into, 3, 3), (out,)
    g, x, weight, bias = (whole(*s, seed=i, times=4 if i == 2 else 1) for i, s in enumerate(shapes))
    return g, x, weight, bias


@pytest.fixture
def afresh() -> Iterator[None]:
    """The functions are looked for again, in this test and after it."""
    compiled.library.cache_clear()
    yield
    compiled.library.cache_clear()


def test_where_they_can_be_had_they_are() -> None:
    assert compiled.library() is not None


@pytest.mark.parametrize("sizes", MAPS)
def test_on_whole_numbers_a_convolution_and_its_gradients_are_exact(sizes: tuple[int, ...]) -> None:
    g, x, weight, bias = convolution(*sizes)
    expected = differentiated(definition, g.double(), x.double(), weight.double(), bias.double())
    for found, exact in zip(differentiated(Convolution.apply, g, x, weight, bias), expected, strict=True):
        assert torch.equal(found.double(), exact)


@pytest.mark.parametrize("vectors", [[], ["-mavx2", "-mfma"], ["-mavx512f", "-mfma"]], ids=["any", "avx2", "avx512"])
def test_on_every_processor(vectors: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled for narrower vectors runs here too."""
    able = torch.backends.cpu.get_cpu_capability()
    if vectors not in [[], compiled.VECTORS["AVX2"], compiled.VECTORS.get(able)]:
        pytest.skip(f"this processor has {able} alone")
    held = compiled.built(vectors)
    monkeypatch.setattr(compiled, "library", lambda: held)
    g, x, weight, bias = convolution(2, 64, 96, 17, 18)
    expected = differentiated(definition, g.double(), x.double(), weight.double(), bias.double())
    for found, exact in zip(differentiated(Convolution.apply, g, x, weight, bias), expected, strict=True):
        assert torch.equal(found.double(), exact)
    x, a, b = x[:, :48], weight[:2, :48, 0, 0], weight[2:4, :48, 1, 1]
    for found, exact in zip(
        differentiated(ours, g[:, :48], x, a, b),
        differentiated(normal, g[:, :48].double(), x.double(), a.double(), b.double()),
        strict=True,
    ):
        assert (found - exact).abs().max() <= 16 * EPS * exact.abs().max()


def test_elsewhere_a_convolution_is_within_the_error_of_its_roundings() -> None:
    """Of sums of n numbers at most n eps times the sum of their sizes (Higham 2002, eq. 3.5), through each matrix."""
    x, weight = torch.randn(2, 64, 16, 16, generator=generator()), torch.randn(32, 64, 3, 3, generator=generator(1))
    b = torch.tensor([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]]).double()
    g = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]).double()
    a = torch.tensor([[1, 1, 1, 0], [0, 1, -1, -1.0]]).double()

    def through(b: Tensor, g: Tensor, a: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        d = F.pad(x.double(), (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)  # [n, c, tile, tile, 4, 4]
        v = torch.einsum("ip,jq,ncyxpq->ncyxij", b, b, d)
        u = torch.einsum("ip,jq,kcpq->kcij", g, g, weight.double())
        y = torch.einsum("pi,qj,ncyxij,kcij->nkypxq", a, a, v, u)
        return y.reshape(len(x), len(weight), *x.shape[2:])

    exact = F.conv2d(x.double(), weight.double(), padding=1)
    torch.testing.assert_close(through(b, g, a, x, weight), exact)
    bound = (64 + 4 + 4 + 4 + 4 + 6) * EPS / 2 * through(b.abs(), g.abs(), a.abs(), x.abs(), weight.abs())
    wrong = (Convolution.apply(x, weight, None) - exact).abs()
    assert (wrong <= bound).all()
    assert wrong.max() <= 8 * EPS * exact.abs().max()  # roundings are of either sign: in truth it is much less


@pytest.mark.parametrize(("n", "c", "h", "w", "groups"), [(1, 16, 1, 3, 8), (3, 48, 9, 8, 8), (5, 64, 16, 5, 32)])
def test_a_normalisation_is_its_definition(n: int, c: int, h: int, w: int, groups: int) -> None:
    x, g = (torch.randn(n, c, h, w, generator=generator(i)) for i in (0, 1))
    a, b = (torch.randn(n, c, generator=generator(i)) for i in (2, 3))
    found = differentiated(lambda *v: ours(*v, groups=groups), g, x, a, b)
    expected = differentiated(lambda *v: normal(*v, groups=groups), *(v.double() for v in (g, x, a, b)))
    for f, e in zip(found, expected, strict=True):
        assert (f - e).abs().max() <= 16 * EPS * e.abs().max()


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e4])
def test_silu_holds_from_end_to_end(size: float) -> None:
    """Its slope is 0 and 1 far away, and nothing overflows."""
    x = torch.linspace(-size, size, 64 * 16).reshape(1, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    a, b, g = torch.full((16,), x.std().item()), torch.full((16,), x.mean().item()), torch.ones_like(x)
    found = differentiated(lambda x: ours(x, a, b, groups=1), g, x)
    expected = differentiated(lambda x: normal(x, a.double(), b.double(), groups=1), g.double(), x.double())
    for f, e in zip(found, expected, strict=True):
        assert (f - e).abs().max() <= 16 * EPS * max(1, e.abs().max().item())


def test_a_far_mean_costs_only_its_own_digits() -> None:
    x = 1000 + torch.randn(2, 32, 16, 16, generator=generator())
    a, b = torch.ones(32), torch.zeros(32)
    wrong = (ours(x, a, b) - normal(x.double(), a.double(), b.double())).abs().max()
    assert wrong <= 4 * EPS * 1000  # x itself is known so well


def test_results_do_not_depend_on_threads_or_batch() -> None:
    shapes = (5, 64, 16, 18), (5, 64, 16, 18), (5, 64), (5, 64), (64, 64, 3, 3)
    g, x, a, b, weight = (torch.randn(shape, generator=generator(i)) for i, shape in enumerate(shapes))

    def all_of(g: Tensor, x: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
        convolved = differentiated(lambda x, weight: Convolution.apply(x, weight, None), g, x, weight)
        return differentiated(ours, g, x, a, b) + convolved

    alone = all_of(g, x, a, b)
    torch.set_num_threads(3)
    try:
        assert all(map(torch.equal, alone, all_of(g, x, a, b)))
    finally:
        torch.set_num_threads(1)
    one = all_of(*(v[2:3] for v in (g, x, a, b)))
    assert all(torch.equal(many[2:3], single) for many, single in zip(alone[:-1], one[:-1], strict=True))


def test_what_is_not_a_number_stays_so_and_in_its_sample() -> None:
    x, weight = torch.ones(3, 32, 8, 8), torch.ones(32, 32, 3, 3)
    x[1, 3, 4, 4] = float("nan")
    for y in (Convolution.apply(x, weight, None), ours(x, torch.ones(32), torch.ones(32))):
        assert y[1].isnan().any()
        assert y[[0, 2]].isfinite().all()


def test_derivatives_have_derivatives() -> None:
    """As a penalty on a gradient takes them: through the gradients of both."""

    def penalty(conv: Any, normed: Any, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        given = [v.clone().requires_grad_() for v in (x, weight, bias)]
        y = normed(conv(*given), given[2], given[2]).square().sum()
        first = torch.autograd.grad(y, given, create_graph=True)
        return [v.detach() for v in torch.autograd.grad(sum(v.square().sum() for v in first), given)]

    x, weight = torch.randn(2, 32, 8, 8, generator=generator()), torch.randn(32, 32, 3, 3, generator=generator(1))
    given = x, weight / 20, torch.randn(32, generator=generator(2))
    found = penalty(Convolution.apply, ours, *given)
    for f, e in zip(found, penalty(definition, normal, *(v.double() for v in given)), strict=True):
        assert (f - e).abs().max() <= 1e4 * EPS * e.abs().max()


def test_derivatives_by_the_input_alone_have_derivatives() -> None:
    """As where the weights are frozen."""
    x, weight = torch.randn(2, 32, 8, 8, generator=generator()), torch.randn(32, 32, 3, 3, generator=generator(1)) / 20

    def twice(conv: Any, normed: Any, x: Tensor, weight: Tensor) -> Tensor:
        x.requires_grad_()
        a, b = weight[0, :, 0, 0], weight[1, :, 0, 0]
        (first,) = torch.autograd.grad(normed(conv(x, weight, None), a, b).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    expected = twice(definition, normal, x.double(), weight.double())
    assert (twice(Convolution.apply, ours, x, weight) - expected).abs().max() <= 1e4 * EPS * expected.abs().max()


def large() -> tuple[Tensor, Tensor, Tensor]:
    """A map, weights and a direction, large enough that the kernels are taken."""
    shapes = (2, 64, 32, 32), (64, 64, 3, 3), (2, 64, 32, 32)
    x, weight, v = (torch.randn(shape, generator=generator(i)) for i, shape in enumerate(shapes))
    return x, weight / 24, v


@pytest.mark.parametrize(
    "look",
    [
        lambda f, x, v: torch.func.jvp(f, (x,), (v,)),
        lambda f, x, v: torch.func.vjp(f, x)[1](v)[0],
        lambda f, x, v: torch.func.vmap(f)(torch.stack([x, v])),
        lambda f, x, v: torch.autograd.grad(f(x.requires_grad_()), x, v.expand(2, *v.shape), is_grads_batched=True),
        lambda f, x, v: torch.compile(f, backend="eager", fullgraph=True)(x),
    ],
    ids=["forward", "reverse", "batched", "batched back", "compiled"],
)
def test_what_looks_through_a_function_sees_torchs(look: Any) -> None:
    x, weight, v = large()
    a = torch.ones(64)

    def layers(x: Tensor) -> Tensor:
        y = conv2d(x, weight, padding=1)
        return norm.silu(y, 8, a, a, 1e-5) if norm.suits(y, a) else norm.definition(y, 8, a, a, 1e-5)

    def torchs(x: Tensor) -> Tensor:
        return norm.definition(F.conv2d(x, weight, padding=1), 8, a, a, 1e-5)

    torch.testing.assert_close(look(layers, x, v), look(torchs, x.detach(), v), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of all that a trace takes as given
def test_what_is_traced_can_be_kept(tmp_path: Path) -> None:
    x, _, v = large()
    net = torch.nn.Sequential(Conv2d(64, 64, 3, padding=1), Silu(8, 64)).requires_grad_(False)
    torch.jit.save(torch.jit.trace(net, x), tmp_path / "net")
    torch.testing.assert_close(torch.jit.load(tmp_path / "net")(v), net(v), rtol=1e-4, atol=1e-5)


def test_of_tensors_that_are_shared_out_convolutions_are_torchs() -> None:
    x, weight, _ = large()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        y = conv2d(*(distribute_tensor(t, mesh, [Replicate()]) for t in (x, weight)), padding=1)
        torch.testing.assert_close(y.full_tensor(), F.conv2d(x, weight, padding=1))
    finally:
        dist.destroy_process_group()


def test_a_bias_that_is_none_is_refused_as_torch_does() -> None:
    """Of another type, or too short: it is not read as if it were one."""
    x, weight, _ = large()
    for bias in (torch.ones(64).double(), torch.ones(1)):
        with pytest.raises(RuntimeError, match="bias"):
            conv2d(x, weight, bias, padding=1)


def test_of_no_samples_the_gradient_is_zero() -> None:
    x, weight, _ = large()
    weight.requires_grad_()
    compiled.scratch.of(2**20).fill_(torch.nan)
    (dw,) = torch.autograd.grad(conv2d(x[:0], weight, padding=1).sum(), weight)
    assert dw.count_nonzero() == 0


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_torchs_defaults_change_nothing(kind: torch.dtype) -> None:
    x, weight, v = large()

    def layers() -> list[Tensor]:
        compiled.scratch.held = compiled.scratch.held[:0]
        return differentiated(lambda x, w: ours(conv2d(x, w, padding=1), v[0, :, 0, 0], v[0, :, 1, 1]), v, x, weight)

    expected = layers()
    torch.set_default_dtype(kind)
    try:
        assert all(map(torch.equal, layers(), expected))
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_kept_for_the_way_back_may_be_laid_out_anew() -> None:
    """As where it is kept on a disk, or in pinned memory."""
    x, weight, v = large()

    def layers(x: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        return ours(conv2d(x, weight, padding=1), a, a)

    given, rows = (v, x, weight, weight[0, :, 0, 0]), torch.contiguous_format
    expected = differentiated(layers, *given)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(memory_format=rows), lambda x: x):
        found = differentiated(layers, *given)
    assert all(map(torch.equal, found, expected))


def test_shapes_are_known_without_numbers() -> None:
    x, weight, v = large()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x, weight, a = (mode.from_tensor(t).requires_grad_() for t in (x, weight, torch.ones(64)))
        y = norm.silu(conv2d(x, weight, padding=1), 8, a, a, 1e-5)
        assert y.shape == v.shape
        assert [g.shape for g in torch.autograd.grad(y.sum(), (x, weight, a))] == [x.shape, weight.shape, a.shape]


def test_in_half_precision_convolutions_are_torchs() -> None:
    x, weight, _ = large()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv2d(x, weight, padding=1).dtype == torch.bfloat16


def test_operations_are_counted_as_those_of_the_definition() -> None:
    x, weight, _ = large()

    def counted(f: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            f(x.clone().requires_grad_(), weight.clone().requires_grad_(), None, padding=1).sum().backward()
        return counter.get_total_flops()

    assert counted(conv2d) == counted(F.conv2d) == 3 * 2 * 9 * 64 * 64 * 2 * 32 * 32


def answers() -> list[Tensor]:
    """Of a network of the usual width, and its gradient."""
    torch.manual_seed(0)
    net = UNet((3, 16, 16), width=64, multipliers=(1, 2), blocks=1)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.05)
    y = net(torch.randn(4, 3, 16, 16, generator=generator()), torch.linspace(1, 900, 4), Context())
    return [y.detach(), *torch.autograd.grad(y.square().sum(), list(net.parameters()))]


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "'", "true"])
def test_without_a_compiler_all_is_torchs(
    compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, afresh: None
) -> None:
    """None, one that fails, no words for one, and one that makes nothing: the same answers, and nothing is left."""
    expected = answers()
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    compiled.library.cache_clear()
    found = answers()
    assert compiled.library() is None
    for f, e in zip(found, expected, strict=True):
        assert (f - e).abs().max() <= 2e3 * EPS * e.abs().max()


def test_where_nothing_can_be_kept_all_is_torchs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, afresh: None
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "file" / "cache"))
    compiled.library.cache_clear()
    assert compiled.library() is None


def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, afresh: None) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    compiled.library.cache_clear()
    assert compiled.library() is not None
    monkeypatch.setattr(compiled.subprocess, "run", None)
    compiled.library.cache_clear()
    assert compiled.library() is not None
    assert [path.suffix for path in (tmp_path / "kernels").iterdir()] == [".so"]


def test_what_is_damaged_in_the_cache_is_compiled_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, afresh: None
) -> None:
    """A part of a library would end the process that loads it."""
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    compiled.library.cache_clear()
    place = tmp_path / "kernels" / f"{compiled.version()}.so"
    whole = place.read_bytes()
    for part in (whole[: len(whole) // 2], b""):
        place.unlink()  # the one that is in use stays as it is
        place.write_bytes(part)
        compiled.library.cache_clear()
        assert compiled.library() is not None
        assert compiled.is_sound(place)
