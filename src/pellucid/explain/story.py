"""The whole account, in the order in which it is told."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from .. import __version__
from ..files import whole_folder
from . import anatomy, curves, diagnosis, forward, ledger, levels, report, spectrum, steps, style, trajectory, weights
from .chapter import Chapter, Picture
from .subject import Subject

Tell = Callable[[Subject], Chapter | None]
STORY: tuple[Tell, ...] = (
    trajectory.tell,
    anatomy.tell,
    forward.tell,
    curves.tell,
    weights.tell,
    levels.tell,
    diagnosis.tell,
    steps.tell,
    ledger.tell,
    spectrum.tell,
)
"""To add a chapter, write its `tell` and put it here; one that does not apply to a subject returns None."""


@torch.no_grad()
def explain(subject: Subject, out: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write the account of a subject into the folder `out`: pictures, numbers.json and report.html.

    Returns the path of the page. Nothing is written before everything is done.
    progress: called with (chapters finished, chapters).
    """
    style.need()
    chapters = []
    for i, tell in enumerate(STORY):
        if chapter := tell(subject):
            chapters.append(chapter)
        if progress:
            progress(i + 1, len(STORY))
    numbers = {"pellucid": __version__, "name": subject.name, "step": subject.step, "seed": subject.seed}
    numbers |= {chapter.key: chapter.numbers for chapter in chapters}
    with whole_folder(out) as folder:
        for picture in (part for chapter in chapters for part in chapter.blocks if isinstance(part, Picture)):
            for kind, data in picture.files.items():
                (folder / f"{picture.name}.{kind}").write_bytes(data)
        (folder / "numbers.json").write_text(json.dumps(report.plain(numbers), indent=1, allow_nan=False), "utf-8")
        (folder / "report.html").write_text(report.page(subject, chapters), "utf-8")
    return out / "report.html"
