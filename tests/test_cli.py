"""The command does what it says, says what it did, and meets a mistake with one sentence and exit code 2."""

import errno
import importlib
import json
import math
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import pellucid as package
from pellucid import checkpoint
from pellucid.cli import main
from pellucid.cli.listing import _registries
from pellucid.files import MISTAKEN
from pellucid.registry import Registry
from pellucid.training import Progress

SMALL = ["net.width=8", "net.blocks=1", "train.steps=3", "train.batch=8", "train.save_every=2", "sample.steps=2"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def pellucid(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Answer:
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        return Answer(int(exit.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a toy and of the digits, trained for three steps."""
    runs = tmp_path_factory.mktemp("runs")
    for recipe in ["toy-2d", "digits"]:
        with pytest.raises(SystemExit) as exit:
            main(["train", recipe, *SMALL, "--runs", str(runs)])
        assert not exit.value.code
    return runs


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_help_is_quick_and_light() -> None:
    began = time.perf_counter()
    help = [sys.executable, "-X", "importtime", "-m", "pellucid", "--help"]
    run = subprocess.run(help, capture_output=True, text=True)
    assert time.perf_counter() - began < 2  # 0.2 s where nothing else runs
    assert run.returncode == 0 and "sample" in run.stdout
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in run.stderr.splitlines()}
    assert not loaded & {"torch", "numpy", "PIL", "matplotlib", "sklearn", "datasets"}


def test_a_run_holds_its_recipe_its_record_and_its_pictures(runs: Path) -> None:
    held = files(runs / "digits")
    assert {"recipe.toml", "metrics.jsonl", "samples/step_0000000.png", "samples/step_0000003.png"} <= held
    assert "checkpoints/step_0000003/ema.safetensors" in held
    assert json.loads((runs / "digits/metrics.jsonl").read_text().splitlines()[-1])["step"] == 3


@pytest.mark.parametrize("options", [[], ["--exact"], ["--sampler", "ddpm"], ["--label", "3,1", "--guidance", "2"],
                                     ["--sampler", "ddpm", "--noise", "brownian"]])  # fmt: skip
def test_a_picture_draws_itself_again(runs: Path, pellucid: Command, options: list[str]) -> None:
    assert pellucid("sample", runs / "digits", "-n", 6, "--seed", 7, "--out", "a.png", *options).code == 0
    assert pellucid("sample", "--like", "a.png", "--out", "b.png").code == 0
    assert (pixels(Path("a.png")) == pixels(Path("b.png"))).all()
    assert pellucid("show", "a.png").out == pellucid("show", "b.png").out
    shown = json.loads(pellucid("show", "a.png", "--json").out)
    assert (shown["n"], shown["seed"]) == (6, 7)
    assert "Steps: 2, Sampler: " in Image.open("a.png").text["parameters"]


def test_a_picture_says_its_noise(runs: Path, pellucid: Command) -> None:
    """The picture and the recipe carry it, and drawing again obeys."""
    for noise in ("independent", "brownian"):
        pellucid("sample", runs / "digits", "-n", 2, "--sampler", "ddpm", "--noise", noise, "-o", f"{noise}.png")
        assert json.loads(pellucid("show", f"{noise}.png", "--json").out)["noise"] == noise
    pellucid("sample", "--like", "brownian.png", "--noise", "independent", "-o", "again.png")
    one, other, again = (pixels(Path(f"{name}.png")) for name in ("independent", "brownian", "again"))
    assert (one == again).all() and (one != other).any()


def test_one_of_a_folder_draws_itself_again(runs: Path, pellucid: Command) -> None:
    pellucid("sample", runs / "digits", "-n", 5, "--first", 10, "--batch", 2, "--out", "all")
    assert files(Path("all")) == {f"{i:06d}.png" for i in range(10, 15)}
    pellucid("sample", "--like", "all/000013.png", "--out", "one.png")
    assert (pixels(Path("one.png")) == pixels(Path("all/000013.png"))).all()


def test_a_sample_does_not_know_its_neighbours(runs: Path, pellucid: Command) -> None:
    pellucid("sample", runs / "digits", "-n", 6, "--exact", "--out", "all.npz")
    pellucid("sample", runs / "digits", "-n", 2, "--first", 4, "--exact", "--out", "two.npz")
    whole, part = np.load("all.npz"), np.load("two.npz")
    assert (whole["arr_0"][4:] == part["arr_0"]).all() and whole["arr_0"].shape == (6, 8, 8, 1)
    assert whole["arr_1"].tolist() == [0, 1, 2, 3, 4, 5]


def test_names_that_users_know(runs: Path, pellucid: Command) -> None:
    ours = ["-n", 4, "--sampler", "dpmpp-2m", "--steps", 3, "--guidance", 2, "-o", "a.npz"]
    theirs = ["--num-samples", 4, "--scheduler", "DPM++ 2M", "--num-inference-steps", 3, "--guidance-scale", 2]
    pellucid("sample", runs / "digits", *ours)
    pellucid("sample", runs / "digits", *theirs, "--output", "b.npz")
    assert (np.load("a.npz")["arr_0"] == np.load("b.npz")["arr_0"]).all()


def test_points(runs: Path, pellucid: Command) -> None:
    assert pellucid("sample", runs / "toy-2d", "-o", "points.npz").code == 0
    assert np.load("points.npz")["arr_0"].shape == (4000, 2)
    assert pellucid("sample", runs / "toy-2d").out.startswith("toy-2d.png: 4000 samples")
    said = Image.open("toy-2d.png").info["parameters"]
    assert "Size" not in said and "CFG scale: 1.0" in said  # points have no size, and nothing was guided
    assert pixels(Path("toy-2d.png")).shape == (480, 480, 3)


def test_training_goes_on_or_begins_beside(pellucid: Command) -> None:
    pellucid("train", "moons", *SMALL)
    again = pellucid("train", "moons", *SMALL, "--steps", 5, "--json")
    assert json.loads(again.out)["step"] == 5
    assert json.loads(pellucid("train", "runs/moons", "--steps", 6, "--json").out)["step"] == 6
    other = pellucid("train", "moons", *SMALL, "--lr", 1)
    assert other.code == 2 and "optim.lr = 0.002, not 1.0" in other.err
    fresh = pellucid("train", "moons", *SMALL, "--lr", 1, "--fresh", "--json")
    assert json.loads(fresh.out)["run"] == "runs/moons-2"
    assert pellucid("train", "moons", "--name", "none", "--resume").code == 2


def test_minutes_are_measured_and_said(pellucid: Command) -> None:
    answer = pellucid("train", "digits", "--data", "moons", "net={name='mlp',width=8}", "--minutes", 0.005, "--json")
    steps = json.loads(answer.out)["steps"]
    assert f"0.005 minutes are {steps} steps here, of 128 samples each" in answer.err and steps >= 1
    same = ("train", "digits", "--data", "moons", "net={name='mlp',width=8}", "--minutes", 0.005, "--json")
    for more in (1, 2):  # the same command goes on, however often
        assert pellucid("train", "runs/digits", "--steps", steps + more).code == 0
        assert json.loads(pellucid(*same).out)["steps"] == steps + more
    steps += 2
    longer = pellucid("train", "digits", "--data", "moons", "net={name='mlp',width=8}", "--minutes", 5)
    assert longer.code == 2 and f"is a run of {steps} steps, and 5 minutes are asked for" in longer.err


def test_lists(pellucid: Command) -> None:
    families = json.loads(pellucid("list", "--json").out)
    assert set(families) == {*_registries(), "recipes", "systems"}
    for family, names in families.items():
        rows = json.loads(pellucid("list", family, "--json").out)
        assert [row["name"] for row in rows] == names and all(row["what"] for row in rows)
        assert all(name in pellucid("list", family).out for name in names)


def test_every_registry_is_listed() -> None:
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(package.__path__, "pellucid.")
               if not each.name.endswith("__main__")]  # fmt: skip
    there = {
        id(each): each.family for module in modules for each in vars(module).values() if isinstance(each, Registry)
    }
    assert len(there) > 15 and there.keys() == {id(registry) for registry in _registries().values()}, there


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("sample {run} --sampler dpmpp-2mm", "did you mean 'dpmpp-2m'?"),
        ("sample {run} --grid karas", "did you mean 'karras'?"),
        ("sample {run} --noise pink", "noise is 'pink'; expected 'independent' or 'brownian'."),
        ("sample {run} --steps 0", "steps is 0; expected a number greater than 0."),
        ("sample {run} --steps many", "--steps is 'many'; expected a valid integer"),
        ("sample {run} --steps=many", "--steps is 'many'"),
        ("sample {run} --guidence 2", "did you mean --guidance?"),
        ("sample {run} --label 10", "expected 0 to 9."),
        ("sample {run} --label -1", "expected 0 to 9."),
        ("sample {run} --eta 1 --sampler heun", "'heun' has no eta"),
        ("sample {run} --out x.jpg", "expected a .png, an .npz or a folder"),
        ("sample {run} --out {run}/recipe.toml/x.png", "cannot write"),
        ("sample {run} --device gpu", "no device 'gpu'"),
        ("sample {run} --device meta", "no device 'meta'"),
        ("sample {run} --seed 9223372036854775808", "seed is 9223372036854775808; expected"),
        ("sample {run} --first 9223372036854775807", "first is"),
        ("sample {run} --steps 1000000000", "steps is 1000000000; expected"),
        ("sample {run} -n 10000000000000", "n is 10000000000000; expected"),
        ("sample {run} --label=", "expected 0 to 9"),
        ("sample {run} --out=", "expected a .png, an .npz or a folder"),
        ("sample {run} --out /dev/null", "/dev/null: it is no folder"),
        ("sample {run} --out foreign", "cannot write foreign: it is no folder"),
        ("sample {toy} --label 1", "has no classes"),
        ("sample {toy} --guidance 7", "guidance is 7, and no label is given"),
        ("sample {run} --label none --guidance 7", "guidance is 7, and no label is given"),
        ("sample {toy} --guidance-rule apg --guidance 3", "guidance is 3, and no label is given"),
        ("sample {toy} --threshold 0.9", "samples of shape (2,) are none"),
        ("tune {toy} --guidance 2", "guidance is 2, and no label is given"),
        ("sample {run} --sampler dpmpp_2m_karras --grid beta", "brings the grid 'karras', and grid is 'beta'"),
        ("sample {run} --sampler restart --grid uniform", "brings the grid 'restart', and grid is 'uniform'"),
        ("sample {toy} --out folder", "are no pictures"),
        ("sample nowhere", "there is no run at nowhere"),
        ("sample", "nothing to draw from"),
        ("sample --like nothing.png", "there is no file nothing.png"),
        ("sample --like {run}/recipe.toml", "is not a PNG"),
        ("sample --like foreign.png", "does not say how it was drawn"),
        ("show torn.png", "is not a PNG that can be read"),
        ("train digitz", "did you mean 'digits'?"),
        ("train digits steps=3", "did you mean 'train.steps'?"),
        ("sample {run} --seed -1", "seed is -1; expected"),
        ("explain {toy} --seed -1", "--seed is '-1'; expected a number greater than or equal to 0."),
        ("tune {toy} --seed -1", "--seed is '-1'; expected a number greater than or equal to 0."),
        ("evaluate {toy} --seed -1", "--seed is '-1'; expected a number greater than or equal to 0."),
        ("verify samplers --out empty", "cannot write empty: it is a folder"),
        ("train moons --runs foreign", "cannot write foreign/moons/metrics.jsonl: "),
        ("data check ~nosuchuser/x", "~nosuchuser/x"),
        ("train digits data.source=~nosuchuser/x", "~nosuchuser/x"),
        ("data pack ~nosuchuser/x", "~nosuchuser/x"),
        ("train digits --steps 0", "train.steps is 0"),
        ("train digits optim.lr=fast", "optim.lr is 'fast'; expected a valid number"),
        ("train digits net.widht=3", "did you mean 'width'?"),
        ("train empty", "empty"),
        ("train absent/folder", "there is no absent/folder"),
        ("train digits optim.betas=[1,1]", "optim.betas"),
        ("list sampler5", "did you mean 'samplers'?"),
        ("smaple", "Did you mean 'sample'?"),
        ("show", "Missing argument"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    runs: Path, pellucid: Command, tmp_path: Path, arguments: str, said: str
) -> None:
    Image.new("L", (8, 8)).save("foreign.png")
    Path("torn.png").write_bytes(Path("foreign.png").read_bytes()[:40])
    Path("foreign").touch()
    Path("empty").mkdir()
    before = files(tmp_path)
    words = arguments.format(run=runs / "digits", toy=runs / "toy-2d").split()
    answer = pellucid(*words)
    assert answer.code == 2 and said in answer.err, answer
    assert answer.err.startswith("pellucid: ") and answer.err.count("\n") == 1 and not answer.out
    assert files(tmp_path) == before


@pytest.mark.parametrize("run", ["digits", "toy-2d"])
def test_what_draws_no_numbers_makes_no_picture(
    runs: Path, pellucid: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    monkeypatch.setattr("pellucid.sampling.sample", lambda model, n, **_: torch.full((n, *model.shape), math.nan))
    answer = pellucid("sample", runs / run, "-n", 2, "-o", tmp_path / "x.png")
    assert answer.code == 2 and "draws numbers that are not finite" in answer.err and not (tmp_path / "x.png").exists()


def test_damage_is_named_and_passed_by(runs: Path, pellucid: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "digits", run)
    older, newer = sorted((run / "checkpoints").glob("step_*/ema.safetensors"))
    newer.write_bytes(newer.read_bytes()[:-7])
    answer = pellucid("sample", run, "-n", 2)
    assert answer.code == 0 and f"{older.parent.name} was taken instead" in answer.err
    older.write_bytes(b"")
    answer = pellucid("sample", run, "-n", 2)
    assert answer.code == 2 and "is damaged" in answer.err and answer.err.count("\n") == 1


def test_a_signal_is_75_and_the_command_that_is_named_goes_on(
    pellucid: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(report: Progress) -> str:
        if report.step == 1:
            signal.raise_signal(signal.SIGINT)
        return ""

    with monkeypatch.context() as patch:
        patch.setattr("pellucid.cli.train.words", interrupt)
        answer = pellucid("train", "toy-2d", *SMALL)
    said, _, command = answer.err.strip().rpartition("go on with: pellucid ")
    assert answer.code == 75 and "stopped by SIGINT and kept at step 1 in runs/toy-2d" in said
    assert (tmp_path / "runs/toy-2d/checkpoints/step_0000001").is_dir()
    answer = pellucid(*command.split(), "--json")
    assert answer.code == 0 and json.loads(answer.out)["step"] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_before_the_first_step_is_75_too(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr("pellucid.training.watch.peak", lambda *_: signal.raise_signal(number))
        answer = pellucid("train", "toy-2d", *SMALL)
    assert answer.code == 75 and f"stopped by {number.name} before the first step; go on with the same" in answer.err
    assert not Path("runs").exists() and signal.getsignal(number) == before
    assert pellucid("train", "toy-2d", *SMALL).code == 0


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir", "write_bytes"])
def test_a_disk_that_fails_is_74(pellucid: Command, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """At the 2nd, 8th, 14th ... call: one sentence, and what was kept goes on."""
    home = Path if call == "write_bytes" else os
    original = getattr(home, call)
    for bad in range(2, 100, 6):
        calls = count(1)

        def fail(*arguments: object, **options: object) -> object:
            if next(calls) == bad:  # noqa: B023
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(home, call, fail)
            answer = pellucid("train", "toy-2d", *SMALL, "net.blocks=1", "--name", f"run{bad}")
        if answer.code == 0:
            break
        assert answer.code == 74 and answer.err.strip().splitlines()[-1].startswith("pellucid: no space left on device")
        assert "Traceback" not in answer.err
        again = pellucid("train", "toy-2d", *SMALL, "net.blocks=1", "--name", f"run{bad}")
        assert again.code == 0, again
    assert bad > 2 or call == "mkdir"


@pytest.mark.slow
def test_demo(pellucid: Command) -> None:
    answer = pellucid("demo", "--json")
    figures = json.loads(answer.out)
    assert answer.code == 0 and figures["passed"], figures
    assert pixels(Path("runs/demo/digits.png")).shape[:2] == (662, 662)


@pytest.mark.parametrize("shape", [(1,), (1, 16), (2, 3, 4, 5)])
def test_samples_of_any_shape_are_trained_on(pellucid: Command, shape: tuple[int, ...]) -> None:
    np.savez("x.npz", x=np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32))
    answer = pellucid("train", "x.npz", "net=mlp", *SMALL, "--steps", 1)
    assert answer.code == 0, answer
    assert not Path("runs/x/samples").exists()
    assert pellucid("sample", "runs/x", "-n", 2, "-o", "x.png").code == 2


def test_an_edited_recipe_or_fewer_steps_do_not_change_a_run(runs: Path, pellucid: Command, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "toy-2d", tmp_path / "run")
    written = (run / "recipe.toml").read_text()
    answer = pellucid("train", run, "--steps", 2)
    assert answer.code == 2 and "has 3 steps behind it" in answer.err
    assert (run / "recipe.toml").read_text() == written
    (run / "recipe.toml").write_text(written.replace('path = "cosine"', 'path = "flow"'))
    answer = pellucid("train", run, "--steps", 4)
    assert answer.code == 2 and "path = 'cosine', not 'flow'" in answer.err
    (run / "recipe.toml").unlink()
    answer = pellucid("train", run, "--steps", 4)
    assert answer.code == 2 and "without its recipe.toml" in answer.err


def judged(run: Path, pellucid: Command, *words: object) -> None:
    """The same is said of a run, of its checkpoint, which has no recipe beside it, and of it with another recipe."""
    told = []
    for place in (run, checkpoint.folders(run)[0], run):
        said = pellucid(words[0], place, *words[1:], "--json")
        assert not said.code, said
        told.append([row.get("nats", row) for row in json.loads(said.out)["rows"]])
        (run / "recipe.toml").write_text('name = "run"\n[data]\nsource = "checkerboard"\n[train]\nsteps = 3\n')
    assert told[0] == told[1] == told[2]


def test_a_run_is_judged_by_what_it_was_trained_on(runs: Path, pellucid: Command, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "toy-2d", tmp_path / "run")
    judged(run, pellucid, "likelihood", "-n", 3, "--kind", "flow", "--flow-steps", 1)


@pytest.mark.soak
def test_it_is_measured_and_explained_so_too_and_nothing_is_put_into_a_checkpoint(
    runs: Path, pellucid: Command, tmp_path: Path
) -> None:
    run = shutil.copytree(runs / "toy-2d", tmp_path / "run")
    judged(run, pellucid, "evaluate", "-n", 20, "--features", "values", "--out", tmp_path / "found")
    newest, before = checkpoint.folders(run)[0], files(run)
    assert pellucid("explain", newest).code == 0 and pellucid("evaluate", newest, "-n", 20).code == 0
    assert files(run) == before and Path("toy-2d-explained/report.html").exists()
    assert Path(f"{newest.name}-evaluated/evaluation.json").exists()


def test_a_run_is_named_by_one_folder(pellucid: Command, tmp_path: Path) -> None:
    for name in ["../../x", "", "..", "a/b"]:
        assert pellucid("train", "moons", *SMALL, "--name", name).code == 2
    assert pellucid("train", "moons", "data.source=").code == 2
    assert pellucid("explain", "").code == 2
    assert not files(tmp_path)


def test_one_of_a_folder_can_be_anything(runs: Path, pellucid: Command) -> None:
    pellucid("sample", runs / "digits", "-n", 5, "--first", 10, "-o", "all")
    pellucid("sample", "--like", "all/000013.png", "-o", "one.npz")
    pellucid("sample", "--like", "all/000013.png", "-o", "one")
    assert np.load("one.npz")["arr_1"].tolist() == [3] and files(Path("one")) == {"000013.png"}
    assert (pixels(Path("one/000013.png")) == pixels(Path("all/000013.png"))).all()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"n": 1' + "0" * 9999 + "}", "[]", '{"run": "x", "grid": "q"}'])
def test_a_hostile_picture_is_refused(pellucid: Command, text: str) -> None:
    words = PngInfo()
    words.add_text("pellucid", text)
    Image.new("L", (8, 8)).save("a.png", pnginfo=words)
    answer = pellucid("sample", "--like", "a.png")
    assert answer.code == 2 and answer.err.count("\n") == 1, answer


def test_a_capital_suffix_is_a_suffix(runs: Path, pellucid: Command) -> None:
    assert pellucid("sample", runs / "digits", "-n", 2, "--rescale", 0.5, "-o", "X.PNG").code == 0
    assert pixels(Path("X.PNG")).ndim == 2


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), OverflowError("big"), OSError(36, "long", "x")]
)
def test_too_much_is_one_sentence(pellucid: Command, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("pellucid.cli.app", fail)
    answer = pellucid("list")
    assert answer.code == 2 and answer.err.startswith("pellucid: ") and answer.err.count("\n") == 1


@pytest.mark.parametrize(
    "rank, size, speaks", [("1", None, True), ("0", "2", True), ("1", "2", False), ("x", None, True)]
)
def test_one_of_many_processes_says_what_is_wrong(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch, rank: str, size: str | None, speaks: bool
) -> None:
    """And a process alone, whatever else it has heard of ranks."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size) if size else monkeypatch.delenv("WORLD_SIZE", raising=False)
    answer = pellucid("show", "nosuch")
    assert answer.code == 2 and ("nosuch" in answer.err) == speaks


@pytest.mark.parametrize("words", ["DefaultCPUAllocator: can't allocate memory", "CUDA out of memory.", "bad Alloc"])
def test_memory_that_is_not_there_is_one_sentence(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr("pellucid.cli.app", fail)
    answer = pellucid("list")
    assert answer.code == 2 and "not memory enough" in answer.err and answer.err.count("\n") == 1


@pytest.mark.parametrize("number", sorted(MISTAKEN))
def test_a_place_that_cannot_be_is_a_mistake_and_the_disk_is_not_blamed(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "there")

    monkeypatch.setattr("pellucid.cli.app", fail)
    answer = pellucid("list")
    gone = number == errno.ENOENT  # under us
    assert (answer.code, "mend the disk" in answer.err) == ((74, True) if gone else (2, False))
    assert f"{os.strerror(number).lower()}: there" in answer.err and answer.err.count("\n") == 1


def test_one_sample_is_explained(pellucid: Command) -> None:
    np.savez("x.npz", x=np.array([[1, -1]], np.float32))
    assert pellucid("explain", "x.npz", "net=mlp", *SMALL).code == 0


def test_likelihoods_of_a_run_stand_in_one_table(runs: Path, pellucid: Command) -> None:
    few = ["-n", 4, "--steps", 3, "--flow-steps", 3]
    files = "--per-sample", "each.npz", "--plot", "terms.svg"
    said = pellucid("likelihood", runs / "digits", *few, *files, "--json")
    assert said.code == 0, said.err
    found, each = json.loads(said.out), np.load("each.npz")
    assert [row["kind"] for row in found["rows"]] == ["discrete", "continuous", "flow"] and found["dims"] == 64
    for row in found["rows"]:
        assert row["nats"]["value"] == pytest.approx(each[f"{row['kind']}_nats"].mean())
        assert row["bits"]["value"] == pytest.approx(-row["nats"]["value"] / 64 / np.log(2))
        assert sum(term["value"] for term in row["terms"].values()) == pytest.approx(row["nats"]["value"])
    for pair, (above, below) in zip(found["order"], pairwise(found["rows"]), strict=True):
        gap = each[f"{above['kind']}_bits"] - each[f"{below['kind']}_bits"]
        assert pair["bits"]["value"] == pytest.approx(gap.mean())
        assert pair["bits"]["error"] == pytest.approx(gap.std(ddof=1) / 2)  # of four
        assert pair["holds"] == (gap.mean() > -1.96 * pair["bits"]["error"])
    assert "<svg" in Path("terms.svg").read_text()
    alone = pellucid("likelihood", runs / "toy-2d", *few, "--kind", "flow", "--data", "train")
    assert alone.code == 0 and "bits/dim" in alone.out and "discrete" not in alone.out


@pytest.mark.parametrize(
    "options, words",
    [
        (["--kind", "flo"], "did you mean 'flow'?"),
        (["--per-sample", "each.txt"], "expected an .npz"),
        (["--data", "nowhere/x"], "there is no nowhere/x"),
        (["--data", "moons"], "expected samples of [1, 8, 8]"),
        (["--kind", "flow", "--sampler", "ddpm"], "draws noise"),
        (["--kind", "flow", "--divergence", "exakt"], "did you mean 'exact'?"),
        (["--dequantise", "nois"], "did you mean 'noise'?"),
        (["--times", "unifrom"], "did you mean 'uniform'?"),
        (["--plot", "terms.txt"], "expected an .svg or .png"),
        (["--kind", "flow", "--plot", "terms.svg"], "no terms to plot"),
    ],
)
def test_a_likelihood_that_cannot_be_is_one_sentence(
    runs: Path, pellucid: Command, options: list[str], words: str
) -> None:
    said = pellucid("likelihood", runs / "digits", "-n", 2, *options)
    assert said.code == 2 and words in said.err and len(said.err.strip().splitlines()) == 1 and not said.out
