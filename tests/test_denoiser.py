"""A denoiser is a network and its settings: scaled inputs, a clock, a row to solve, and nothing hidden."""

import json

import pytest
import torch
from torch import Tensor, nn

from pellucid import Denoiser, PellucidError, Repath, paths, predictions
from pellucid.denoiser import CLOCKS, seeded, tick
from pellucid.explain.verify.theorem import all_paths, times
from pellucid.noise import normal
from pellucid.types import Context

T = torch.linspace(0.05, 0.95, 200, dtype=torch.float64)
CONFIG = {
    "shape": [2],
    "net": {"name": "mlp", "width": 16, "blocks": 1},
    "conditioner": {"name": "label", "classes": 3, "width": 8},
    "path": {"name": "vp"},
    "prediction": {"name": "edm", "sd": 0.7},
    "data_std": 0.7,
    "clock": "lam",
}


class Ear(nn.Module):
    """A network that says back what it hears."""

    shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.heard: tuple[Tensor, Tensor, Context] | None = None

    def forward(self, x: Tensor, clock: Tensor, ctx: Context) -> Tensor:
        self.heard = x, clock, ctx
        return 0.5 * x


@pytest.mark.parametrize("name", ["cosine", "ve", "edm", "flow", "subvp"])
@pytest.mark.parametrize("sd", [1.0, 0.3])
def test_the_network_sees_unit_variance_at_every_time(name: str, sd: float) -> None:
    """Karras et al. 2022, eq. 7: c_in = 1/sqrt(sd^2 + sigma^2) where alpha = 1."""
    net, path, t = Ear(), all_paths()[name], T.repeat_interleave(500)
    x0, eps = (normal(k, torch.arange(len(t)), 0, (2,), dtype=torch.float64) for k in range(2))
    Denoiser(net, path, "eps", data_std=sd).answer(path.mix(sd * x0, eps, t), t)
    assert net.heard is not None
    variance = net.heard[0].square().reshape(200, -1).mean(1)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0.2, atol=0)
    assert abs(float(variance.mean()) - 1) < 0.01


def test_clocks_are_what_they_are_called() -> None:
    path = paths.VP()
    expected = {"time": 1000 * T, "lam": path.lam(T), "edm": (-path.lam(T)).exp().log() / 4, "index": 1000 * T - 1}
    assert set(expected) == set(CLOCKS)
    for clock, heard in expected.items():
        net = Ear()
        Denoiser(net, path, clock=clock)(torch.zeros(200, 2, dtype=torch.float64), T)
        assert net.heard is not None
        torch.testing.assert_close(net.heard[1], heard)
    assert tick("index", paths.Table((0.1, 0.2)), times(0.5, 1.0)).tolist() == [0, 1]
    assert torch.stack([tick(clock, paths.Cosine(), times(0.0, 1.0)) for clock in CLOCKS]).isfinite().all()


@pytest.mark.parametrize("prediction", predictions.registry.names())
def test_the_answer_is_solved_for_the_pair(prediction: str) -> None:
    x = normal(0, torch.arange(200), 0, (2,), dtype=torch.float64)
    model = Denoiser(Ear(), "cosine", prediction)
    d, expected = model(x, T), predictions.solve(model.prediction, model.path, x, model.answer(x, T)[0], T)
    assert torch.equal(d.x0, expected.x0) and torch.equal(d.eps, expected.eps)
    assert model.shape == (2,) and model.dtype == torch.float64 and model.device.type == "cpu"


def test_its_config_builds_it_again() -> None:
    model = Denoiser.from_config(CONFIG, seed=3)
    table = json.loads(json.dumps(model.config()))
    again = Denoiser.from_config(table, seed=3)
    assert again.config() == table and all(table[key] == CONFIG[key] for key in ("shape", "prediction", "clock"))
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    other = Denoiser.from_config(CONFIG, seed=4)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_withheld_label_is_no_label() -> None:
    model = Denoiser.from_config(CONFIG).eval()
    with seeded(1), torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    x, t, label = normal(0, torch.arange(4), 0, (2,)), times(0.3).expand(4), torch.tensor([0, 1, 2, 0])
    half = torch.tensor([True, False, True, False])
    told, untold = model(x, t, {"label": label}).x0.detach(), model(x, t).x0.detach()
    mixed = model(x, t, {"label": label, "drop": half}).x0.detach()
    torch.testing.assert_close(mixed, torch.where(half[:, None], untold, told))
    assert float((told - untold).abs().min()) > 0


def test_weights_come_from_their_seed_and_the_world_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    with seeded(5):
        first = torch.randn(3)
    with seeded(5):
        assert torch.equal(torch.randn(3), first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_repath_says_the_same_of_the_same_point() -> None:
    model, path = Denoiser(Ear(), paths.Flow(), "velocity"), paths.EDM()
    t = path.time(torch.linspace(2, -2, 20, dtype=torch.float64))
    x0, eps = (normal(k, torch.arange(20), 0, (2,), dtype=torch.float64) for k in range(2))
    moved = paths.Flow().time(path.lam(t))
    d, own = Repath(model, path)(path.mix(x0, eps, t), t), model(paths.Flow().mix(x0, eps, moved), moved)
    torch.testing.assert_close(torch.stack(d[:2]), torch.stack(own[:2]), rtol=1e-10, atol=1e-10)
    assert Repath(model, "flow").path == paths.Flow()
    assert Repath(model, path).path is path and Repath(model, path).shape == (2,)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"data_std": 0.0}, "data_std is 0.0; expected a positive number"),
        ({"data_std": float("inf")}, "data_std is inf; expected a positive number"),
        ({"path": 3}, "path is 3; expected a name or a table"),
        ({"clock": "tim"}, "unknown clock 'tim'; did you mean 'time'"),
        ({"path": "cosin"}, "did you mean 'cosine'"),
        ({"prediction": "velosity"}, "did you mean 'velocity'"),
    ],
)
def test_a_mistake_is_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(PellucidError, match=sentence):
        Denoiser(Ear(), **options)  # type: ignore[arg-type]
