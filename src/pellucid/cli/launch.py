"""Many processes from one command: `pellucid train --gpus 4` is torchrun, and each of the four is the same command."""

import ctypes
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import PellucidError

if TYPE_CHECKING:
    from ..world import World
PR_SET_PDEATHSIG = 1


def launch(count: int, on: str | None, given: Sequence[str]) -> NoReturn:
    """Run the command `given` in so many processes, each with a graphics card of its own; exit with their code."""
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    from ..training.signals import NUMBERS

    cards = torch.cuda.device_count()
    if on != "cpu" and cards < count:
        asked = f"--gpus is {count}, and this machine has {cards}"
        raise PellucidError(f"{asked}; ask for fewer, or with --device cpu for so many processes on the CPU.")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes speak for themselves
    told = ",".join(number.name for number in NUMBERS)
    try:
        main(["--standalone", f"--nproc-per-node={count}", f"--signals-to-handle={told}", "-m", "pellucid", *given])
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        sys.exit(code if code >= 0 else 128 - code)
    except SignalException:
        sys.exit(75)
    sys.exit(0)


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    size = os.environ.get("WORLD_SIZE")
    return "RANK" in os.environ and size is not None and ("LOCAL_RANK" in os.environ or size != "1")


def follow() -> None:
    """From here on the end of the launcher, however it comes, tells this process to stop."""
    if is_launched() and sys.platform == "linux":
        from ..training.signals import ENDED

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ENDED)


@contextmanager
def logged(world: "World", folder: Path) -> Iterator[None]:
    """Inside, the first process speaks on the terminal, and each of the others in a log of the run."""
    if world.leads:
        yield
        return
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with open(logs / f"rank_{world.rank}.log", "a", buffering=1, encoding="utf-8") as log, redirect_stderr(log):
        yield
