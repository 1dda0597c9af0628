"""Signals: a run that is told to stop keeps what it has after the step that it is at, and ends with exit code 75.

75 is EX_TEMPFAIL of sysexits.h: not finished, and the same command goes on. A second signal meets no handler of ours:
it ends the process at once, which costs what was learnt since the last checkpoint.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
ENDED = getattr(signal, "SIGUSR2", signal.SIGTERM)
"""What the end of a launcher says: perhaps more than once, as each of its threads may end for itself."""


class Stopped(SystemExit):
    """A run was told to stop, and has been kept. Uncaught, it ends the process with code 75.

    sentence    what happened, for people
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(75)
        self.sentence = sentence


class Told(BaseException):
    """Raised in the midst of work that may be dropped."""


class Ear:
    """What has been heard: the name of the signal that says stop, or None."""

    def __init__(self) -> None:
        self.heard: str | None = None
        self.numbers: list[int] = []
        self._drops = False

    def drop(self, work: Callable[[], T]) -> T | None:
        """What comes of work that is dropped where it stands when a signal comes: then nothing."""
        try:
            try:
                self._drops = True
                return work()
            finally:
                self._drops = False
        except Told:
            return None

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        first, self.heard = self.heard is None, signal.Signals(number).name
        for other in self.numbers if number != ENDED else ():
            signal.signal(other, signal.SIG_DFL)
        if first and self._drops:
            raise Told


@contextmanager
def listening() -> Iterator[Ear]:
    """Inside, signals that say stop are heard, where they can be: in the main thread. One that is ignored stays so."""
    ear, before = Ear(), {}
    if threading.current_thread() is threading.main_thread():
        before = {n: handler for n in {*NUMBERS, ENDED} if (handler := signal.getsignal(n)) is not signal.SIG_IGN}
    ear.numbers = list(before)
    try:
        for number in before:
            signal.signal(number, ear.hear)
        yield ear
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
