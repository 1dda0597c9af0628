"""In which directions data reaches how far: Gauss quadrature of a spectrum that is never written down."""

import pytest
import torch

from pellucid import nets, paths
from pellucid.covariance import empirical, lanczos, spectrum
from pellucid.data.dataset import Dataset, Split
from pellucid.denoiser import Denoiser
from pellucid.oracle import Empirical, GaussianMixture
from pellucid.sampling import extent, sample


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_quadrature_has_the_moments_of_the_spectrum(steps: int) -> None:
    """T^k has v^T C^k v in its corner for k < 2 steps, and no further."""
    root, v = drawn(9, 9), drawn(9, 3, seed=1)
    c, table = root @ root.mT, lanczos(lambda w: root @ (root.mT @ w), v, steps)
    v = v / v.norm(dim=0)
    for k in range(2 * steps + 1):
        corner = torch.linalg.matrix_power(table, k)[:, 0, 0]
        gap = (corner / (v * (torch.linalg.matrix_power(c, k) @ v)).sum(0) - 1).abs().max()
        assert gap < 1e-10 if k < 2 * steps else gap > 1e-4, (k, gap)


def test_few_directions_are_exhausted_and_known() -> None:
    """Three eigenvalues are three bands, their stds exact, and their shares those of so many probes of chance."""
    variances = torch.tensor([4.0] + [1.0] * 9 + [0.01] * 90, dtype=torch.float64)
    bands = spectrum(lambda v: variances[:, None] * v, drawn(100, 4000))
    assert [std for std, _ in bands] == pytest.approx([0.1, 1.0, 2.0], rel=1e-9)
    assert [share for _, share in bands] == pytest.approx([0.9 / 13.9, 9 / 13.9, 4 / 13.9], rel=0.1)


@pytest.mark.parametrize("covariance", [0.25, torch.full((3, 1, 6), 0.25), 0.25 * torch.eye(6)], ids=str)
def test_the_oracle_knows_its_own(covariance: torch.Tensor | float) -> None:
    """However its covariances are given; from its top band to that of as many samples as tell it."""
    means = drawn(3, 6)
    data = GaussianMixture(torch.ones(3), means, torch.as_tensor(covariance))
    apart = (means - means.mean(0)) / 3**0.5
    exact = torch.linalg.eigvalsh(apart.mT @ apart + 0.25 * torch.eye(6)).sqrt()
    assert data.spectrum[0][0] == pytest.approx(0.5, rel=1e-6)
    assert data.spectrum[-1][0] == pytest.approx(float(exact[-1]), rel=1e-6)
    assert sum(share for _, share in data.spectrum) == pytest.approx(1)
    assert Empirical(data.sample(20_000)).spectrum[-1][0] == pytest.approx(float(exact[-1]), rel=0.03)


def test_data_without_extent_has_none() -> None:
    assert spectrum(empirical(torch.ones(5, 3).double()), drawn(3, 2)) == ()
    assert Dataset("one", Split(torch.zeros(1, 2))).spectrum == ()


def test_a_model_keeps_the_spectrum_of_its_data() -> None:
    """Through its settings and what wraps it; older settings know of none."""
    data = Dataset("<test>", Split(drawn(50, 2).float()))
    model = Denoiser(nets.MLP((2,), width=8, blocks=1), "flow", spectrum=data.spectrum)
    settings = model.config()
    assert Denoiser.from_config(settings).spectrum == data.spectrum == extent(model).spectrum
    assert extent(model).width == data.spectrum[-1][0]
    del settings["spectrum"]
    assert Denoiser.from_config(settings).spectrum == ()


@pytest.mark.parametrize("steps", [5, 10])
def test_what_is_known_of_the_data_is_accuracy(steps: int) -> None:
    """A Gaussian like pictures, by a model that knows its directions and by one that knows its std alone."""
    path, fall = paths.LinearTable(), 1 / torch.arange(1, 257).double()
    oracle = GaussianMixture(torch.ones(1), torch.zeros(1, 256), (fall / fall.mean())[None, None]).at(path)
    exact = sample(oracle, 32, sampler="dpmpp-3m", steps=200, grid="lam")

    class Unmeasured:
        shape, path, dtype, device = oracle.shape, oracle.path, oracle.dtype, oracle.device
        data_std, __call__ = oracle.data_std, staticmethod(oracle.__call__)

    known, unknown = (
        float((sample(model, 32, steps=steps) - exact).square().mean().sqrt()) for model in (oracle, Unmeasured())
    )
    assert known < unknown / 1.5
