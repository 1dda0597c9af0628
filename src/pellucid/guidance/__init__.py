"""Guidance: a function from model to model. Guidances compose, and a sampler never hears of them."""

from .gradient import Classifier
from .ledger import Ledger
from .linear import CFG, Autoguidance, CFGPlusPlus
from .project import APG, Clip, Threshold
from .rule import Guided, Rule, made, registry

__all__ = [
    "APG",
    "CFG",
    "Autoguidance",
    "CFGPlusPlus",
    "Classifier",
    "Clip",
    "Guided",
    "Ledger",
    "Rule",
    "Threshold",
    "made",
    "registry",
]
