"""Trackers: the record of a run, told to the programs in which people watch theirs. Each is imported when asked for.

A row of the record is its numbers by name; what is there by level becomes  by_level/+1.5  and so on, by lam.
"""

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from ..errors import PellucidError
from ..registry import Registry

registry: "Registry[Tracker]" = Registry("tracker")


class Journal(ABC):
    """A run as a tracker keeps it."""

    @abstractmethod
    def row(self, row: Mapping[str, Any]) -> None:
        """A row of the record."""

    @abstractmethod
    def picture(self, path: Path, step: int) -> None:
        """A sheet of samples, in a file."""

    @abstractmethod
    def close(self) -> None:
        """No more will come."""


class Journals(Journal):
    """Several as one, by name; or none. One that fails is left out from there on: a run outlives who looks on."""

    def __init__(self, kept: Mapping[str, Journal]) -> None:
        self.kept = dict(kept)

    def _tell(self, word: Callable[[Journal], None]) -> None:
        for name, journal in list(self.kept.items()):
            try:
                word(journal)
            except Exception as error:  # a stranger's, of any kind
                del self.kept[name]
                warnings.warn(f"{name} fails ({_why(error)}); the run goes on without it.", stacklevel=2)

    def row(self, row: Mapping[str, Any]) -> None:
        self._tell(lambda journal: journal.row(row))

    def picture(self, path: Path, step: int) -> None:
        self._tell(lambda journal: journal.picture(path, step))

    def close(self) -> None:
        self._tell(lambda journal: journal.close())


class Tracker(ABC):
    """A program that keeps journals. To add one, write a frozen dataclass and register it."""

    module: ClassVar[str]

    @abstractmethod
    def open(self, folder: Path, settings: Mapping[str, Any]) -> Journal:
        """The journal of the run in `folder`, trained by these settings; it goes on if there is one."""


def needed(name: str) -> Any:
    """A module, or the sentence that says what to install."""
    try:
        return import_module(name)
    except ImportError as error:
        reason = str(error).rstrip(".")
        raise PellucidError(f"{name} cannot be imported ({reason}); run pip install 'pellucid[tracking]'.") from None


def opened(tracker: Tracker, folder: Path, settings: Mapping[str, Any]) -> Journal:
    """A tracker's journal of the run in `folder`, or the sentence that says why it keeps none."""
    try:
        return tracker.open(folder, settings)
    except PellucidError:
        raise
    except Exception as error:  # a stranger's, of any kind
        why = f"{tracker.module} cannot keep this run ({_why(error)})"
        raise PellucidError(f"{why}; mend that, or leave it out of train.track.") from None


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")


def identity(folder: Path) -> str:
    """A run's name, and a mark of where it lies: another run of that name is another run."""
    return f"{folder.name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


def numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What is a number in a row, by name."""
    for name, value in row.items():
        if isinstance(value, list) and name == "by_level":
            yield from ((f"by_level/{lam:+.2f}", loss) for lam, loss in value if loss is not None)
        elif isinstance(value, int | float) and name not in ("step", "time"):
            yield name, float(value)


@registry.register("tensorboard")
@dataclass(frozen=True)
class TensorBoard(Tracker):
    """Files in the run's folder, under tensorboard/."""

    module = "tensorboard"

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Journal:
        needed(self.module)
        return Board(needed("torch.utils.tensorboard").SummaryWriter(str(folder / "tensorboard")))


@dataclass(frozen=True)
class Board(Journal):
    """TensorBoard's writer."""

    writer: Any

    def row(self, row: Mapping[str, Any]) -> None:
        for name, value in numbers(row):
            self.writer.add_scalar(name, value, row["step"])

    def picture(self, path: Path, step: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self.writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


@registry.register("wandb", "weights-and-biases")
@dataclass(frozen=True)
class Wandb(Tracker):
    """Weights & Biases: a run of this project, gone on with by its name."""

    module = "wandb"
    project: str = "pellucid"

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Journal:
        module = needed(self.module)
        own = {"project": self.project, "name": folder.name, "id": identity(folder), "resume": "allow"}
        run = module.init(**own, config=dict(settings), dir=str(folder))
        run.define_metric("*", step_metric="step")
        return Online(module, run)


@registry.register("trackio")
@dataclass(frozen=True)
class Trackio(Tracker):
    """Trackio: a run of this project on this machine, gone on with by its name."""

    module = "trackio"
    project: str = "pellucid"

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Journal:
        module = needed(self.module)
        run = module.init(project=self.project, name=identity(folder), config=dict(settings), resume="allow")
        return Stepped(module, run)


@dataclass(frozen=True)
class Online(Journal):
    """A run of Weights & Biases: the step is a number like others, and may fall when a run rolls back."""

    module: Any
    run: Any

    def row(self, row: Mapping[str, Any]) -> None:
        self.log(dict(numbers(row)), row["step"])

    def picture(self, path: Path, step: int) -> None:
        self.log({"samples": self.module.Image(str(path))}, step)

    def log(self, said: dict[str, Any], step: int) -> None:
        """Tell some values at a step."""
        self.run.log({**said, "step": step})

    def close(self) -> None:
        self.run.finish()


@dataclass(frozen=True)
class Stepped(Online):
    """A run of Trackio, which speaks the same language, but keeps the step apart."""

    def log(self, said: dict[str, Any], step: int) -> None:
        self.run.log(said, step=step)
