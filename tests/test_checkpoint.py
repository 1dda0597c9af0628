"""A checkpoint is whole or absent, and what is damaged is never loaded."""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from pellucid import PellucidError, checkpoint, files, nets
from pellucid.denoiser import Denoiser, seeded


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two checkpoints of a small model."""
    for step in (1, 2):
        with seeded(step):
            model = Denoiser(nets.MLP((2,), width=16, blocks=1))
        tensors = {"model": model.state_dict(), "ema": model.state_dict()}
        folder = tmp_path / "run" / "checkpoints" / f"step_{step:07d}"
        checkpoint.save(folder, tensors, {"step": step, "config": model.config()})
    return tmp_path / "run"


def test_what_is_saved_is_loaded(run: Path) -> None:
    with seeded(2):
        model = Denoiser(nets.MLP((2,), width=16, blocks=1))
    loaded = checkpoint.load(run)
    assert loaded.config() == model.config()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not [p for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["ema.safetensors", "model.safetensors", "manifest.json"])
def test_every_truncation_and_flip_is_seen(run: Path, name: str) -> None:
    """Damage at 64 lengths and to 256 bits: the newest checkpoint is refused, the one before is taken."""
    newest = checkpoint.folders(run)[0]
    whole = (newest / name).read_bytes()
    g = torch.Generator().manual_seed(0)
    cuts = torch.randint(0, len(whole), (64,), generator=g).tolist()
    flips = torch.randint(0, 8 * len(whole), (256,), generator=g).tolist()
    damaged = [whole[:cut] for cut in cuts]
    damaged += [whole[: i // 8] + bytes([whole[i // 8] ^ 1 << (i % 8)]) + whole[i // 8 + 1 :] for i in flips]
    for data in damaged:
        (newest / name).write_bytes(data)
        assert not checkpoint.verifies(newest)
        with pytest.raises(PellucidError, match="damaged|update pellucid"):
            checkpoint.open_(newest)
    with pytest.warns(UserWarning, match="step_0000001 was taken instead") as said:
        assert checkpoint.latest(run).meta["step"] == 1
    assert len(said) == 1


def test_where_nothing_is_whole_all_that_is_damaged_is_named(run: Path) -> None:
    for folder in checkpoint.folders(run):
        (folder / "ema.safetensors").write_bytes(b"")
    with pytest.raises(PellucidError, match="step_0000002 is damaged .*; .*step_0000001 is damaged .*put one back"):
        checkpoint.latest(run)


def test_damage_is_told_once(run: Path) -> None:
    code = f"""
import pathlib, warnings, pellucid
warnings.showwarning = lambda message, *_: print(message)
for i in range(3):
    pellucid.checkpoint.latest(pathlib.Path({str(run)!r}))
"""
    (checkpoint.folders(run)[0] / "ema.safetensors").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("was taken instead") == 1


def test_a_missing_file_is_damage(run: Path) -> None:
    (checkpoint.folders(run)[0] / "ema.safetensors").unlink()
    with pytest.raises(PellucidError, match="damaged"):
        checkpoint.open_(checkpoint.folders(run)[0])


CALLS = [(os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "open"), (os, "rmdir"), (Path, "write_bytes")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize(("home", "call"), CALLS, ids=[name for _, name in CALLS])
@pytest.mark.parametrize("step", [2, 3], ids=["over", "new"])
def test_a_failing_disk_leaves_the_last_checkpoint(
    run: Path, home: object, call: str, code: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail the n-th call of each kind, for every n, in a save beside or over another: the run loads as before or after.

    Nothing half done is seen, and where the failure is not in removing itself, nothing is left.
    """
    model = Denoiser(nets.MLP((2,), width=16, blocks=1))
    state = {"model": model.state_dict(), "ema": model.state_dict()}
    target, original = run / "checkpoints" / f"step_{step:07d}", getattr(home, call)
    before, n, failed = tree(run), 0, True
    while failed:
        n, calls, failed = n + 1, 0, False

        def fail(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == n:  # noqa: B023
                where = [path for path in arguments if isinstance(path, Path)]
                raise OSError(code, os.strerror(code), *where[:1])
            return original(*arguments, **options)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(home, call, fail)
            try:
                checkpoint.save(target, state, {"step": 10, "config": model.config()})
                checkpoint.prune(run, 2)
            except OSError as error:
                failed = True
                assert error.errno == code and error.filename
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert checkpoint.latest(run).meta["step"] in (2, 10)
        assert all(checkpoint.verifies(folder) for folder in checkpoint.folders(run))
        assert len(checkpoint.folders(run)) >= 2
        if call != "rmdir" and checkpoint.latest(run).meta["step"] == 2:
            assert tree(run) == before
        checkpoint.mend(run)
        assert not [p for p in (run / "checkpoints").iterdir() if not p.name.removeprefix("step_").isdecimal()]
        restore(run, before)
    assert n > 1


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def restore(folder: Path, files: dict[Path, bytes]) -> None:
    shutil.rmtree(folder)
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_a_kill_while_one_takes_the_place_of_another_loses_neither(run: Path) -> None:
    newest = checkpoint.folders(run)[0]
    newest.rename(newest.with_name(newest.name + ".old"))  # moved aside, the new one not yet there
    (run / "checkpoints" / ".partial-step_0000002-1").mkdir()
    assert checkpoint.latest(run).meta["step"] == 2
    checkpoint.mend(run)
    assert [p.name for p in checkpoint.folders(run)] == ["step_0000002", "step_0000001"]
    assert len(list((run / "checkpoints").iterdir())) == 2
    shutil.copytree(newest, newest.with_name(newest.name + ".old"))  # the new one there, the old one not yet gone
    checkpoint.mend(run)
    assert [p.name for p in checkpoint.folders(run)] == ["step_0000002", "step_0000001"]
    shutil.copytree(newest, newest.with_name(newest.name + ".old"))
    (newest / "ema.safetensors").write_bytes(b"")
    checkpoint.mend(run)
    assert all(checkpoint.verifies(folder) for folder in checkpoint.folders(run))


def test_what_is_pruned_is_older_than_enough_that_verify(run: Path) -> None:
    for step in (5, 10_000_000, 9_999_999):
        found = checkpoint.open_(checkpoint.folders(run)[-1])
        meta = {**found.meta, "step": step, "good": step < 10}
        checkpoint.save(run / "checkpoints" / f"step_{step:07d}", found.tensors, meta)
    steps = [checkpoint.number(folder) for folder in checkpoint.folders(run)]
    assert steps == [10_000_000, 9_999_999, 5, 2, 1]
    (checkpoint.folders(run)[0] / "ema.safetensors").write_bytes(b"")
    checkpoint.prune(run, 2)
    assert [checkpoint.number(folder) for folder in checkpoint.folders(run)] == steps[:3]
    assert checkpoint.latest(run, good=True).meta["step"] == 5
    (checkpoint.folders(run)[2] / "ema.safetensors").write_bytes(b"")
    checkpoint.prune(run, 2)
    assert len(checkpoint.folders(run)) == 3  # one verifies, none may go


def test_files_have_the_modes_that_the_user_wants(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            with files.whole(tmp_path / f"{mask}" / "file") as place:
                place.write_text("x")
            folder = checkpoint.save(tmp_path / f"{mask}" / "step_1", {"ema": {}}, {})
        finally:
            os.umask(before)
        assert {p.stat().st_mode & 0o777 for p in (tmp_path / f"{mask}").rglob("*") if p.is_file()} == {mode}
        assert folder.stat().st_mode & 0o777 == mode | (mode & 0o444) >> 2


def test_bad_runs_are_sentences(tmp_path: Path, run: Path) -> None:
    with pytest.raises(PellucidError, match="there is no run at"):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PellucidError, match="holds no checkpoint"):
        checkpoint.load(tmp_path / "empty")
    newest = checkpoint.folders(run)[0]
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_bytes(files.seal({**manifest, "format": 99}))
    with pytest.raises(PellucidError, match="update pellucid"):
        checkpoint.open_(newest)


def test_optimizer_state_survives_as_tensors() -> None:
    """The next step after a round trip is the same step."""
    models = []
    for restored in (False, True):
        with seeded(0):
            model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for i in range(4):
            if i == 2 and restored:
                flat = checkpoint.flatten_optimizer(optimizer)
                optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
                checkpoint.restore_optimizer(optimizer, flat)
            optimizer.zero_grad()
            model(torch.full((1, 3), 1.0 + i)).square().sum().backward()
            optimizer.step()
        models.append(model)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"config": 3},
        {"step": "abc"},
        {"classes": 3},
        {"files": []},
        {"config": {"shape": [-1], "conditioner": {}}},
        {"config": {"shape": [2], "conditioner": {"name": "none"}, "net": {"name": "mlp"}, "path": [[]]}},
    ],
)
def test_a_hostile_manifest_is_a_sentence(run: Path, change: dict[str, object]) -> None:
    manifest = checkpoint.folders(run)[0] / "manifest.json"
    manifest.write_bytes(files.seal({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(PellucidError, match="damaged|does not hold the model"):
        checkpoint.load(manifest.parent)
    manifest.write_text("[" * 100_000)
    with pytest.raises(PellucidError, match="damaged"):
        checkpoint.open_(manifest.parent)
