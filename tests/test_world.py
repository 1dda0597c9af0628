"""A world of processes does what one does: the same samples, the same steps, the same checkpoints."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid import PellucidError, checkpoint, files
from pellucid.cli import main
from pellucid.world import ALONE, World, entered


@pytest.mark.parametrize("n", [1, 5, 8, 13])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_each_row_belongs_to_one_rank(n: int, size: int) -> None:
    """In the order in which torch parts a batch."""
    parts = [torch.arange(n)[World(rank, size).rows(n)] for rank in range(size)]
    assert torch.equal(torch.cat(parts), torch.arange(n))
    assert [len(part) for part in parts] == [len(part) for part in torch.arange(n).tensor_split(size)]


def test_who_is_alone_agrees_with_itself() -> None:
    with entered({}) as world:
        assert world == ALONE and world.leads and world.told(3) == 3 and world.heard("x") == ["x"]
        with pytest.raises(PellucidError, match="no"), world.agreed():
            raise PellucidError("no")


def test_a_world_of_one_is_alone_and_one_that_cannot_meet_is_refused() -> None:
    """Whatever a cluster tells every process that it starts."""
    for given in ({"RANK": "0"}, {"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}):
        with entered(given) as world:
            assert world == ALONE
    lost = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "there"}
    with pytest.raises(PellucidError, match="WORLD_SIZE is 2, and MASTER_PORT does not say"), entered(lost):
        raise AssertionError


@pytest.mark.slow
def test_one_of_one_may_start_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a launcher has started does not launch."""
    small = ["net.width=16", "net.blocks=1", "train.batch=8", "--device", "cpu", "--gpus", "2", "--steps", "2"]
    command = [sys.executable, "-m", "pellucid", "train", "moons", *small, "--runs", str(tmp_path)]
    subprocess.run(command, check=True, env=os.environ | {"RANK": "0", "WORLD_SIZE": "1"}, timeout=100)
    assert (tmp_path / "moons" / "logs" / "rank_1.log").exists()


def launched(size: int, *arguments: object) -> list[str]:
    """What the ranks of tests/ranks.py say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("ranks.py")), *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ranks = [subprocess.Popen(command, env=os.environ | place | {"RANK": str(r)}, **pipes) for r in range(size)]
    answers = [rank.communicate(timeout=200) for rank in ranks]
    assert not any(rank.returncode for rank in ranks), "\n".join(err for _, err in answers)
    return [out for out, _ in answers]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_do_what_one_does(tmp_path: Path, kind: str) -> None:
    """On all networks; resumed bit for bit, in a world of another size but for rounding; guarded as one."""
    figures = json.loads(launched(2, tmp_path, kind)[0])
    for method, (gradients, weights) in figures["as one"].items():
        rough = method == "muon"  # orthogonal in bfloat16: what is small in a gradient is rounding, and made large
        assert gradients < (2**-8 if rough else 1e-5) and weights < (0.15 if rough else 1e-3), method
    assert figures["next loss"] <= 1e-6


@pytest.mark.slow
def test_the_command_starts_many_and_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--gpus 2` told to stop: all ranks keep their shares, exit code 75; then one process goes on with the run."""
    monkeypatch.chdir(tmp_path)
    small = ["net.width=16", "net.blocks=1", "train.batch=8", "train.parallel=fsdp", "--device", "cpu"]
    command = [sys.executable, "-m", "pellucid", "train", "moons", *small]
    many = subprocess.Popen([*command, "--gpus", "2", "--steps", "100000"], stderr=subprocess.PIPE, text=True)
    record = tmp_path / "runs" / "moons" / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while not record.exists() and many.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    many.send_signal(signal.SIGTERM)
    _, said = many.communicate(timeout=60)
    assert many.returncode == 75 and "kept at step" in said and "Traceback" not in said, said
    assert "kept at step" in (record.parent / "logs" / "rank_1.log").read_text()
    (newest, *_) = checkpoint.folders(record.parent)
    step = checkpoint.number(newest)
    with pytest.raises(SystemExit) as ended:
        main(["sample", str(newest), "-n", "2", "--steps", "2", "-o", "points.png"])
    assert not ended.value.code and Path("points.png").exists()
    assert step >= 50 and (newest / "ema.rank1.safetensors").exists()
    with pytest.raises(SystemExit) as ended:
        main(["train", "moons", *small, "--steps", str(step + 1)])
    assert not ended.value.code and checkpoint.load(record.parent).shape == (2,)
    assert {path.name for path in checkpoint.folders(record.parent)[0].glob("ema*")} == {"ema.safetensors"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_whatever_ends_the_launcher_the_others_are_kept_and_end_too(tmp_path: Path) -> None:
    """By kill -9, of which nobody is told, or by a signal that it hands on: the warning of a batch system."""
    small = ["net.width=16", "net.blocks=1", "train.batch=8", "--device", "cpu", "--gpus", "2", "--steps", "100000"]
    for number in (signal.SIGUSR1, signal.SIGKILL):
        runs = tmp_path / number.name
        command = [sys.executable, "-m", "pellucid", "train", "moons", *small, "--runs", str(runs)]
        many = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        record, deadline = runs / "moons" / "metrics.jsonl", time.monotonic() + 100
        while not (record.exists() and record.stat().st_size) and many.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)  # until the 50th step is in the record
        many.send_signal(number)
        assert many.wait(60) == (75 if number == signal.SIGUSR1 else -number)
        while checkpoint.number(checkpoint.folders(record.parent)[0]) < 50 and time.monotonic() < deadline:
            time.sleep(0.1)
        with files.alone(record.parent):  # nobody is at work there any more
            assert checkpoint.number(checkpoint.folders(record.parent)[0]) >= 50


def test_more_processes_than_graphics_cards_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "moons", "--steps", "1", "--gpus", "4096"])
    assert ended.value.code == 2 and "with --device cpu" in capsys.readouterr().err
