"""The family: every system learns a law that is known, and what one has learnt the samplers of all others can draw."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from pellucid import grids, paths, samplers
from pellucid.compare import entrants
from pellucid.compare.entrant import Drawn
from pellucid.config import Recipe, shipped
from pellucid.data import load, toys
from pellucid.oracle import GaussianMixture
from pellucid.sampling import sample
from pellucid.types import Model

SYSTEMS = [*shipped("systems"), "reflow"]  # the GAN, their rival, ends on either side of the bound, and is no test
N, SIZE = 10_000, 500
TOY = toys.registry.make("mixture")
OTHERS = {"cosine", "flow", "ve"}
SAMPLERS = {"ancestral": 100, "ddim": 50, "dpmpp-2m": 50, "heun": 25, "euler-maruyama": 100}
"""Of every kind one, in steps for 50 calls of the network or more."""
Learnt = Callable[[str], Drawn]


@cache
def exact() -> tuple[Tensor, float]:
    """Exact samples [10 000, 2], and their mean distance from each other."""
    y = TOY.sample(10_000, 100)
    return y, between(y, y)


def between(x: Tensor, y: Tensor) -> float:
    """The mean distance of samples x [n, 2] from y [m, 2]; of a set from itself, that of two different points."""
    total = sum(float(torch.cdist(part.double(), y.double()).sum()) for part in x.split(1000))
    return total / (len(x) * (len(y) - (x is y)))


def excess(x: Tensor) -> float:
    """The expected energy distance of SIZE samples like x [n, 2] from as many exact ones, over that of exact ones.

    A single distance may be half or twice its expectation by chance. It is  E|x - y| 2 - E|x - x'| - E|y - y'|  and
    a SIZE-th of the last two, which all of x tell at once better than many small sets of them would.
    """
    y, apart = exact()
    own = between(x, x)
    return (2 * between(x, y) - own - apart + (own + apart) / SIZE) / (2 * apart / SIZE)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """A system after a minute of training on the mixture, and its samples."""
    data = load("mixture")

    @cache
    def learn(name: str) -> Drawn:
        (entrant,), folder = entrants([name]), tmp_path_factory.mktemp(name)
        return entrant.enter("mixture", data, folder, 1.0, N, 0, lambda done, total, words: None)

    return learn


def crossed(
    model: Model, name: str, own: samplers.Sampler | str, steps: int, grid: grids.Grid | str, n: int = N
) -> dict[str, float]:
    """The excess of the model's samples by every sampler on every path, as "sampler on path".

    A system whose grid leaves out its table's last time, where alpha is 5e-5 and eps says nothing of x0, is not asked
    there by others either.
    """
    even = grid if grid == "leading" else "karras"
    ways: dict[str, tuple[samplers.Sampler | str, int, grids.Grid | str]] = {
        each: (each, calls, even) for each, calls in SAMPLERS.items()
    }
    ways["its own"] = own, steps, grid
    found = {}
    for path in [model.path, *(paths.registry.make(other) for other in sorted(OTHERS - {name})[:2])]:
        for way, (sampler, calls, spaced) in ways.items():
            x = sample(model, n, sampler=sampler, steps=calls, grid=spaced, path=path, batch=5000)
            found[f"{way} on {paths.registry.describe(path)['name']}"] = excess(x) if x.isfinite().all() else torch.inf
    return found


@pytest.mark.slow
def test_exact_models_pass_what_trained_ones_are_asked_to() -> None:
    """Were the test itself at fault, the exact denoiser would fail it."""
    found = crossed(mixture().at(paths.Cosine()), "cosine", "heun", 25, "karras", N // 2)
    assert max(found.values()) <= 1.5 * min(found.values()) and max(found.values()) <= 1.2, found


def mixture() -> GaussianMixture:
    """The toy as the oracle knows it: eight Gaussians on a circle."""
    angle = torch.arange(8).double() * torch.pi / 4
    means = TOY.radius * torch.stack([angle.cos(), angle.sin()], 1)  # type: ignore[attr-defined]
    return GaussianMixture(torch.ones(8), means, torch.tensor(TOY.noise**2))  # type: ignore[attr-defined]


@pytest.mark.soak
@pytest.mark.parametrize("system", SYSTEMS)
def test_samples_in_the_plane_are_as_near_to_exact_ones_as_these_to_each_other(system: str, learnt: Learnt) -> None:
    x = learnt(system).x
    assert x.isfinite().all() and excess(x) <= 1.2


@pytest.mark.soak
@pytest.mark.parametrize("system", shipped("systems"))
def test_what_one_system_learns_the_samplers_of_all_draw(system: str, learnt: Learnt) -> None:
    """On its own path and on two others; each at 50 calls or more, within half as much again of the best of them."""
    model, recipe = learnt(system).model, Recipe.load("mixture", [], system).sample
    assert model is not None
    own = samplers.registry.make(recipe.sampler)
    found = crossed(model, paths.registry.describe(model.path)["name"], own, recipe.steps, recipe.grid)
    assert max(found.values()) <= 1.5 * min(found.values()), found
