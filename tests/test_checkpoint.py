"""A checkpoint is whole or absent, and what is damaged is never loaded."""

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from pellucid import PellucidError, checkpoint, nets
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


def files(run: Path) -> list[str]:
    newest = checkpoint.folders(run)[0]
    return sorted(p.name for p in newest.iterdir())


@pytest.mark.parametrize("name", ["ema.safetensors", "model.safetensors", "manifest.json"])
def test_every_truncation_and_flip_is_seen(run: Path, name: str) -> None:
    """Damage anywhere: the newest checkpoint is refused, the one before is taken, with a warning."""
    newest = checkpoint.folders(run)[0]
    whole = (newest / name).read_bytes()
    g = torch.Generator().manual_seed(0)
    cuts = torch.randint(0, len(whole), (16,), generator=g).tolist()
    flips = torch.randint(0, len(whole), (32,), generator=g).tolist() if name != "manifest.json" else []
    damaged = [whole[:cut] for cut in cuts]
    damaged += [whole[:i] + bytes([whole[i] ^ 1 << (i % 8)]) + whole[i + 1 :] for i in flips]
    for data in damaged:
        (newest / name).write_bytes(data)
        with pytest.raises(PellucidError, match="damaged"):
            checkpoint.open_(newest)
        with pytest.warns(UserWarning, match="step_0000001 was taken instead"):
            assert checkpoint.latest(run).meta["step"] == 1


def test_a_missing_file_is_damage(run: Path) -> None:
    (checkpoint.folders(run)[0] / "ema.safetensors").unlink()
    with pytest.raises(PellucidError, match="damaged"):
        checkpoint.open_(checkpoint.folders(run)[0])


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failing_disk_leaves_the_last_checkpoint(run: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the n-th write, flush or rename, for every n: the run still loads, and nothing is left behind."""
    model = Denoiser(nets.MLP((2,), width=16, blocks=1))
    state = {"model": model.state_dict(), "ema": model.state_dict()}
    target = run / "checkpoints" / "step_0000003"
    for n in range(1, 8):
        calls = 0

        def failing(original):  # type: ignore[no-untyped-def]
            def fail(*args, **kwargs):  # type: ignore[no-untyped-def]
                nonlocal calls
                calls += 1
                if calls == n:  # noqa: B023
                    raise OSError(28, "No space left on device")
                return original(*args, **kwargs)

            return fail

        with monkeypatch.context() as patch:
            if call == "write":
                patch.setattr(checkpoint, "_write", failing(checkpoint._write))
            elif call == "fsync":
                patch.setattr(os, "fsync", failing(os.fsync))
            else:
                patch.setattr(Path, "rename", failing(Path.rename))
            try:
                checkpoint.save(target, state, {"step": 3, "config": model.config()})
                failed = False
            except OSError:
                failed = True
        assert failed == (calls >= n)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert checkpoint.latest(run).meta["step"] in (2, 3)
        assert not [p for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]
        shutil.rmtree(target, ignore_errors=True)
        if not failed:
            break
    else:
        pytest.fail("the last call was never reached")


def test_bad_runs_are_sentences(tmp_path: Path, run: Path) -> None:
    with pytest.raises(PellucidError, match="there is no run at"):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PellucidError, match="holds no checkpoint"):
        checkpoint.load(tmp_path / "empty")
    newest = checkpoint.folders(run)[0]
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
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
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(PellucidError, match="damaged|does not hold the model"):
        checkpoint.load(manifest.parent)
    manifest.write_text("[" * 100_000)
    with pytest.raises(PellucidError, match="damaged"):
        checkpoint.open_(manifest.parent)
