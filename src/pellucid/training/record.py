"""The record of a run: metrics.jsonl, one JSON object a line.

    {"step": 50, "loss": ..., "grad": ..., "lr": ...}            every so often; the loss is the mean since the last
    {"step": 51, "fault": "the loss is nan", "samples": [...]}   a bad step, with the samples that are suspected

A line is written by one call, and a checkpoint says how long the file was: what a killed run wrote after it is cut off
when the run goes on, and written again. So the file is what it would have been.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from .. import files


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row with None for what is no number, which JSON has no word for."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


class Record:
    """The file, and the losses since its last row of them. Without a path nothing is written: another process does."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.total, self.count = 0.0, 0

    def __bool__(self) -> bool:
        return bool(self.path and self.path.exists() and self.path.stat().st_size > 0)

    def hear(self, loss: float) -> None:
        """The loss of a sound step."""
        self.total, self.count = self.total + loss, self.count + 1

    def mean(self) -> float | None:
        """Of the losses since it was last asked."""
        mean = self.total / self.count if self.count else None
        self.total, self.count = 0.0, 0
        return mean

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

    def mark(self) -> dict[str, Any]:
        """How far it is, as plain data; all of it is on the disk by then."""
        size = 0
        if self.path and self.path.exists():
            files.flush(self.path)
            size = self.path.stat().st_size
        return {"bytes": size, "total": self.total, "count": self.count}

    def resume(self, mark: dict[str, Any], cut: bool = False) -> None:
        """The losses as they were when a mark was made. cut: and no rows since."""
        self.total, self.count = float(mark.get("total", 0)), int(mark.get("count", 0))
        if cut and self.path and self.path.exists() and self.path.stat().st_size > mark.get("bytes", math.inf):
            os.truncate(self.path, int(mark["bytes"]))
