"""Moving averages of a model's weights, and averages of any length made afterwards from stored snapshots."""

from .averages import EMA, Average, Fixed, Power, Warm, registry
from .posthoc import Snapshot, TooFar, forget, posthoc, shares, snapshots, store

__all__ = [
    "EMA",
    "Average",
    "Fixed",
    "Power",
    "Snapshot",
    "TooFar",
    "Warm",
    "forget",
    "posthoc",
    "registry",
    "shares",
    "snapshots",
    "store",
]
