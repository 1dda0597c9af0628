"""Drawings: what was asked of a trained run, carried out, and kept inside every PNG so that it can be drawn again.

The few numbers of a drawing are the PNG's text chunk `pellucid`, as JSON; its chunk `parameters` says the same in the
words that other programs read.
"""

from .order import Drawing
from .shown import check, check_shown, is_picture, is_shown, usual
from .source import find, fingerprint, labels, names, of_png, of_run

__all__ = [
    "Drawing",
    "check",
    "check_shown",
    "find",
    "fingerprint",
    "is_picture",
    "is_shown",
    "labels",
    "names",
    "of_png",
    "of_run",
    "usual",
]
