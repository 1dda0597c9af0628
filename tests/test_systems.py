"""Systems against what is known of them: exact reverse chains, games played again, samples without neighbours."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid import checkpoint, cli
from pellucid.config import Recipe
from pellucid.data import load
from pellucid.errors import PellucidError
from pellucid.oracle import GaussianMixture
from pellucid.paths import Cosine, Flow
from pellucid.predictions import Velocity
from pellucid.sampling import invert
from pellucid.systems import binomial, gan, reflow

T = torch.linspace(0.1, 1.0, 10, dtype=torch.float64)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def column(value: float) -> Tensor:
    return torch.full((10, 1), value, dtype=torch.float64)


def clean(p: float, x: Tensor, t: Tensor) -> Tensor:
    """P(x_0 = 1 | x_t) for a bit that is 1 with chance p."""
    one, zero = (torch.where(x == 1, q, 1 - q) for q in (binomial.kept(column(bit), t) for bit in (1.0, 0.0)))
    return p * one / (p * one + (1 - p) * zero)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.83])
def test_the_exact_reverse_chain_of_bits_has_the_forward_marginals(p: float) -> None:
    s, one, zero = T - 0.1, column(1.0), column(0.0)
    q = binomial.kept(column(p), T)
    steps = [binomial.reverse(x, clean(p, x, T), T, s) for x in (one, zero)]
    close(q * steps[0] + (1 - q) * steps[1], binomial.kept(column(p), s))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.83])
def test_the_bound_of_the_exact_chain_is_the_entropy(p: float) -> None:
    """One bit has an exact reverse chain, so its bound is its entropy: every term of it, summed over x_0 and x_t."""
    total, s = torch.zeros(10, dtype=torch.float64), T - 0.1
    for x0, chance in ((1.0, p), (0.0, 1 - p)):
        q = binomial.kept(column(x0), T)
        for x, weight in ((1.0, q), (0.0, 1 - q)):
            seen = column(x)
            here = binomial.back(seen, column(x0), T, s)
            total += chance * weight[:, 0] * binomial.kl(here, binomial.reverse(seen, clean(p, seen, T), T, s))
    close(total.sum(), column(-p * math.log(p) - (1 - p) * math.log(1 - p))[0, 0], 1e-10)


def test_bits_are_tossed_as_often_as_they_should_and_alone() -> None:
    index, chance = torch.arange(20_000), torch.full((20_000, 3), 0.3, dtype=torch.float64)
    bits = binomial.toss(chance, 0, index, 1, 1)
    assert abs(float(bits.mean()) - 0.3) < 5 * (0.21 / 60_000) ** 0.5
    assert torch.equal(binomial.toss(chance[7:9], 0, index[7:9], 1, 1), bits[7:9])


def test_a_model_of_bits_learns_and_draws() -> None:
    data = load("digits")
    net = {"name": "unet", "width": 8, "multipliers": [1], "blocks": 1, "head": 8, "groups": 4}
    model = binomial.Binomial(data, net, binomial.Rules(steps=5, batch=16))
    losses = [model.advance() for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    label = torch.arange(6)
    x = model.draw(6, label)
    assert set(x.unique().tolist()) <= {-1.0, 1.0} and torch.equal(model.draw(3, label[:3]), x[:3])


@pytest.mark.parametrize("source", ["digits", "mixture"])
def test_the_game_is_the_same_played_again_and_its_draws_are_their_own(source: str) -> None:
    data, rules = load(source), gan.Rules(steps=4, batch=16)
    games = [gan.GAN(data, rules) for _ in range(2)]
    assert games[0].advance() == games[1].advance()
    label = torch.arange(5) % max(1, len(data.classes))
    first, second = (game.draw(5, label) for game in games)
    assert torch.equal(first, second) and first.shape[1:] == data.shape
    close(games[0].draw(3, label[:3]), first[:3], 1e-6)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_game_that_was_put_away_is_played_on_as_if_it_had_not_been(tmp_path: Path, stop: int) -> None:
    data, rules = load("mixture"), gan.Rules(steps=5, batch=16)
    whole, first, second = (gan.GAN(data, rules) for _ in range(3))
    losses = [whole.advance() for _ in range(5)]
    head = [first.advance() for _ in range(stop)]
    second.restore(checkpoint.open_(checkpoint.save(tmp_path / "c", first.tensors(), first.meta())))
    assert head + [second.advance() for _ in range(5 - stop)] == losses
    ours, theirs = second.tensors(), whole.tensors()
    assert all(torch.equal(value, theirs[group][name]) for group in ours for name, value in ours[group].items())
    assert torch.equal(second.draw(4), whole.draw(4))
    with pytest.raises(PellucidError, match="take another folder"):
        gan.GAN(data, gan.Rules(steps=6)).restore(checkpoint.open_(tmp_path / "c"))


def test_r1_is_paid_on_data_alone() -> None:
    """Without R1 the discriminator's step is another one; the generator's first loss does not hear of it."""
    data = load("mixture")
    games = [gan.GAN(data, gan.Rules(batch=16, gamma=gamma)) for gamma in (0.0, 50.0)]
    losses = [game.advance() for game in games]
    weights = [torch.cat([w.flatten() for w in game.discriminator.parameters()]) for game in games]
    assert losses[0][1] == losses[1][1] and not torch.equal(*weights)


def test_a_straight_flow_has_nothing_to_learn_from_its_own_pairs() -> None:
    """All data in one point: every trajectory is a line, one step draws what fifty do, and S is 0."""
    point = GaussianMixture(torch.ones(1), torch.tensor([[0.7, -0.2]]), torch.tensor(0.0)).at(Flow())
    far, near = (reflow.pairs(point, 32, sampler="euler", steps=steps) for steps in (50, 1))
    close(far["x"], near["x"], 1e-6)
    t, rule = torch.linspace(0.01, 0.99, 32, dtype=torch.float64), Velocity()
    x0, eps = (near[name].double() for name in ("x", "noise"))
    d = point(Flow().mix(x0, eps, t), t)
    close(rule.target(Flow(), d.x0, d.eps, t), eps - x0, 1e-6)  # its own pairs' target is its own velocity
    assert reflow.straightness(point, 64, steps=5).value < 1e-12


def test_curved_flows_are_seen_as_curved_and_pairs_lie_on_them() -> None:
    data = GaussianMixture.random(4, 2, seed=2, spread=2.0)
    curved = reflow.straightness(data.at(Cosine()), 400)
    assert curved.value > 20 * curved.error and 0.01 < curved.value < 1
    made = reflow.pairs(data.at(Cosine()), 16, torch.arange(16) % 2, steps=60)
    there = invert(
        data.at(Flow()), made["x"].double(), sampler="rk4", steps=200, grid="uniform", cond={"label": made["label"]}
    )
    assert made["noise"].shape == (16, 2) and float((there.noise - made["noise"]).abs().max()) < 0.05


def test_pairs_are_kept_as_data_that_bring_their_noise(tmp_path: Path) -> None:
    made = reflow.pairs(GaussianMixture.random(3, 2).at(Flow()), 40, torch.arange(40) % 2, steps=2)
    data = load(reflow.save(tmp_path / "pairs.npz", made), held_out=0.25)
    x, cond = data.batch(torch.arange(30))
    rows = (made["x"][:, None] == x).all(2).double().argmax(0)
    assert torch.equal(made["noise"][rows], cond["noise"]) and torch.equal(made["label"][rows], cond["label"])


@pytest.mark.slow
def test_reflow_straightens_and_a_step_is_distilled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, from a flow that was trained for a few seconds; killed runs go on from the pairs they have."""

    def run(*words: str) -> Any:
        with pytest.raises(SystemExit) as exit:
            cli.main([*words, "--json", "--runs", str(tmp_path)])
        assert not exit.value.code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    small = ["net.width=64", "train.batch=256", "--steps", "400"]
    run("train", "mixture", "--system", "flow", "--name", "flow", *small)
    found = run("reflow", str(tmp_path / "flow"), "--pairs", "2000", "--steps", "200")
    assert found["bend"][1]["value"] < 0.5 * found["bend"][0]["value"]
    assert found["one step misses"][1]["value"] < 0.5 * found["one step misses"][0]["value"]
    pairs = (tmp_path / "flow-reflow" / "pairs.npz").read_bytes()
    assert run("reflow", str(tmp_path / "flow"), "--steps", "201")
    assert (tmp_path / "flow-reflow" / "pairs.npz").read_bytes() == pairs
    step = run("reflow", str(tmp_path / "flow-reflow"), "--kind", "step", "--pairs", "2000", "--steps", "200")
    assert step["one step misses"][1]["value"] < step["one step misses"][0]["value"]
    assert Recipe.load(tmp_path / "flow-reflow-step").sample.steps == 1
