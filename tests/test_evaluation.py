"""Evaluations: real data score the floor, copies are found out, figures say what they depend on, and refuse to be
compared with figures of another kind."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import pellucid as pl
from pellucid import PellucidError
from pellucid.cli import main
from pellucid.cli.evaluate import given, words
from pellucid.data import Dataset, Split, encode
from pellucid.evaluation import Evaluation, Record, Row, check, comparable, compare, evaluate
from pellucid.explain.evaluated import evaluated
from pellucid.metrics import registry
from pellucid.metrics.features import Values, look, reader
from pellucid.training import Learner, Plan, Run

MIXTURE = pl.oracle.GaussianMixture.random(components=4, dim=6)


def points(n: int, seed: int) -> Split:
    return Split(MIXTURE.sample(n, seed=seed).float())


DATA = Dataset("mixture", points(300, 1), points(150, 2))


@pytest.fixture(scope="module")
def good() -> Evaluation:
    """What a model without error draws."""
    x = pl.sample(MIXTURE.at(pl.paths.Cosine()), 200, sampler="dpmpp-3m", steps=30, batch=200).float()
    return evaluate(Split(x), DATA, Values(), seeds=(0, 0))


@pytest.fixture(scope="module")
def learnt_by_heart() -> Evaluation:
    """What the exact denoiser of the training data draws: the training data."""
    model = pl.oracle.Empirical(DATA.train.x).at(pl.paths.Cosine())
    return evaluate(Split(pl.sample(model, 200, steps=40, batch=200).float()), DATA, Values(), seeds=(0, 0))


def overlap(row: Row) -> bool:
    a, b = row.samples, row.floor
    return max(a.low, b.low) <= min(a.high, b.high)


# what it must show ------------------------------------------------------------------------------------------------


def test_a_model_without_error_scores_the_floor(good: Evaluation) -> None:
    assert {row.name for row in good.record.rows if not overlap(row)} <= {"copy_ratio"}  # 16 figures at 95 %
    assert len(good.record.rows) >= 14 and not good.record.memorises


def test_a_model_that_returns_its_training_data_is_found_out(learnt_by_heart: Evaluation) -> None:
    record = learnt_by_heart.record
    assert record.memorises
    assert record.row("copies").samples.low > 0.9 and record.row("copy_ratio").samples.value < 0.1
    assert overlap(record.row("frechet"))  # no distance to the data's law tells
    taken = learnt_by_heart.case.samples.x[[pair.sample for pair in record.pairs]]
    assert (taken - DATA.train.x[[pair.train for pair in record.pairs]]).abs().max() < 0.05


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return pl.data.load("digits")


def halves(digits: Dataset) -> tuple[Split, Dataset]:
    """One half of the held-out digits as samples, the other as all that is held out."""
    assert digits.test is not None
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    return digits.test.take(order[:250]), replace(digits, test=digits.test.take(order[250:]))


def test_two_halves_of_the_held_out_digits_score_the_floor(digits: Dataset) -> None:
    samples, data = halves(digits)
    record = evaluate(samples, data, Values()).record
    apart = {row.name: (row.samples, row.floor) for row in record.rows if not overlap(row)}
    assert not apart and not record.memorises
    assert record.row("c2st").samples.low < 0.5 < record.row("c2st").samples.high


def test_training_pictures_among_new_ones_are_found_out(digits: Dataset) -> None:
    """One in ten is enough, and they are the pairs that are shown."""
    (x, label, *_), data = halves(digits)
    copied = torch.arange(0, 250, 10)
    assert label is not None and digits.train.label is not None
    x, label = x.clone(), label.clone()
    x[copied], label[copied] = digits.train.x[copied], digits.train.label[copied]
    found = evaluate(Split(x, label), data, Values())
    assert found.record.memorises
    assert {pair.sample for pair in found.record.pairs} <= set(copied.tolist())
    assert all(pair.train == pair.sample and pair.distance == 0 for pair in found.record.pairs)


def test_every_figure_says_what_it_depends_on(good: Evaluation) -> None:
    figures = {name for metric in registry.names() for name in registry.make(metric)(good.case)}
    assert {row.name for row in good.record.rows} == figures
    for row in good.record.rows:
        for span in (row.samples, row.floor):
            assert span.low <= span.value <= span.high and span.low < span.high
        assert row.samples.n.samples == 200 and row.samples.n.real == 150 and row.samples.n.train == 300
        assert row.eyes.resize and row.real.split == "test" and len(row.real.sha256) == 64
        assert (row.seeds.samples, row.seeds.figures, row.level) == (0, 0, 0.95)


def test_the_same_question_has_the_same_answer(good: Evaluation) -> None:
    again = evaluate(Split(good.case.samples.x), DATA, Values(), seeds=(0, 0)).record
    assert again.rows == good.record.rows and again.pairs == good.record.pairs


@pytest.mark.parametrize("known", [4, 20, 50])
def test_training_data_among_the_held_out_leave_out_one_figure(known: int, good: Evaluation, tmp_path: Path) -> None:
    """The copy ratio asks how near fresh data lie, which they cannot say; all else they can."""
    test = Split(torch.cat([DATA.train.x[:known], points(60, 2).x])[:50])
    record = evaluate(X, replace(DATA, test=test), Values()).record
    record.save(tmp_path / "evaluation.json")
    left = {row.name for row in good.record.rows} - {row.name for row in record.rows}
    assert left == (set() if known == 4 else {"copy_ratio"})
    assert ("no copy ratio" in words(record, [], tmp_path)) == bool(left)


def test_what_was_never_seen_is_not_known_to_be_zero() -> None:
    """Samples that are all alike hit no ball of the data, and that is known as well as their number allows."""
    record = evaluate(Split(torch.full((40, 6), 50.0)), DATA, Values()).record
    for name in ("precision", "recall", "density", "coverage", "copies"):
        span = record.row(name).samples
        assert span.value == span.low == 0 < span.high < 0.1


@pytest.mark.parametrize("change", [{"n": 100}, {"features": "other"}, {"data": "other"}], ids=str)
def test_what_will_not_compare_is_refused_before_anything_is_drawn(good: Evaluation, change: dict[str, object]) -> None:
    comparable(good.record, 200, DATA, eyes=Values())
    data = replace(DATA, test=points(150, 9)) if "data" in change else DATA
    eyes = look("untrained", torch.zeros(1, 1, 8, 8), None, 0) if "features" in change else Values()
    with pytest.raises(PellucidError, match="so it does not compare"):
        comparable(good.record, 100 if "n" in change else 200, data, eyes=eyes)


# records ----------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(good: Evaluation, tmp_path: Path) -> None:
    good.record.save(tmp_path / "evaluation.json")
    assert Record.load(tmp_path) == good.record == Record.load(tmp_path / "evaluation.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "is no evaluation"),
        ("[1, 2]", "is no evaluation"),
        ('{"rows": [], "format": 99}', "has format 99, this pellucid reads 1"),
        ('{"rows": [{"name": 3}], "format": 1}', "expected|missing"),
    ],
)
def test_what_is_no_record_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(PellucidError, match=said) as error:
        Record.load(tmp_path / "x.json")
    assert "\n" not in str(error.value)
    with pytest.raises(PellucidError, match="write it first: pellucid evaluate"):
        Record.load(tmp_path)


def test_the_better_of_two_models_is_known_by_its_figures(good: Evaluation) -> None:
    blurred = good.case.samples.x + torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    bad = evaluate(Split(blurred), DATA, Values()).record
    verdict = {row.label: row.better for row in compare(good.record, bad)}
    turned = {row.label: row.better for row in compare(bad, good.record)}
    assert verdict["FD-values"] == "a" and turned["FD-values"] == "b"
    assert {row.better for row in compare(good.record, good.record)} == {"neither"}


def changed(record: Record, part: str, **values: object) -> Record:
    return record.model_copy(
        update={
            "rows": tuple(
                row.model_copy(update={part: getattr(row, part).model_copy(update=values)}) for row in record.rows
            )
        }
    )


def test_figures_of_different_kinds_are_not_compared(good: Evaluation) -> None:
    record = good.record
    fewer = record.rows[0].samples.n.model_copy(update={"samples": 100})
    others: list[tuple[Record, str]] = [
        (changed(record, "samples", n=fewer), "different n, samples 200 and 100, .* the same -n"),
        (changed(record, "eyes", sha256="ab" * 32), "different features, sha256 none and abababab, .* --features"),
        (changed(record, "eyes", resize="to 299"), "different features, resize none and to 299"),
        (changed(record, "real", split="train"), "different real data, split test and train"),
        (changed(record, "real", sha256="cd" * 32), "different real data, sha256 .* --data"),
        (record.model_copy(update={"rows": ()}), "no figure in common"),
    ]
    for other, said in others:
        with pytest.raises(PellucidError, match=said):
            compare(record, other)


# the door ---------------------------------------------------------------------------------------------------------

X = points(100, 3)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "empty": (lambda: check(Split(X.x[:0]), DATA), "there are 0 samples; expected 20 or more"),
    "one": (lambda: check(Split(X.x[:1]), DATA), "there is 1 sample; expected 20 or more"),
    "shapes": (
        lambda: check(Split(X.x[:, :2]), DATA),
        r"the samples are points of shape \(2,\), the data points of shape \(6,\)",
    ),
    "kinds": (lambda: check(Split(X.x.to(torch.uint8)), DATA), "the samples are pictures of .*, the data points"),
    "nan": (lambda: check(Split(X.x / 0), DATA), "some samples are not finite"),
    "no test": (lambda: check(X, Dataset("x", X)), "x has no held-out samples"),
    "few real": (lambda: check(X, Dataset("x", X, Split(X.x[:3]))), "in the held-out half of x there are 3 samples"),
    "constant": (
        lambda: evaluate(X, replace(DATA, test=Split(torch.ones(50, 6))), Values()),
        "all 50 held-out samples look alike to values",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_evaluated_is_one_sentence(name: str) -> None:
    work, said = BAD[name]
    with pytest.raises(PellucidError, match=said) as error:
        work()
    assert "\n" not in str(error.value)


# the page ---------------------------------------------------------------------------------------------------------


def pictures(n: int, seed: int) -> Split:
    rng = torch.Generator().manual_seed(seed)
    return Split(torch.randint(0, 256, (n, 1, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % 2)


def test_the_page_stands_alone_and_shows_everything() -> None:
    data = Dataset("noise <b>", pictures(60, 0), pictures(50, 1), ("a", "b"))
    x = encode(data.train.x)
    found = evaluate(pictures(40, 2), data, look("untrained", x, None, 0), about={"run": "<i>"})
    page = evaluated(found, "noise <b>")
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|<b>|<i>", page)
    assert page.count("<img") == 5 and page.count("data:image/") >= 5
    for row in found.record.rows:
        assert row.label in page
    assert found.record.rows[0].real.sha256[:16] in page and row.eyes.name in page and "40/50" in page
    assert "interval at 95 %" in page


def test_the_page_of_points_has_clouds_and_that_of_others_none(good: Evaluation) -> None:
    plane = Dataset("plane", Split(DATA.train.x[:, :2]), Split(points(60, 5).x[:, :2]))
    assert evaluated(evaluate(Split(X.x[:, :2]), plane, Values()), "plane").count("<img") == 3
    assert evaluated(good, "mixture").count("<img") == 1


# the command ------------------------------------------------------------------------------------------------------

SMALL = ["net.width=8", "net.blocks=1", "train.steps=4", "train.batch=8", "sample.steps=2"]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(SystemExit) as exit:
        main(["train", "digits", *SMALL, "--runs", str(folder)])
    assert not exit.value.code
    return folder / "digits"


@pytest.fixture
def pellucid(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(run.parent / "cache"))
    monkeypatch.setattr("pellucid.metrics.features.classifier.STEPS", 3)

    def command(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        return int(exit.value.code or 0), *capsys.readouterr()

    return command


def test_a_run_is_evaluated_and_compared(pellucid: Command, run: Path) -> None:
    code, out, _ = pellucid("evaluate", run, "-n", 40, "--features", "values")
    assert code == 0 and "FD-values" in out
    record = Record.load(run)
    assert record.rows[0].samples.n.samples == 40 and record.rows[0].seeds.samples == 0
    assert record.about["run"] == str(run) and record.about["step"] == 4 and record.about["sampler"]
    assert {row.name for row in record.rows} >= {"class_accuracy", "spectral"}
    assert (run / "evaluation.html").read_text().startswith("<!doctype html>")
    code, out, _ = pellucid(
        "evaluate", run, "-n", 40, "--features", "values", "--against", run, "-o", "again", "--json"
    )
    answer = json.loads(out)
    assert code == 0 and {row["better"] for row in answer["against"]} == {"neither"}
    assert answer["rows"] == json.loads((run / "evaluation.json").read_text())["rows"]


def test_pictures_are_evaluated_by_name_of_their_data(pellucid: Command, run: Path) -> None:
    assert pellucid("sample", run, "-n", 30, "-o", "drawn.npz")[0] == 0
    asked = "--data", "digits", "--features", "untrained", "-n", 25, "--json"
    code, out, _ = pellucid("evaluate", "drawn.npz", *asked)
    answer = json.loads(out)
    assert code == 0 and answer["about"] == {"source": "drawn.npz"} and answer["rows"][0]["seeds"]["samples"] is None
    assert any(row["name"] == "class_accuracy" for row in answer["rows"])
    assert Path("drawn-evaluated/evaluation.json").is_file()
    assert {row["samples"]["n"]["samples"] for row in answer["rows"]} == {25}


def test_a_folder_of_drawn_pictures_holds_the_samples(pellucid: Command, run: Path, digits: Dataset) -> None:
    for out in ("drawn.npz", "folder"):
        assert pellucid("sample", run, "-n", 30, "-o", out)[0] == 0
    (one, _), (other, _) = (given(source, digits, None) for source in ("drawn.npz", "folder"))
    assert torch.equal(one.x, other.x) and one.label is not None and other.label is None
    fewer, about = given("folder", digits, 10)
    assert torch.equal(fewer.x, one.x[1::3]) and about == {"source": "folder"}


def test_classes_of_samples_are_numbered_as_those_of_the_data(tmp_path: Path) -> None:
    """Whatever number they have among themselves."""
    for folder, names in {"real": "abc", "drawn": "cb", "other": "bd"}.items():
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(3):
                Image.new("L", (8, 8), 40 * ord(name) % 256).save(tmp_path / folder / name / f"{i}.png")
    data = pl.data.load(str(tmp_path / "real"))
    label = given(str(tmp_path / "drawn"), data, None)[0].label
    assert label is not None and label.tolist() == [1, 1, 1, 2, 2, 2]
    assert given(str(tmp_path / "other"), data, None)[0].label is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN", "-n", "5"], "n is 5; expected 20 samples or more"),
        (["RUN", "--features", "inception.pth"], "there is no inception.pth; expected a file of weights"),
        (["RUN", "--features", "klassifier"], "did you mean 'classifier'?"),
        (["RUN", "--against", "nothing.json"], "there is no nothing.json; write it first"),
        (["RUN", "--data", "moons"], "draws samples of shape (1, 8, 8), the data have (2,)"),
        (["nothing"], "nothing is no run; say with --data"),
        (["nothing.npz", "--data", "moons"], "there is no nothing.npz"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    pellucid: Command, run: Path, arguments: list[str], said: str, tmp_path: Path
) -> None:
    given = [str(run) if word == "RUN" else word for word in arguments]
    before = set(run.rglob("*")) | set(tmp_path.rglob("*"))
    code, out, err = pellucid("evaluate", *given)
    assert code == 2 and said in err and "Traceback" not in err and not out
    assert set(run.rglob("*")) | set(tmp_path.rglob("*")) == before


# while it trains --------------------------------------------------------------------------------------------------


RUNS = {"plain": [], "measured": ["eval.every=2", "eval.n=20", "eval.features=untrained"]}


def state(folder: Path) -> dict[str, dict[str, Tensor]]:
    return pl.checkpoint.latest(folder).tensors


def test_a_run_that_is_measured_is_the_same_run(pellucid: Command, tmp_path: Path) -> None:
    for name, extra in RUNS.items():
        assert pellucid("train", "digits", *SMALL, *extra, "--runs", ".", "--name", name)[0] == 0
    plain, measured = state(Path("plain")), state(Path("measured"))
    assert plain.keys() == measured.keys()
    assert all(torch.equal(plain[group][key], measured[group][key]) for group in plain for key in plain[group])
    lines = [[json.loads(line) for line in Path(f"{run}/metrics.jsonl").read_text().splitlines()] for run in RUNS]
    plain_loss, measured_loss = ([line["loss"] for line in each if "loss" in line] for each in lines)
    assert plain_loss and plain_loss == measured_loss
    found = sorted(Path("measured/evaluations").iterdir())
    assert [path.name for path in found] == ["step_0000002.json", "step_0000004.json"]
    assert [Record.load(path).about["step"] for path in found] == [2, 4]


def test_what_is_measured_are_the_averaged_weights(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    def measure(model: pl.Denoiser, path: Path) -> None:
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        next(model.parameters()).data.fill_(9)  # whatever is done to it is done to a copy

    data = pl.data.load("moons")
    with pl.denoiser.seeded(0):
        learner = Learner(pl.Denoiser(pl.nets.MLP((2,), width=8)), data, Plan(steps=3, batch=8))
    for _ in Run(tmp_path / "run", measure=measure, measure_every=3).fit(learner):
        pass
    (weights,) = seen
    assert all(torch.equal(weights[key], value) for key, value in learner.ema.groups()["ema"].items())
    assert not any((parameter == 9).all() for parameter in learner.model.parameters())


def test_a_measure_that_cannot_be_taken_is_refused_before_training(pellucid: Command) -> None:
    code, _, err = pellucid("train", "digits", *SMALL, "eval.every=2", "eval.n=5", "--runs", ".", "--name", "few")
    assert code == 2 and "there are 5 samples; expected 20 or more" in err and not Path("few/checkpoints").exists()


def test_samples_that_are_no_numbers_are_not_measured_and_the_run_goes_on(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid.sampling.sample", lambda model, n, **_: torch.full((n, *model.shape), torch.nan))
    code, _, err = pellucid("train", "digits", *SMALL, *RUNS["measured"], "--runs", ".", "--name", "wild")
    assert code == 0 and "step_0000002 is not measured: wild draws numbers that are not finite" in err
    assert pl.checkpoint.latest(Path("wild")).meta["step"] == 4 and not list(Path("wild/evaluations").iterdir())


@pytest.mark.slow
def test_the_classifier_of_the_digits_reads_the_held_out_ones(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And through its eyes two halves of the held-out digits score the floor."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert digits.test is not None and digits.train.label is not None
    x = encode(digits.train.x)
    eyes = look("classifier", x, digits.train.label, 10)
    judge = reader(eyes, x, digits.train.label, 10)
    assert judge is not None
    samples, data = halves(digits)
    record = evaluate(samples, data, eyes, judge=judge).record
    assert record.row("class_accuracy").samples.low > 0.97
    assert not [row.name for row in record.rows if not overlap(row)]
