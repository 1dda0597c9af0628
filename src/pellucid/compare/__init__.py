"""Systems side by side: one data set, one network, one budget, one table."""

from .entrant import Drawn, Entrant, entrants
from .row import REAL, Row, agree, bits, grids, keep, measure, read, real
from .table import document, markdown, page

__all__ = [
    "REAL",
    "Drawn",
    "Entrant",
    "Row",
    "agree",
    "bits",
    "document",
    "entrants",
    "grids",
    "keep",
    "markdown",
    "measure",
    "page",
    "read",
    "real",
]
