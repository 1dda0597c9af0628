"""Guidance: from a model to a model. Scale 1 is the conditional model, 0 the unconditional one, everywhere."""

from .linear import CFG

__all__ = ["CFG"]
