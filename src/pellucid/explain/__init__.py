"""Explain: a model's own account, in numbers and pictures.

explain(Subject(model, data, objective, step=...), out) writes pictures, numbers.json and one page, report.html.
"""

from .story import explain
from .subject import Subject

__all__ = ["Subject", "explain"]
