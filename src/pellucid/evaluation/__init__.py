"""Evaluation: numbers that one can believe, of samples against held-out data.

evaluate(samples, data, eyes) gives every metric an interval and a floor; a Record of it is written, read and compared.
"""

from .evaluate import LEAST, Evaluation, check, comparable, evaluate
from .record import Difference, Pair, Record, Row, compare

__all__ = ["LEAST", "Difference", "Evaluation", "Pair", "Record", "Row", "check", "comparable", "compare", "evaluate"]
