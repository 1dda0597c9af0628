"""From 1 step to 1000 on every path a number comes out; nonsense is one sentence, in Python and on the command line."""

from typing import Any

import numpy as np
import pytest
import torch

from pellucid import CFG, PellucidError, grids, paths, sample, samplers
from pellucid.cli import main
from pellucid.explain.verify.theorem import all_samplers, formulas, mixture, one_of_each_kind
from pellucid.guidance import Threshold
from pellucid.sampling import with_eta
from pellucid.training import Plan

ORACLE = mixture().at(paths.Cosine())
PATHS, KINDS = formulas(), one_of_each_kind()


@pytest.mark.parametrize("name", PATHS)
def test_one_step_and_a_thousand_are_numbers_on_every_path(name: str) -> None:
    for steps in (1, 2, 3, 1000):
        x = sample(mixture().at(PATHS[name]), 2, sampler="dpmpp-2m", steps=steps, grid="uniform")
        assert x.isfinite().all() and float(x.abs().max()) < 1e3


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_thousand_steps_of_every_kind_are_numbers(name: str) -> None:
    for path in ("cosine", "ve"):
        x = sample(mixture().at(paths.registry.make(path)), 2, sampler=KINDS[name], steps=1000, grid="karras")
        assert x.isfinite().all()


@pytest.mark.soak
@pytest.mark.parametrize("name", all_samplers())
def test_every_number_of_steps_is_a_number_on_every_path(name: str) -> None:
    for path in PATHS.values():
        for steps in (*range(1, 21), 33, 50, 100, 333, 1000):
            assert sample(mixture().at(path), 2, sampler=all_samplers()[name], steps=steps).isfinite().all()


def test_the_whole_numbers_of_numpy_and_torch_are_numbers() -> None:
    """And those that are none are refused, whoever made them."""
    for kind in (np.int64, np.uint8, torch.tensor):
        asked = {name: kind(value) for name, value in {"steps": 3, "seed": 5, "first": 2, "batch": 3}.items()}
        plain = sample(ORACLE, 4, steps=3, seed=5, first=2, sampler="ddpm")
        assert torch.equal(sample(ORACLE, kind(4), sampler="ddpm", **asked), plain)
        assert Plan(steps=kind(7), seed=kind(5)) == Plan(steps=7, seed=5)
        with pytest.raises(PellucidError, match=r"n is .*; expected a whole number, 1 or more"):
            sample(ORACLE, kind(0))
    for wrong in (np.float64(2), torch.tensor(2.0), torch.tensor([1, 2]), "2", None, True):
        with pytest.raises(PellucidError, match="expected a whole number"):
            sample(ORACLE, wrong)  # type: ignore[arg-type]


UNSORTED = (0.2, 0.9, 0.1)
NONSENSE: list[tuple[str, Any, str]] = [
    *((f"steps={steps}", lambda s=steps: sample(ORACLE, 1, steps=s), "steps is .*; expected a whole number, 1 or more")
      for steps in (0, -3, 2.5, True)),
    ("unsorted", lambda: grids.registry.make({"name": "times", "at": UNSORTED}), "expected them to fall"),
    ("eta", lambda: with_eta("heun", 0.5), "sampler 'heun' has no eta; take ddim"),
    ("eta=2", lambda: samplers.Ancestral(2.0), "eta is 2.0; expected a number from 0"),
    ("order=7", lambda: samplers.Multistep(7), "order is 7; a multistep sampler has order 1 to 4"),
    ("order of a name", lambda: samplers.registry.make({"name": "dpmpp-2m", "order": 7}), "order is 7"),
    ("steps=9", lambda: samplers.Pseudo(9), "steps is 9; expected 1 to 4"),
    ("method", lambda: samplers.registry.make({"name": "runge-kutta", "method": "rk9"}), "method = 'rk9'"),
    ("rho=-1", lambda: samplers.Multistep(2, rho=-1.0), "rho is -1.0; expected 0"),
    ("rho of eps", lambda: samplers.Multistep(2, rho=1.0, variable="eps"), "take variable = 'x0'"),
    ("a tolerance of 0", lambda: samplers.Adaptive(atol=0.0), "expected positive numbers"),
    ("a low beyond the way", lambda: samplers.Adaptive(low=1e9), "and low below 1"),
    ("an interval of one", lambda: CFG(2.0, (0.2,)), "expected two rising times"),
    ("no interval", lambda: CFG(2.0, None), "expected two rising times"),
    ("a share in words", lambda: Threshold(share="a"), "share is 'a' and limit 1.0; expected a share"),
    ("a list for a sampler", lambda: sample(ORACLE, 1, sampler=["heun"]), r"sampler is \['heun'\]; expected a name"),
    *((f"a count of {n}", lambda n=n: grids.Trailing(n=n), "expected a whole number from 1")
      for n in (0, 2.0, True, 10**7)),
    ("no sampler", lambda: sample(ORACLE, 1, sampler="eulr"), "did you mean 'euler'"),
    ("a guidance", lambda: sample(ORACLE, 1, sampler="euler_cfg_pp"), r"with the guidance cfg\+\+"),
]  # fmt: skip


@pytest.mark.parametrize("ask, sentence", [case[1:] for case in NONSENSE], ids=[case[0] for case in NONSENSE])
def test_nonsense_is_one_sentence(ask: Any, sentence: str) -> None:
    with pytest.raises(PellucidError, match=sentence) as caught:
        ask()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("verify dpmpp-2mm", "unknown proof 'dpmpp-2mm'; did you mean 'dpmpp-2m'?"),
        ("verify samplers --all", "--all is for theorems"),
        ("verify --out page.md", "only samplers have a page"),
        ("verify samplers --out /dev/null/page.md", "cannot write /dev/null/page.md"),
        ("list sampler --jsn", "--json"),
    ],
)
def test_nonsense_on_the_command_line_is_one_sentence(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(words.split(" "))
    said = capsys.readouterr()
    assert exit.value.code == 2 and said.out == "" and sentence in said.err
    assert said.err.startswith("pellucid: ") and said.err.count("\n") == 1


def test_the_list_of_samplers_shows_what_they_promise(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "samplers"])
    head, *lines = capsys.readouterr().out.strip().splitlines()
    assert head.split() == ["name", "order", "stochastic", "calls", "aliases", "what"]
    for row in ("dpmpp-sde 2 yes 2", "dpmpp-3m-sde 1 yes 1", "lcm none yes 1", "dpmpp-3m 3 no 1"):  # of laws
        assert any(line.split()[:4] == row.split() for line in lines), row
