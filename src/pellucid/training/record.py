"""The record of a run: metrics.jsonl, one JSON object a line.

    {"step": 50, "loss": ..., "grad": ..., "lr": ...}                           losses are means since the last
    {"step": 1000, "held_out": ..., "excess": ...}                              what they are worth (see watch.py)
    {"step": 51, "fault": "the loss is nan", "rows": [...], "levels": [...]}    a bad step: who is suspected, and where

A line is written by one call, and a checkpoint says how long the file was: what a killed run wrote after it is cut off
when the run goes on, and written again. So the file is what it would have been.
"""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import files
from .trackers import Journal, Journals
from .watch import LEVELS


def plain(value: Any) -> Any:
    """Plain data with None for what is no number, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Record:
    """The file, the journal that hears each row, and the losses since the last row of them. Without a path nothing is
    written: another process does."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.journal: Journal = Journals({})
        self.looked = -1  # the last step at which it was said what the losses are worth
        self._forget()

    def __bool__(self) -> bool:
        return bool(self.path and self.path.exists() and self.path.stat().st_size > 0)

    def _forget(self) -> None:
        self.total, self.count = 0.0, 0
        self.sums, self.counts = [0.0] * LEVELS, [0] * LEVELS

    def hear(self, loss: float, sums: Sequence[float], counts: Sequence[int]) -> None:
        """The loss of a sound step, and the sums and numbers of its samples' losses by level."""
        self.total, self.count = self.total + loss, self.count + 1
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)]
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]

    def means(self, lams: Sequence[float]) -> dict[str, Any]:
        """Of the losses since it was last asked: of all, and by level, each at its lam."""
        each = [a / n if n else None for a, n in zip(self.sums, self.counts, strict=True)]
        loss = self.total / self.count if self.count else None
        self._forget()
        return {"loss": loss, "by_level": [list(pair) for pair in zip(lams, each, strict=True)]}

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        if self.path is None:
            return
        line = json.dumps({**plain(row), "time": time.time()}).encode() + b"\n"
        try:
            with open(self.path, "ab") as file:
                file.write(line)
        except OSError as error:  # of a write, which does not know its file
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self.journal.row(plain(row))

    def look(self, step: int, said: dict[str, float]) -> None:
        """Add what the losses are worth at a step."""
        self.write({"step": step, **said})
        self.looked = step

    def mark(self) -> dict[str, Any]:
        """How far it is, as plain data; all of it is on the disk by then."""
        size = 0
        if self.path and self.path.exists():
            files.flush(self.path)
            size = self.path.stat().st_size
        sums = {"total": self.total, "count": self.count, "sums": self.sums, "counts": self.counts}
        return {"bytes": size, "looked": self.looked, **sums}

    def resume(self, mark: dict[str, Any], cut: bool = False) -> None:
        """The losses as they were when a mark was made. cut: and no rows since."""
        self._forget()
        self.looked = int(mark.get("looked", -1))
        self.total, self.count = float(mark.get("total", 0)), int(mark.get("count", 0))
        self.sums, self.counts = list(mark.get("sums", self.sums)), list(mark.get("counts", self.counts))
        if cut and self.path and self.path.exists() and self.path.stat().st_size > mark.get("bytes", math.inf):
            os.truncate(self.path, int(mark["bytes"]))
