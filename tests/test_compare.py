"""A comparison is one table of all that were asked for; it goes on where it was stopped, and mixes nothing."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid import cli, compare
from pellucid.compare import entrant, table
from pellucid.compare import row as row_
from pellucid.config import Recipe
from pellucid.data import Dataset, Split, load
from pellucid.errors import PellucidError
from pellucid.likelihood import flow
from pellucid.metrics import Figure, kid, registry
from pellucid.metrics.kernel import KID
from pellucid.metrics.sets import spaced
from pellucid.noise import normal
from pellucid.oracle import GaussianMixture
from pellucid.paths import Cosine


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as exit:
        cli.main(["compare", *words])
    return int(exit.value.code or 0)


def row(system: str, frechet: float, copies: float) -> compare.Row:
    figures = {name: Figure(value, 0.1, 0, 9) for name, value in (("frechet", frechet), ("copy_ratio", copies))}
    return compare.Row(system, "what", 10, 1.0, 2.0, 3.0, figures)


def test_the_best_figure_is_bold_and_real_data_take_no_part() -> None:
    text = compare.markdown([row(compare.REAL, 0.1, 1.0), row("a", 2.0, 1.1), row("b", 1.5, 0.2)])
    assert (
        "**1.5 ± 0.1**" in text
        and text.count("**") == 4
        and "**1.1 ± 0.1**" in text  # a copy ratio near that of real data
        and "<b>1.5 ± 0.1</b>" in compare.page("t", "w", [row("b", 1.5, 1)], [])
    )


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = load("moons")
    np.savez(tmp_path / "few.npz", x=points.train.x[:200].numpy(), x_test=points.test.x[:100].numpy())
    few = str(tmp_path / "few.toml")
    Path(few).write_text(Recipe.load("toy-2d", ["data.source=" + str(tmp_path / "few.npz"), "net.width=16"]).toml())
    asked = ["--data", few, "--minutes", "0.004", "-n", "40", "--out", str(tmp_path)]
    assert run("flow", "gan", *asked) == 0
    first = {name: (tmp_path / name / "row.json").read_bytes() for name in ("flow", "gan")}
    capsys.readouterr()
    assert run("flow", "gan", "reflow", "--json", *asked, "--page", str(tmp_path / "docs" / "all.md")) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["system"] for r in rows] == [compare.REAL, "flow", "gan", "reflow"]
    assert {name: (tmp_path / name / "row.json").read_bytes() for name in first} == first
    assert all(low <= high for r in rows for f in r["figures"].values() for low, high in [(f["low"], f["high"])])
    assert [("bits" in r["figures"]) for r in rows] == [False, True, False, True]
    assert (tmp_path / "report.html").read_text().count("<img") == 3
    page = (tmp_path / "docs" / "all.md").read_text()
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert len(shown) == 3 and all((tmp_path / "docs" / place).is_file() for place in shown)
    assert all(line in page for line in (tmp_path / "table.md").read_text().splitlines())
    assert run("flow", "--data", few, "--minutes", "1", "-n", "40", "--out", str(tmp_path)) == 2
    assert "take another folder" in capsys.readouterr().err


def test_what_chance_may_have_put_behind_the_best_is_as_good() -> None:
    """So the most negative of distances that are none is no better than the others."""
    kernel = {"a": -0.10, "b": 0.05, "c": 0.9}
    rows = [compare.Row(name, "", 1, 1, 1, 1, {"kid": Figure(v, 0.1, -1, 1)}) for name, v in kernel.items()]
    text = compare.markdown(rows)
    assert all((f"**{v:.3g} ± 0.1**" in text) == (name != "c") for name, v in kernel.items())


def test_a_column_says_what_is_better_as_its_metric_does() -> None:
    data = sorted_data(60)
    metrics = [registry.make(name) for name in registry.names()]
    case = row_._case(data, data.train.x, data.train.label, 0)
    better = {figure: metric.better for metric in metrics for figure in metric(case)} | {"bits": "less"}
    assert {key: say for key, (_, say) in table.COLUMNS.items()} == {key: better[key] for key in table.COLUMNS}


def test_seconds_are_of_all_that_trained(tmp_path: Path) -> None:
    """Begun at 100 and 200, the second no quicker at its first row than the first at its last."""
    rows = [{"step": 1, "seconds": 3.0, "time": 103.0}, {"step": 2, "seconds": 5.0, "time": 105.0}]
    rows += [{"step": 2, "held_out": 1.0, "time": 105.1}, {"step": 3, "seconds": 6.0, "time": 206.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert entrant.spent(tmp_path) == 11.0


@pytest.mark.slow
@pytest.mark.parametrize(("system", "beside"), [("adm", "classifier"), ("gan", "checkpoints")])
def test_what_was_trained_is_drawn_again_and_not_trained_anew(system: str, beside: str, tmp_path: Path) -> None:
    """With its classifier, where one leads; the same samples come of it."""
    small = ["net.width=8", "net.blocks=1", "net.head=8", "net.groups=4", "train.batch=8", "sample.steps=2"]
    (tmp_path / "few.toml").write_text(Recipe.load("digits", small).toml())
    (one,), data = compare.entrants([system]), load("digits")
    asked = str(tmp_path / "few.toml"), data, tmp_path / system, 0.002, 12, 0, lambda done, total, words: None
    first, again = one.enter(*asked), one.enter(*asked)
    assert first.x.shape == (12, 1, 8, 8) and torch.equal(first.x, again.x) and first.steps == again.steps > 0
    assert first.seconds == again.seconds > 0
    assert list(first.label) == [*range(10), 0, 1] and (tmp_path / system / beside).is_dir()


def test_an_unknown_system_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    assert run("flow", "gam", "--out", str(tmp_path / "x")) == 2
    assert run("flow", "--out", str(tmp_path / "x"), "--page", "compare.html") == 2
    assert not (tmp_path / "x").exists()
    with pytest.raises(PellucidError, match="did you mean 'gan'"):
        compare.entrants(["gam"])


def test_a_seed_that_cannot_be_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in ("-1", str(2**63)):
        assert run("flow", "--seed", seed, "--out", str(tmp_path / "x")) == 2
        assert "seed" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_bits_are_those_of_the_law_that_was_learnt() -> None:
    """Of a model that knows its data exactly: the entropy in bits, half of it for each of two dimensions."""
    mixture = GaussianMixture.random(3, 2, seed=1)
    data = Dataset("known", Split(mixture.sample(50, 1)), Split(mixture.sample(100, 2)))
    found = compare.bits(mixture.at(Cosine()), data)["bits"]
    truth = -float(mixture.log_prob(mixture.sample(200_000, 3)).mean()) / (2 * math.log(2))
    assert abs(found.value - truth) < 3 * found.error and found.low < found.value < found.high


def sorted_data(n: int) -> Dataset:
    """Two classes far apart, one after the other."""
    label = (torch.arange(n) >= n // 2).long()
    train, test = (normal(seed, torch.arange(n), 0, (2,)) + 9 * label[:, None] for seed in (1, 2))
    return Dataset("sorted", Split(train, label), Split(test, label))


def test_a_part_of_sorted_data_is_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for its probability, and what is looked at."""
    seen: list[Tensor] = []
    monkeypatch.setattr(row_, "SURE", 10)
    monkeypatch.setattr(row_, "flow", lambda model, x, cond, **_: seen.append(cond["label"]) or flow(model, x, **_))
    data = sorted_data(40)
    compare.bits(GaussianMixture.random(3, 2).at(Cosine()), data)
    assert seen[0].tolist() == [0] * 5 + [1] * 5
    x, label = row_._split(data, "test", 30)
    assert label is not None and label.tolist() == [0] * 15 + [1] * 15 and torch.equal(label == 1, x[:, 0] > 4.5)


def test_figures_are_of_as_many_samples_as_a_metric_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sorted_data(60)
    monkeypatch.setattr(KID, "most", 20)
    some = spaced(60, 20)
    assert data.test is not None
    few = kid(data.train.x[some], data.test.x[some])
    assert compare.measure(data, data.train.x, None)["kid"].value == pytest.approx(few, rel=1e-6)


def test_data_of_a_single_class_are_compared() -> None:
    data = sorted_data(60)
    one = replace(data, train=data.train._replace(label=torch.ones(60).long()), classes=("a", "b"))
    assert "class_accuracy" not in compare.measure(one, data.train.x, torch.ones(60).long())


def test_a_damaged_note_of_what_is_compared_is_one_sentence(tmp_path: Path) -> None:
    for text in ("{", "[]", '"x"'):
        (tmp_path / "compare.json").write_text(text)
        with pytest.raises(PellucidError, match="take another folder"):
            compare.agree(tmp_path, {"data": "moons"})
