"""A warm parent that forks trainings and kills them: `python tests/killer.py FOLDER kills=200 signals=50` tells how.

Not a part of the test process, where torch has computed gradients already and must not be forked.
"""

import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pellucid import checkpoint, conditioning, nets, oracle
from pellucid.data import Dataset, Split
from pellucid.denoiser import Denoiser, seeded
from pellucid.training import Learner, Plan, Run

PLAN = Plan(steps=24, batch=12, lr=1e-2, warmup=3, ema=0.9)
CALLS = [(os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (Path, "write_bytes")]
"""All by which a checkpoint comes and goes."""


def points(n: int = 50) -> Dataset:
    x = oracle.GaussianMixture.random(4, 2, seed=3).sample(n, seed=1).float()
    return Dataset("points", Split(x, (x[:, 0] > 0).long(), None), None, ("left", "right"), ())


def model() -> Denoiser:
    """Of 5000 numbers."""
    with seeded(0):
        label = conditioning.registry.make({"name": "label", "classes": 2, "width": 8})
        return Denoiser(nets.MLP((2,), 8, width=32, blocks=1), conditioner=label)


def train(folder: Path, say: Callable[..., None]) -> None:
    """One life of a run: it says what it has done, so that nothing it said can be lost."""
    save = checkpoint.save

    def saved(target: Path, *state: Any) -> Path:
        save(target, *state)
        say(saved=checkpoint.number(target))
        return target

    sys.modules["pellucid.training.run"].save = saved  # type: ignore[attr-defined]
    for progress in Run(folder, save_every=3, log_every=2).fit(Learner(model(), points(), PLAN)):
        say(step=progress.step)


@dataclass
class Life:
    """A forked training: what it said, how it ended, and when."""

    said: dict[str, int]
    status: int
    seconds: float


def live(folder: Path, before: Callable[[], None], end: Callable[[int, dict[str, int]], None]) -> Life:
    """Fork a training. `before` runs in the child first; `end(pid, said)` may end it, once it has begun."""
    ear, mouth = os.pipe()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.close(ear)
            before()
            train(folder, lambda **words: os.write(mouth, (json.dumps(words) + "\n").encode()))
            code = 0
        except SystemExit as stop:
            code = int(str(stop.code))
        finally:
            os._exit(code)
    os.close(mouth)
    said: dict[str, int] = {}
    listen(ear, said, lambda: bool(said))
    end(pid, said)
    told = time.monotonic()
    listen(ear, said, lambda: False)
    os.close(ear)
    _, status = os.waitpid(pid, 0)
    return Life(said, os.waitstatus_to_exitcode(status), time.monotonic() - told)


def listen(ear: int, said: dict[str, int], enough: Callable[[], bool]) -> None:
    """Read until the child has said enough, or no more can come."""
    rest = b""
    while not enough():
        select.select([ear], [], [])
        data = os.read(ear, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            said.update(json.loads(line))


def digest(folder: Path) -> str:
    return str(checkpoint.latest(folder).meta["files"]["ema.safetensors"])


def kills(root: Path, count: int) -> dict[str, Any]:
    """kill -9: every other one at a random time, the others inside a save, at a call or half way through a write."""
    chance = random.Random(count)
    began = time.monotonic()
    live(root / "whole", lambda: None, lambda pid, said: None)
    lasts, whole = time.monotonic() - began, digest(root / "whole")
    figures = {"kills": 0, "inside": 0, "lost": 0, "unreadable": 0, "torn": 0, "runs": 0, "different": 0}
    while figures["kills"] < count:
        folder, kept, code = root / f"run-{figures['runs']}", -1, -1
        while code:
            inside = figures["kills"] % 2 == 1
            at = chance.randrange(100)
            life = live(
                folder,
                (lambda at=at: trap(at, chance.random() < 0.5)) if inside else lambda: None,
                lambda pid, said: None if inside else later(pid, chance.random() * lasts),  # noqa: B023
            )
            code = life.status
            assert code in (0, -signal.SIGKILL), code
            figures["kills"] += bool(code)
            figures["inside"] += bool(code) and inside
            kept = max(kept, life.said.get("saved", -1))
            found = checkpoint.folders(folder)
            figures["unreadable"] += sum(not checkpoint.verifies(each) for each in found)
            newest = checkpoint.latest(folder).meta["step"] if found else -1  # none, in its first save
            figures["lost"] += newest < kept
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        figures["torn"] += [row["step"] for row in rows] != list(range(2, PLAN.steps + 1, 2))
        figures["different"] += digest(folder) != whole
        figures["litter"] = figures.get("litter", 0) + len(list((folder / "checkpoints").glob(".*")))
        figures["runs"] += 1
        shutil.rmtree(folder)
    return figures


def later(pid: int, seconds: float, number: int = signal.SIGKILL) -> None:
    time.sleep(seconds)
    os.kill(pid, number)


def trap(at: int, halfway: bool) -> None:
    """From now on the `at`-th call that touches the disk is the last; of a write, a half is done."""
    calls = 0

    def trapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                if halfway and original is Path.__dict__["_write"]:
                    original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    Path._write = Path.write_bytes  # type: ignore[attr-defined]
    for home, name in CALLS:
        setattr(home, name, trapped(getattr(home, name)))


def signals(root: Path, count: int) -> dict[str, Any]:
    """A signal at a random time: exit code 75, all steps kept, and the run goes on to the same end."""
    chance = random.Random(count)
    began = time.monotonic()
    live(root / "whole", lambda: None, lambda pid, said: None)
    lasts, whole = time.monotonic() - began, digest(root / "whole")
    figures: dict[str, Any] = {"signals": 0, "not 75": 0, "steps lost": 0, "slowest": 0.0, "runs": 0, "different": 0}
    impatient = live(root / "twice", asleep, twice)
    figures["at once"] = impatient.status == -signal.SIGINT and impatient.seconds < 5
    while figures["signals"] < count:
        folder, code = root / f"run-{figures['runs']}", 75
        while code:
            number = chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
            life = live(folder, lambda: None, lambda pid, said: later(pid, chance.random() * lasts, number))  # noqa: B023
            code = life.status
            figures["signals"] += bool(code)
            ended = life.said.get("saved") == PLAN.steps  # and nobody listens any more
            figures["not 75"] += code not in (0, 75) and not ended
            figures["steps lost"] += checkpoint.latest(folder).meta["step"] < life.said.get("step", 0)
            figures["slowest"] = max(figures["slowest"], life.seconds if code else 0.0)
        figures["different"] += digest(folder) != whole
        figures["runs"] += 1
        shutil.rmtree(folder)
    return figures


def asleep() -> None:
    """From now on a gradient takes a minute."""
    gradient = Learner.gradient
    Learner.gradient = lambda *arguments: time.sleep(60) or gradient(*arguments)  # type: ignore[method-assign]


def twice(pid: int, said: dict[str, int]) -> None:
    later(pid, 0.3, signal.SIGTERM)
    later(pid, 0.3, signal.SIGINT)


def memory(root: Path, count: int) -> dict[str, Any]:
    """A batch that does not fit is split, and its gradient is that of the whole."""
    plan = Plan(steps=1, batch=count, warmup=1)
    roomy, tight = (Learner(awake(model()), points(), plan) for _ in range(2))
    roomy.gradient(roomy.lesson(0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    lesson = tight.lesson(0)
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 20), resource.RLIM_INFINITY))
    tight.gradient(lesson)
    whole, split = gradient(roomy.model), gradient(tight.model)
    return {"parts": tight.parts, "apart": ((whole - split).norm() / whole.norm()).item()}


def gradient(model: Denoiser) -> torch.Tensor:
    """All of it, as one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def awake(model: Denoiser) -> Denoiser:
    """The same with no weight at zero, so that every weight has a gradient."""
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    Learner(model(), points(), PLAN)  # what torch opens late is open now, and each child has it
    modes, found = {"kills": kills, "signals": signals, "memory": memory}, {}
    for word in sys.argv[2:]:
        mode, count = word.split("=")
        found[mode] = modes[mode](Path(sys.argv[1]) / mode, int(count))
    print(json.dumps(found))
