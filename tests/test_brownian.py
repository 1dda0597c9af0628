"""One Brownian path for each sample: its law, its address, and pictures that finer grids refine."""

import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import Tensor

from pellucid import PellucidError, paths, samplers
from pellucid.explain.verify.theorem import all_paths, all_samplers, mixture, times
from pellucid.noise import bridged, brownian, tick
from pellucid.sampling import sample

INDEX = torch.arange(50)


def path_at(*u: float, seed: int = 3, shape: tuple[int, ...] = (4,)) -> Tensor:
    """W at each u, [len(u), 50, *shape]."""
    return brownian(seed, INDEX, torch.tensor(u, dtype=torch.float64)[:, None].expand(-1, 50), shape)


def test_increments_add_up_in_any_order() -> None:
    """W(a, c) = W(a, b) + W(b, c); the path is the same whatever is asked first, and beside whom."""
    u = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    asked = path_at(*u)
    assert torch.equal(asked, path_at(*reversed(u)).flip(0)) and torch.equal(asked[7], path_at(u[7])[0])
    each = torch.tensor([u[i % 40] for i in range(50)], dtype=torch.float64)
    strangers = brownian(3, INDEX, each, (4,))
    assert all(torch.equal(strangers[i], asked[i % 40, i]) for i in range(50))
    order = torch.argsort(torch.tensor(u))
    steps = asked[order].diff(dim=0)
    assert float((steps.sum(0) - (asked[order[-1]] - asked[order[0]])).abs().max()) < 1e-14


def test_its_law_is_brownian_at_every_scale() -> None:
    """Increments over any division are independent and N(0, length): coarse, fine, and across every dyadic border."""
    u = [0.0, 2**-31, 3e-7, 1e-4, 0.25 - 2**-20, 0.25, 0.25 + 2**-20, 0.5, 0.51, 0.8, 1.0]
    ends = torch.tensor([round(v * 2**31) / 2**31 for v in u], dtype=torch.float64)
    z = path_at(*u, shape=(400,)).diff(dim=0).flatten(1) / ends.diff().sqrt()[:, None]
    n = z.shape[1]
    assert all(stats.kstest(row.numpy(), "norm").pvalue > 1e-3 for row in z)
    assert float(((z @ z.T / n) - torch.eye(len(z))).abs().max()) < 4.5 * math.sqrt(2 / n)
    assert not path_at(0.0).any()


def test_samples_seeds_and_elements_have_paths_of_their_own() -> None:
    one, other = path_at(0.3, 0.7, shape=(400,)), path_at(0.3, 0.7, seed=4, shape=(400,))
    for a, b in ((one, other), (one, one.roll(1, 1)), (one, one.roll(1, 2))):
        assert abs(float((a * b).mean())) < 4.5 * math.sqrt(0.5 / a.numel())


def test_a_steps_two_draws_are_the_whole_and_its_middle() -> None:
    """(draw 0 + draw 1)/2 is the first half's increment, (draw 0 - draw 1)/2 the second's; both are standard normal."""
    clock = torch.tensor([[0.0], [0.25], [0.375]], dtype=torch.float64).expand(-1, 50)
    noise = partial(bridged(3, INDEX, clock, (400,), torch.float64), 1)
    first, middle, last = path_at(0.25, 0.3125, 0.375, shape=(400,))
    torch.testing.assert_close((noise(0) + noise(1)) / 2, (middle - first) / 0.125**0.5, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((noise(0) - noise(1)) / 2, (last - middle) / 0.125**0.5, rtol=1e-12, atol=1e-12)
    assert all(stats.kstest(noise(k).flatten().numpy(), "norm").pvalue > 1e-3 for k in (0, 1, 2))


def test_the_clock_knows_no_path_and_has_room_for_a_thousand_steps() -> None:
    lams = times(-torch.inf, -3.0, 0.0, 5.0, torch.inf)
    assert tick(lams)[0] == 0 and tick(lams)[2] == 0.5 and tick(lams)[-1] == 1
    for path in all_paths().values():
        assert (tick(path.lam(torch.linspace(1, 0, 1001, dtype=torch.float64))).diff() > 0).all()
    with pytest.raises(PellucidError, match="falling grid"):
        bridged(0, INDEX[:1], tick(lams[1:2] + times(0.0, 1e-9)[:, None]), (2,), torch.float64)(0, 0)


def drawn(sampler: samplers.Sampler, steps: int, noise: str) -> Tensor:
    return sample(
        mixture().at(paths.Cosine()), 128, sampler=sampler, steps=steps, grid="karras", noise=noise, batch=128, seed=5
    )


REFINED = {  # not re-noising from x0, which has no limit, nor Langevin steps: their number grows with the steps
    name: sampler
    for name, sampler in all_samplers(stochastic=True).items()
    if sampler.weak and not isinstance(sampler, samplers.Langevin)
}


@pytest.mark.parametrize("sampler", REFINED.values(), ids=REFINED)
def test_more_steps_refine_the_same_picture(sampler: samplers.Sampler) -> None:
    """Strong convergence: on one Brownian path the change of each sample falls; with independent noise it does not."""
    coarse, middle, fine = (drawn(sampler, n, "brownian") for n in (15, 60, 240))
    gaps = [float((a - b).square().mean().sqrt()) for a, b in ((coarse, middle), (middle, fine))]
    a, b = (drawn(sampler, n, "independent") for n in (60, 240))
    assert gaps[1] < 0.7 * gaps[0] and gaps[1] < 0.5 * float((a - b).square().mean().sqrt()), gaps


def test_noise_has_two_names() -> None:
    with pytest.raises(PellucidError, match="brownian"):
        sample(mixture().at(paths.Cosine()), 1, noise="browniann")
