"""A model's own account is true: what it says of the path, the loss and the sampler is what they do."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from pellucid import grids, guidance, nets, objective, oracle, paths, predictions, samplers
from pellucid.data import Dataset, Split
from pellucid.denoiser import Denoiser, seeded
from pellucid.errors import PellucidError
from pellucid.explain import (
    Subject,
    anatomy,
    curves,
    diagnosis,
    explain,
    forward,
    levels,
    mathematics,
    spectrum,
    steps,
    story,
    style,
)
from pellucid.explain import ledger as guided
from pellucid.explain import weights as pricing
from pellucid.guidance import Ledger
from pellucid.noise import normal
from pellucid.objective import Objective
from pellucid.oracle import Empirical, GaussianMixture
from pellucid.sampling import Guidance, Scheme, Step, sample, start, walk
from pellucid.types import Bound, Cond, Denoised, Wrapper

OPTIONS = {"table": {"betas": (0.1, 0.3, 0.6)}, "shifted": {"base": "cosine"}}
PATHS = [paths.registry.make({"name": name, **OPTIONS.get(name, {})}) for name in paths.registry.names()]
every_path = pytest.mark.parametrize("path", PATHS, ids=paths.registry.names())


def pictures(n: int = 80, side: int = 6) -> Dataset:
    """Two classes of smooth grey pictures."""
    label = torch.arange(n) % 2
    x = torch.linspace(0, 1, side)
    phase = normal(0, torch.arange(n), 0, (1, 1, 1)) + 2.0 * label[:, None, None, None]
    waves = torch.sin(6 * x[:, None] + phase) + torch.cos(4 * x + phase)
    bytes_ = ((waves / 4 + 0.5) * 255).round().to(torch.uint8)
    return Dataset(
        "waves", Split(bytes_[n // 4 :], label[n // 4 :]), Split(bytes_[: n // 4], label[: n // 4]), ("a", "b")
    )


def subject(data: Dataset, **settings: object) -> Subject:
    """An MLP on `data`, fresh."""
    with seeded(0):
        net = nets.registry.make({"name": "mlp", "width": 16, "blocks": 1}, data.shape)
    return Subject(Denoiser(net, "cosine", "v", data_std=data.std), data, steps=4, name="<test>", **settings)  # type: ignore[arg-type]


def labelled(data: Dataset, **settings: object) -> Subject:
    """One that hears labels, its weights random and none of them zero."""
    net = {"name": "mlp", "width": 16, "blocks": 1}
    conditioner = {"name": "label", "classes": len(data.classes), "width": 8}
    config = {"shape": data.shape, "net": net, "conditioner": conditioner, "path": "cosine", "prediction": "v"}
    model = Denoiser.from_config({**config, "data_std": data.std, "clock": "time"}).eval()
    with seeded(1), torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    return replace(subject(data, **settings), model=model)


@pytest.mark.parametrize("rule", ["cfg", "cfg++", {"name": "apg", "eta": 0.5}], ids=str)
def test_the_account_is_of_the_sampler_that_draws(rule: Any) -> None:
    """By its rule of guidance, and in its noise."""
    waves = labelled(pictures(), step=7, guidance=3.0, rule=rule, sampler="ddpm", source="brownian")
    made = guidance.made(rule, scale=3.0)

    def drawn(n: int, guide: Guidance) -> Tensor:
        label = torch.arange(n) % 2
        how = {"sampler": "ddpm", "steps": 4, "noise": "brownian", "cond": {"label": label}}
        return sample(waves.model, n, guidance=guide, **how)  # type: ignore[arg-type]

    assert torch.equal(waves.walk[-1].x, drawn(12, made)[:12])
    ledger = Ledger()
    drawn(40, ledger.of(made))
    chapter = guided.tell(waves)
    assert chapter is not None and chapter.numbers["steps"] == [e._asdict() for e in ledger.entries]
    assert ("<code>" in chapter.blocks[0]) == (rule != "cfg") and guided.tell(replace(waves, step=0)) is None


def test_a_class_without_training_data_is_met_without_its_name() -> None:
    """Nothing can be known of it: forty pictures, each of a class of its own, of which ten are held out."""
    waves, label = pictures(40), torch.arange(40)
    assert waves.test is not None
    data = replace(
        waves,
        train=waves.train._replace(label=label[10:]),
        test=waves.test._replace(label=label[:10]),
        classes=tuple(map(str, range(40))),
    )
    for step in (0, 7):
        one = labelled(data, step=step, guidance=2.0)
        found = levels.lines(one)
        assert all(line.each.isfinite().all() for line in found.values()) and ("exact", "test") in found
        assert one.walk[-1].x.isfinite().all() and len(diagnosis.taken(one)) == 4


@every_path
def test_small_steps_compose_to_one_shot(path: paths.Path) -> None:
    times = torch.linspace(0, 1, 41, dtype=torch.float64)
    scale, std = forward.compose(path, times)
    assert torch.allclose(scale, path.alpha(times), rtol=1e-10, atol=1e-14)
    assert torch.allclose(std, path.sigma(times), rtol=1e-10, atol=1e-14)


def test_two_ways_agree_and_a_wrong_way_does_not() -> None:
    waves = subject(pictures())
    pairs = forward.both(waves, (0.2, 1.0), n=40)
    assert all(row.p > 0.01 and row.coefficients < 1e-12 for row in forward.agreement(waves, pairs))
    wrong = [forward.Both(b.t, 1.3 * b.steps if b.t else b.steps, b.shot) for b in pairs]
    assert all(row.p < 0.01 for row in forward.agreement(waves, wrong))


def test_the_two_sample_test_keeps_its_level() -> None:
    z = normal(1, torch.arange(400), 0, (2, 500), dtype=torch.float64)
    p = torch.tensor([forward.two_sample(x, y)[1] for x, y in z])
    assert 0.05 < float((p < 0.1).double().mean()) < 0.15
    assert forward.two_sample(z[0, 0], z[0, 0] + 9) == (1.0, pytest.approx(0.0, abs=1e-12))


@every_path
def test_leak_is_the_divergence_of_the_ends(path: paths.Path) -> None:
    x0 = normal(2, torch.arange(50), 0, (3,), dtype=torch.float64) + 0.5
    one = torch.ones((), dtype=torch.float64)
    end = torch.distributions.Normal(path.alpha(one) * x0, path.sigma(one))
    wanted = torch.distributions.kl_divergence(end, torch.distributions.Normal(0 * x0, path.sigma(one))).sum(1).mean()
    found = curves.leak(path, float(x0.square().mean()), 3)
    assert found.total == pytest.approx(float(wanted), rel=1e-9, abs=1e-15)  # 1 + leak - 1
    assert found.event == min(1.0, math.sqrt(found.total / 2))


class Recorder:
    """A Denoise that keeps its answers."""

    def __init__(self, model: oracle.Oracle) -> None:
        self.model, self.path, self.answers = Bound(model), model.path, list[tuple[Tensor, Tensor]]()

    def __call__(self, x: Tensor, t: Tensor) -> oracle.Denoised:
        d = self.model(x, t)
        self.answers.append((d.x0, d.eps))
        return d


@pytest.mark.parametrize("name", [name for name in samplers.registry.names() if samplers.registry.make(name).calls])
@pytest.mark.parametrize("path", [paths.Cosine(), paths.EDM()], ids=["cosine", "edm"])
def test_the_step_table_is_what_the_sampler_does(path: paths.Path, name: str) -> None:
    model, index = GaussianMixture.random(3, 2).at(path), torch.arange(5)
    scheme = Scheme.make(path, name, 7, "karras")
    table, heard = steps.table(path, scheme), Recorder(model)
    x = start(0, index, path, float(scheme.times[0]), model)
    begin = scheme.sampler.init(x, torch.ones(5, dtype=torch.float64))
    stood = [x]
    for row, state in zip(table, walk(heard, scheme, begin, 0, index), strict=True):
        mixed = sum((w * stood[i] for i, w in row.x.items()), torch.zeros_like(x))
        for j in row.x0:
            mixed = mixed + row.x0[j] * heard.answers[j][0] + row.eps[j] * heard.answers[j][1]
        for draw, w in row.fresh.items():
            i, k = divmod(draw, steps.DRAWS)
            mixed = mixed + w * normal(0, index, i, (2,), stream=1 + k, dtype=torch.float64)
        stood.append(state.x)
        assert torch.allclose(mixed, state.x, rtol=1e-10, atol=1e-10)
    assert sum(len(row.asked) for row in table) == len(heard.answers)


def test_kappa_and_h_are_those_of_the_formulas() -> None:
    path = paths.VP()
    for name, rate in {"ddim": 0.0, "ddpm": 1.0, "dpmpp-2m": 0.0, "dpmpp-2m-sde": 1.0, "dpmpp-3m-sde": 1.0}.items():
        table = steps.table(path, Scheme.make(path, name, 6, "karras"))
        for row, after in zip(table, table[1:], strict=False):
            assert row.h == pytest.approx(after.lam - row.lam)
            assert row.kappa == pytest.approx(math.exp(-rate * row.h))
    assert [row.order for row in table] == [1, 2, 3, 3, 3, 1]


def test_the_exact_denoiser_loses_the_least_possible() -> None:
    """Data +-1: the least mean square error is 1 - E tanh(snr + sqrt(snr) z), by quadrature."""
    n = 4000
    x0 = (torch.arange(n) % 2 * 2 - 1).float()[:, None]
    model = Empirical(torch.tensor([[-1.0], [1.0]])).at(paths.Flow())
    z = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    for k, lam in enumerate((-1.0, 0.0, 0.5)):
        snr = math.exp(2 * lam)
        density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        least = 1 - float(torch.trapezoid(density * torch.tanh(snr + math.sqrt(snr) * z), z))
        each = levels.losses(model, x0, normal(3, torch.arange(n), k, (1,)), {}, lam)
        assert abs(float(each.mean()) - least) < 4 * float(each.std()) / math.sqrt(n)


def test_the_linear_reference_is_exact_for_gaussian_data() -> None:
    cloud = GaussianMixture.random(1, 3, seed=4)
    points, eps = cloud.sample(4000), normal(5, torch.arange(4000), 0, (3,), dtype=torch.float64)
    lams = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    for lam, best in zip(lams.tolist(), levels.linear(points, lams).tolist(), strict=True):
        each = levels.losses(cloud.at(paths.Cosine()), points, eps, {}, lam)
        assert abs(float(each.mean()) - best) < 5 * float(each.std()) / math.sqrt(4000)


def test_what_a_wrong_denoiser_loses_is_the_divergence_of_its_law() -> None:
    """D(P || Q) = int SNR (mse_Q - mse_P) dlam (Verdu 2010, eq. 23), here of two Gaussians."""
    eye, n, path = torch.eye(2, dtype=torch.float64), 4000, paths.Cosine()
    true, wrong = (GaussianMixture(torch.ones(1), torch.zeros(1, 2), v * eye) for v in (0.5, 1.0))
    lams = torch.linspace(-6, 6, 49, dtype=torch.float64)
    x0, noise = true.sample(n), [normal(6, torch.arange(n), k, (2,), dtype=torch.float64) for k in range(49)]
    each = {
        law: torch.stack(
            [levels.losses(law.at(path), x0, z, {}, lam) for z, lam in zip(noise, lams.tolist(), strict=True)]
        )
        for law in (true, wrong)
    }
    divergence = (0.5 - 1 - math.log(0.5)) / 2 / math.log(2)  # bits, each dimension
    for paired in (True, False):
        found = diagnosis.lost(lams, each[wrong], each[true], paired).total
        assert abs(found.value - divergence) < 4 * found.error
    assert diagnosis.lost(lams, each[wrong], each[true], True).total.error < found.error


def test_a_variance_that_is_right_has_z_squared_one() -> None:
    law, path, n = GaussianMixture.random(3, 2), paths.Cosine(), 4000

    class Spread(Wrapper):
        wide = 0.0

        def __call__(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Denoised:
            d = self.model(x, t, cond)
            return Denoised(d.x0, d.eps, torch.full_like(d.x0, self.wide))

    model, (t, s) = Spread(law.at(path)), torch.tensor([[0.5], [0.4]], dtype=torch.float64).expand(2, n)
    draw = lambda k: (law.sample(n, seed=k), normal(k, torch.arange(n), 0, (2,), dtype=torch.float64))  # noqa: E731
    short = diagnosis.calibration(model, *draw(1), {}, t, s)
    assert (
        short is not None and float(short.mean()) > 1.05
    )  # the forward process's own is too narrow for so long a step
    model.wide = math.log(float(short.mean())) / (2 * float((path.sigma(t) / path.sigma(s))[0].log()))
    right = diagnosis.calibration(model, *draw(2), {}, t, s)
    assert right is not None and abs(float(right.mean()) - 1) < 4 * 2**0.5 * float(right.std()) / n**0.5
    assert diagnosis.calibration(law.at(path), *draw(3), {}, t, s) is None


def test_few_steps_are_judged_by_many() -> None:
    found = {one.steps: one.error for one in diagnosis.taken(replace(subject(pictures(), step=7), steps=500))}
    assert found[10].value > found[20].value > found[50].value > 0 == found[500].value
    assert all(0 < e.error < e.value for steps, e in found.items() if steps < 500)


def test_copies_among_the_samples_are_diagnosed() -> None:
    rng = torch.Generator().manual_seed(0)
    train, test = (Split(torch.randint(0, 256, (n, 1, 6, 6), generator=rng, dtype=torch.uint8)) for n in (60, 60))
    by_heart = subject(Dataset("noise", train, test))  # before training its exact denoiser draws
    samples, fresh = diagnosis.repeated(by_heart) or pytest.fail("nothing was said")
    assert samples.low > 0.8 > 0.1 > fresh.high
    new = replace(by_heart)
    new.__dict__["walk"] = [Step(0.0, new.draw_batch(60, "test")[0], None)]
    samples, fresh = diagnosis.repeated(new) or pytest.fail("nothing was said")
    assert samples == fresh


@pytest.mark.parametrize("name", objective.times.names())
def test_the_density_over_lam_is_a_density(name: str) -> None:
    lam = torch.linspace(-14, 14, 4001, dtype=torch.float64)
    aim = Objective(objective.times.make(name), objective.weights.make("elbo"))
    found = pricing.weights(paths.Cosine(), predictions.V(), aim, lam)
    assert float(torch.trapezoid(found.density, lam)) == pytest.approx(1, abs=2e-3)
    assert torch.allclose(found.effect, torch.ones_like(lam), rtol=1e-6)  # the ELBO weighs eps alike at every lam


def test_each_unit_has_its_weight() -> None:
    lam, path = torch.linspace(-3, 3, 7, dtype=torch.float64), paths.Cosine()
    simple = pricing.weights(path, predictions.V(), Objective(weight=objective.Simple()), lam)
    assert torch.allclose(simple.eps, torch.ones_like(lam)) and torch.allclose(simple.x0, torch.exp(2 * lam))
    unit = pricing.weights(path, predictions.V(), Objective(weight=objective.Unit()), lam)
    assert torch.allclose(unit.v, torch.ones_like(lam))


def test_a_band_is_half_decided_where_it_equals_the_noise() -> None:
    path, power = paths.VP(), torch.tensor([9.0, 1.0, 0.04], dtype=torch.float64)
    found = spectrum.bands(path, torch.arange(3).double(), power)
    assert torch.allclose(path.alpha(found.t) ** 2 * power, path.sigma(found.t) ** 2)


def test_before_training_the_training_data_is_drawn() -> None:
    waves = subject(pictures(), grid="karras")  # a grid that ends in very little noise
    drawn = waves.walk[-1].x.flatten(1)
    known = waves.draw_batch(1000)[0].flatten(1)
    assert float(torch.cdist(drawn, known).amin(1).max()) < 0.05


def test_flops_count_a_matrix_product() -> None:
    data = pictures()
    one, three = (
        anatomy.flops(Denoiser(nets.registry.make({"name": "mlp", "width": 32, "blocks": blocks}, data.shape)))
        for blocks in (1, 3)
    )
    assert three > one > 2 * 36 * 32 * 2  # in and out of 36 pixels


def test_formulas_are_well_formed() -> None:
    families = [
        paths.registry,
        predictions.registry,
        objective.weights,
        objective.times,
        samplers.registry,
        grids.registry,
    ]
    for registry in families:
        for cls in registry.classes.values():
            ElementTree.fromstring(f"<p>{mathematics.prose((cls.__doc__ or '').split(chr(10) * 2)[0])}</p>")
    tree = ElementTree.fromstring(mathematics.display("x_0 = {b x_t - sigma y}/{sqrt{1 - kappa^2}} ; | eps |^2"))
    assert {"mfrac", "msqrt", "msub", "msup"} <= {node.tag for node in tree.iter()}
    assert mathematics.number(3.2e-5) == "3.2×10<sup>−5</sup>" and mathematics.number(-math.inf) == "−∞"


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@every_path
def test_every_path_has_its_curves_at_a_single_step(path: paths.Path) -> None:
    one = replace(subject(pictures()), steps=1)
    one.model.path = path
    assert {"svg", "png"} == set(curves.tell(one).blocks[0].files)


def test_the_report_stands_alone(tmp_path: Path) -> None:
    waves = subject(pictures(), step=7, recipe='name = "<test>"')
    page = explain(waves, tmp_path / "out").read_text()
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert not re.search(r"https?://|<script|<link|@import", page)
    images = re.findall(r'<img src="([^"]*)" alt="([^"]+)"', page)
    assert len(images) == len(re.findall("<img", page)) >= 8 and all(source.startswith("data:") for source, _ in images)
    named = set(re.findall(r'<h2 id="(\w+)"', page))
    numbers = json.loads((tmp_path / "out/numbers.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert named <= set(numbers) and "diagnosis" in named and "<test>" not in page and "&lt;test&gt;" in page
    assert {"animation.gif", "forward.png", "forward.svg", "samples.png", "report.html"} <= files
    for svg in (tmp_path / "out").glob("*.svg"):
        ElementTree.parse(svg)
        assert svg.read_text().count(style.INK) == 1  # named once, in the style sheet; all else is currentColor
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Subject) -> None:
        raise PellucidError("no.")

    monkeypatch.setattr(story, "STORY", (steps.tell, fail))
    with pytest.raises(PellucidError):
        explain(subject(pictures()), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PellucidError, match=r"pip install 'pellucid\[demo\]'"):
        explain(subject(pictures()), tmp_path / "out")
