"""Fitted grids: local errors are those of the steps, the programme finds the best, the end is nearer than before."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import one_of_each_kind
from pellucid import PellucidError, fitting, grids, oracle, paths, samplers
from pellucid.cli import main
from pellucid.cli.tune import report
from pellucid.fitting.exact import Exact, Part, Way, gains
from pellucid.fitting.local import errors
from pellucid.fitting.polish import equations, mean_error, polish
from pellucid.fitting.programme import Costs, cheapest
from pellucid.fitting.solve import calls, gain, programmed, stock
from pellucid.samplers import Sampler
from pellucid.samplers.base import silent
from pellucid.sampling import sample
from pellucid.types import Batch, Bound, Denoised, State, Times
from test_cli import Command
from test_cli import pellucid as pellucid

deterministic = [p for p in one_of_each_kind() if p.values[0].calls and not p.values[0].stochastic]
every_deterministic = pytest.mark.parametrize("sampler", deterministic)


def mixture(path: str = "cosine") -> oracle.Oracle:
    return oracle.GaussianMixture.random(components=5, dim=8, seed=3).at(paths.registry.make(path))


def gaussian(std: float = 0.5) -> oracle.Oracle:
    return oracle.GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.tensor(std**2)).at(paths.Cosine())


def thinned(exact: Exact, apart: int, n: int = 64) -> Exact:
    """With fewer times of the way, and the first samples alone."""
    fit, held = ([Part(p.denoise, p.eps[:n], p.goal[:n]) for p in parts] for parts in (exact.fit, exact.held))
    way, last = exact.way, len(exact.way.times) - 1
    kept = torch.tensor([*range(0, last, apart), last])
    few = way._replace(times=way.times[kept], x0=way.x0[kept], eps=way.eps[kept], gain=way.gain[kept])
    return Exact(exact.path, fit, held, few, exact.fine, exact.extent)


@pytest.fixture(scope="module")
def exact() -> Exact:
    return fitting.follow(mixture(), 64)


class Told:
    """A Denoise whose pair is a straight line in t, whatever x is: what lies between two times is known too."""

    path = paths.Cosine()

    def __init__(self) -> None:
        line = torch.arange(1, 13, dtype=torch.float64).reshape(4, 1, 3)
        self.x0, self.eps, self.x0_rate, self.eps_rate = line.sin()

    def __call__(self, x: Batch, t: Times) -> Denoised:
        return Denoised(self.x0 + t[:, None] * self.x0_rate, self.eps + t[:, None] * self.eps_rate)

    def way(self, times: Times) -> Way:
        x0, eps, _ = self(times, times)
        eps[-1], one = 0, torch.ones_like(times)
        return Way(self.path, times, x0[:, None], eps[:, None], torch.zeros(1, 3, dtype=torch.float64), one)


uses_x = pytest.param(samplers.ExtendedSDE(order=2, rho=0.0), id="extended")  # and not the pair alone


@pytest.mark.parametrize("sampler", [*deterministic, uses_x])
def test_local_errors_are_those_of_the_steps(sampler: Sampler) -> None:
    """From the exact point, with the memory of an exact step before."""
    told, times = Told(), torch.tensor([1.0, 0.9, 0.75, 0.5, 0.3, 0.1, 0.0], dtype=torch.float64)
    way, local = told.way(times), errors(told.way(times), sampler)

    def point(k: int) -> Batch:
        return told.path.mix(way.x0[k], way.eps[k], times[k : k + 1])

    for i, j in itertools.combinations(range(len(times)), 2):
        begin = sampler.init(point(i), times[i : i + 1])
        error = (sampler.step(told, begin, times[j : j + 1], silent).x - point(j)).square().mean().sqrt()
        assert float(local.first[i, j]) == pytest.approx(float(error), abs=1e-7)
        for p in range(i):
            before = sampler.init(point(p), times[p : p + 1])
            memory = sampler.step(told, before, times[i : i + 1], silent).memory
            here = State(point(i), times[i : i + 1], memory)
            error = (sampler.step(told, here, times[j : j + 1], silent).x - point(j)).square().mean().sqrt()
            found = local.later[p, i, j] if local.later.dim() == 3 else local.later[i, j]
            assert float(found) == pytest.approx(float(error), abs=1e-7)


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_the_programme_finds_the_cheapest_of_all_grids(steps: int, remembers: bool) -> None:
    m, torch_cost = 8, torch.Generator().manual_seed(steps)
    begin, first = (torch.rand(m, *(m,) * k, generator=torch_cost, dtype=torch.float64) for k in (0, 1))
    later = torch.rand(m, m, m, generator=torch_cost, dtype=torch.float64) if remembers else first
    i, j = torch.meshgrid(torch.arange(m), torch.arange(m), indexing="ij")
    first[i >= j] = torch.inf
    later[..., i >= j] = torch.inf

    def cost(nodes: tuple[int, ...]) -> float:
        rest = zip(nodes, nodes[1:], nodes[2:], strict=False)
        steps = [later[k] if remembers else later[k[1:]] for k in rest]
        return float(begin[nodes[0]] + first[nodes[:2]] + sum(steps))

    grids = [(*nodes, m - 1) for nodes in itertools.combinations(range(m - 1), steps)]
    nodes, price = cheapest(Costs(begin, first, later), steps)
    assert price == pytest.approx(min(map(cost, grids))) == pytest.approx(cost((*nodes, m - 1)))


def test_on_a_gaussian_the_programme_is_the_true_optimum() -> None:
    """Errors of one sign on a line add up: what is cheapest in the sum is nearest in the end, of all grids."""
    exact = thinned(fitting.follow(gaussian(), 8), 6)
    ddim, times = samplers.registry.make("ddim"), exact.way.times
    best, _ = programmed(exact, ddim, 4)
    every = (times[[*nodes, -1]] for nodes in itertools.combinations(range(len(times) - 1), 4))
    assert torch.equal(best, min(every, key=lambda times: mean_error(exact.fit, ddim, times)))


def test_an_error_grows_as_the_exact_flow_says() -> None:
    """On one Gaussian of deviation s the flow is x(0)/s = x(t)/sqrt(alpha^2 s^2 + sigma^2)."""
    model = gaussian(0.3)
    way = fitting.follow(model, 4).way
    alpha, sigma = way.path.alpha(way.times), way.path.sigma(way.times)
    found, expected = gains(Bound(model), way, apart=1), 0.3 / torch.hypot(0.3 * alpha, sigma)
    torch.testing.assert_close(found[1:-8], expected[1:-8], rtol=0.03, atol=0)  # by the steps of its solver


def test_the_exact_way_is_exact(exact: Exact) -> None:
    """It ends where twice as many steps end, and its times run from the noise to the data."""
    finer = sample(mixture(), 64, sampler="dpmpp-3m", steps=800, grid="lam")
    (part,) = exact.fit
    assert float((part.goal - finer).square().mean().sqrt()) < 1e-3
    assert exact.way.times[0] == 1 and exact.way.times[-1] == 0 and (exact.way.times.diff() < 0).all()
    torch.testing.assert_close(exact.way.x0[-1], part.goal[:32])


def test_the_equations_are_those_of_the_end(exact: Exact, monkeypatch: pytest.MonkeyPatch) -> None:
    """g is half the gradient of sum_i |r_i|^2, the divisors held still, and the error falls along -A^-1 g."""
    monkeypatch.setattr("pellucid.fitting.polish.MOVE", 1e-5)
    sampler, times = samplers.registry.make("dpmpp-2m"), grids.Shifted(0.9)(exact.path, 4)
    first = Part(exact.fit[0].denoise, exact.fit[0].eps[:8], exact.fit[0].goal[:8])
    weight, h = 1 / first.distance(sampler, times), 1e-6
    normal = equations([first], sampler, times, False)

    def half(k: int, by: float) -> float:
        moved = times.index_add(0, torch.tensor(k), torch.tensor([by], dtype=torch.float64))
        return 8 * float((weight * first.distance(sampler, moved) ** 2).sum()) / 2

    slopes = [(half(k, h) - half(k, -h)) / (2 * h) for k in range(1, 4)]
    assert normal.g.tolist() == pytest.approx([0, *slopes], rel=1e-3)
    assert normal.error == float(first.distance(sampler, times).mean())
    torch.testing.assert_close(normal.a, normal.a.T)
    assert torch.linalg.eigvalsh(normal.a)[1] > 0  # the first time is held


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun"])
@pytest.mark.parametrize("path", ["cosine", "edm"])
def test_a_fitted_grid_beats_every_stock_grid_on_samples_not_fitted_on(name: str, path: str) -> None:
    fit = fitting.fit(fitting.follow(mixture(path), 256), 6, name)
    value, error = fit.gain
    assert value > 3 * error and value > 0.05
    assert set(fit.stock) >= {"karras", "lam", "uniform", "beta"} and fit.error[0] < fit.stock[fit.best][0]


@every_deterministic
def test_a_fit_keeps_its_budget_and_is_never_worse_where_it_was_fitted(sampler: Sampler, exact: Exact) -> None:
    few, nfe = thinned(exact, 4, n=4), 3
    fit = fitting.fit(few, nfe, sampler)
    times = grids.Fitted(fit.at)(exact.path, fit.steps)
    assert calls(sampler, exact.path, times) <= nfe
    ready = stock(sampler, exact.path, nfe, exact.extent)
    assert all(calls(sampler, exact.path, each) <= nfe for each in ready.values())
    usual = min(mean_error(few.fit, sampler, each) for each in ready.values())
    assert mean_error(few.fit, sampler, times) <= usual * (1 + 1e-12)


def test_what_is_measured_is_what_sampling_does(exact: Exact) -> None:
    fit = fitting.fit(exact, 5, "unipc", seconds=0)
    x = sample(mixture(), 64, seed=1, **fit.settings)
    found = (x - torch.cat([part.goal for part in exact.held])).square().mean(1).sqrt()
    assert fit.error == pytest.approx((float(found.mean()), float(found.std() / 8)))


def test_polishing_stops_when_it_is_told_and_sets_meeting_times_free(exact: Exact) -> None:
    sampler = samplers.registry.make("ddim")
    met = torch.tensor([0.92, 0.915, 0.7, 0.4, 0.1, 0.0], dtype=torch.float64)
    still, _ = polish(exact.fit, sampler, met, True, lambda error: False)
    assert torch.equal(still, met)
    free, error = polish(exact.fit, sampler, met, True, lambda error: True)
    assert error < mean_error(exact.fit, sampler, met) and (-free.diff()).min() > 0.02


def test_a_gain_is_a_ratio_of_means_and_its_error_that_of_pairs() -> None:
    theirs = 1 + torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert gain(0.8 * theirs, theirs) == pytest.approx((0.2, 0.0), abs=1e-12)
    noise = 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = [gain(0.8 * theirs[k::40] + noise[k::40], theirs[k::40]) for k in range(40)]
    spread = torch.tensor([value for value, _ in parts]).std()
    assert float(spread) == pytest.approx(sum(error for _, error in parts) / 40, rel=0.3)


def test_the_density_is_the_root_of_the_curvature() -> None:
    """On one Gaussian x0 = alpha s^2 x/(alpha^2 s^2 + sigma^2), and all else is known too."""
    way = fitting.follow(gaussian(), 4).way
    lam, share = fitting.density(way)
    alpha, sigma = way.path.alpha(way.path.time(lam)), way.path.sigma(way.path.time(lam))
    std = torch.hypot(0.5 * alpha, sigma)  # x/std stays, so x0 = alpha s^2/std, dx0/dlam = alpha s^2 sigma^2/std^3
    expected = (0.5 / std * alpha * (alpha * sigma**2 / std**3)).sqrt()
    middle = share > 0.1 * share.max()
    ratio = (share / expected)[middle]
    assert float(ratio.max() / ratio.min()) < 1.1


@pytest.mark.parametrize(
    "nfe, sampler, said",
    [
        (0, "ddim", "expected a number of calls from 1 to 50"),
        (51, "ddim", "from 1 to 50"),
        (True, "ddim", "expected a number of calls"),
        (8, "ddpm", "draws noise"),
        (8, "adaptive", "chooses its own steps"),
        (8, "dpmpp2m", "did you mean"),
    ],
)
def test_what_cannot_be_fitted_is_refused(nfe: Any, sampler: str, said: str, exact: Exact) -> None:
    with pytest.raises(PellucidError, match=said):
        fitting.fit(exact, nfe, sampler)


def test_a_way_that_is_too_coarse_is_refused() -> None:
    with pytest.raises(PellucidError, match="fine is 100; expected 132 steps"):
        fitting.follow(mixture(), 4, fine=100)


def test_the_best_samplers_are_chosen_once_each(exact: Exact) -> None:
    several = [samplers.registry.make(name) for name in ("euler", "ddim", "dpmpp-2m", "dpmpp-3m", "heun")]
    kept = fitting.choose(exact, 8, several)
    errors = [mean_error(exact.fit, each, programmed(exact, each, 8)[0]) for each in kept]
    assert len(kept) == 3 and errors == sorted(errors)
    assert len(fitting.choose(exact, 8, several[:2])) == 1  # they are one


# Kept in a run, and drawn with


def made(sampler: str = "ddim", nfe: int = 2, error: float = 0.1, **changes: Any) -> fitting.Fit:
    table = {"sampler": sampler, "nfe": nfe, "at": [1 - i / nfe for i in range(nfe)], "error": (error, 0.01)}
    table |= {"stock": {"uniform": (0.2, 0.01)}, "gain": (0.5, 0.1), "samples": 4, "fine": 200}
    return fitting.Fit.parse(table | changes)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    first, second, better = made(), made(nfe=3), made("heun", nfe=3, error=0.05)
    for fits in ([first, second], [better]):
        fitting.save(tmp_path, fits)
    assert fitting.load(tmp_path) == [first, second, better]
    assert fitting.find(tmp_path) == better and fitting.find(tmp_path, "ddim") == second
    assert fitting.find(tmp_path, steps=2) == first == fitting.find(tmp_path, "DDIM", 2)
    again = made(nfe=3, error=0.01)
    fitting.save(tmp_path, [again])
    assert fitting.load(tmp_path) == [first, better, again] and fitting.find(tmp_path) == again
    assert [path.name for path in tmp_path.iterdir()] == ["fitted.json"]


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match=r"has no grid fitted; fit one: pellucid tune .* --nfe 8\.$"):
        fitting.find(tmp_path)
    fitting.save(tmp_path, [made(), made("heun", nfe=3)])
    with pytest.raises(PellucidError, match="for 5 steps; it has ddim at 2 steps, heun at 3 steps; .* --nfe 5"):
        fitting.find(tmp_path, steps=5)
    with pytest.raises(PellucidError, match="of dpmpp-2m; it has .* --nfe 8 --sampler dpmpp-2m"):
        fitting.find(tmp_path, "dpmpp-2m")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2}', '{"format": 1, "fits": [{}]}', '{"format": 1, "fits": [1]}', "[" * 100_000]
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "fitted.json").write_text(text)
    with pytest.raises(PellucidError, match="damaged .*fit again: pellucid tune"):
        fitting.find(tmp_path)


@pytest.mark.parametrize("wrong", [{"at": [0.2, 0.5]}, {"at": []}, {"sampler": "ddimm"}, {"nfe": 0}, {"more": 1}])
def test_a_file_with_a_wrong_fit_is_one_sentence(tmp_path: Path, wrong: dict[str, Any]) -> None:
    table = {"format": 1, "fits": [made().model_dump(mode="json") | wrong]}
    (tmp_path / "fitted.json").write_text(json.dumps(table))
    with pytest.raises(PellucidError, match="damaged"):
        fitting.load(tmp_path)


def test_a_fit_for_other_weights_is_remarked(tmp_path: Path) -> None:
    fit = made(run={"weights": "abc", "step": 10})
    assert fitting.remark(fit, "r", "abc", 10) is None and fitting.remark(made(), "r", "abc", 10) is None
    assert "fitted to step 10 of r, not to step 20" in (fitting.remark(fit, "r", "xyz", 20) or "")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the digits of three steps, with a fitted grid."""
    runs = tmp_path_factory.mktemp("runs")
    small = ["net.width=8", "net.blocks=1", "train.steps=3", "train.batch=8"]
    for command in (["train", "digits", *small, "--runs", runs], ["tune", runs / "digits", "--nfe", "3,2", *FEW]):
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in command])
        assert not exit.value.code
    return runs / "digits"


FEW = ["-n", 4, "--fine", 132, "--minutes", 0.02]


def test_a_run_is_tuned_and_drawn_from(digits: Path, pellucid: Command) -> None:
    fits = fitting.load(digits)
    assert [(fit.nfe, fit.steps, fitting.called(fit.made)) for fit in fits] == [(3, 3, "scales"), (2, 2, "scales")]
    assert all(fit.run["step"] == 3 and fit.run["guidance"] == 1.5 and len(fit.run["labels"]) == 10 for fit in fits)
    for options, fit in (([], fits[1]), (["--steps", 3], fits[0])):
        answer = pellucid("sample", digits, "--grid", "fitted", "-n", 6, "-o", "a.png", "--json", *options)
        assert answer.code == 0 and json.loads(answer.out)["calls"] == 2 * fit.steps  # with guidance
        assert json.loads(answer.out)["grid"] == {"name": "fitted", "at": list(fit.at)}
        assert "fit it again" not in answer.err


def test_a_picture_on_a_fitted_grid_draws_itself_again_without_the_fit(digits: Path, pellucid: Command) -> None:
    copy = Path(shutil.copytree(digits, "copy"))
    assert pellucid("sample", copy, "--grid", "fitted", "-n", 6, "-o", "a.png").code == 0
    (copy / "fitted.json").unlink()
    assert pellucid("sample", "--like", "a.png", "-o", "b.png").code == 0
    assert (np.asarray(Image.open("a.png")) == np.asarray(Image.open("b.png"))).all()
    assert "Schedule type: fitted" in Image.open("a.png").text["parameters"]
    assert "no grid fitted" in pellucid("sample", copy, "--grid", "fitted").err


def test_a_run_that_was_trained_on_is_warned_about(digits: Path, pellucid: Command) -> None:
    copy = Path(shutil.copytree(digits, "copy"))
    assert pellucid("train", copy, "--steps", 4).code == 0
    answer = pellucid("sample", copy, "--grid", "fitted", "-n", 4, "-o", "a.png")
    assert answer.code == 0 and "the grid was fitted to step 3 of copy, not to step 4; fit it again" in answer.err


def test_tuning_answers_in_json_and_draws(digits: Path, pellucid: Command) -> None:
    copy = Path(shutil.copytree(digits, "copy"))
    options = ["--nfe", 2, "--samplers", "ddim, heun", "--plot", "p.png", *FEW, "--json"]
    (first, second) = json.loads(pellucid("tune", copy, *options).out)
    assert (first["sampler"], second["sampler"]) == ("ddim", "heun")
    assert [fit.model_dump(mode="json") for fit in fitting.load(copy)[-2:]] == [first, second]
    assert np.asarray(Image.open("p.png")).std() > 0


@pytest.mark.parametrize(
    "line, said",
    [
        ("nowhere", "there is no run at nowhere"),
        ("{run} --nfe 0", "nfe is 0; expected a number of calls from 1 to 50"),
        ("{run} --nfe 8,", "nfe is '8,'; expected"),
        ("{run} --nfe 70", "from 1 to 50"),
        ("{run} --sampler ddpm", "'ddpm' draws noise"),
        ("{run} --sampler ddim,adaptive", "chooses its own steps"),
        ("{run} --sampler ddimm", "did you mean 'ddim'?"),
        ("{run} --fine 20", "fine is 20; expected 132"),
        ("{run} -n 1", "n is 1; expected 2 samples or more"),
        ("{run} -n 0", "n is 0"),
        ("{run} --plot a.gif", "expected a .png"),
        ("{run} --label 12", "no class of this model"),
        ("{run} --minutes -1", "--minutes"),
    ],
)
def test_a_mistake_is_one_sentence(digits: Path, pellucid: Command, line: str, said: str) -> None:
    before = (digits / "fitted.json").read_text()
    answer = pellucid("tune", *line.format(run=digits).split())
    assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1 and not answer.out
    assert (digits / "fitted.json").read_text() == before


def test_a_fit_that_gains_nothing_says_so() -> None:
    none = made(gain=(-0.002, 0.02))
    assert "no gain is sure over the best stock grid: ddim at 2 calls" in report("run", [none, made()])
    assert "no gain" not in report("run", [made()])
