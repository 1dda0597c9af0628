"""How good are the samples? Each metric is one equation, and each number comes with its error or its test."""

from .classes import Judge, class_accuracy, judge
from .energy import TwoSample, energy_distance, two_sample
from .estimate import Estimate
from .frechet import Moments, frechet_distance, moments
from .neighbours import copy_ratio, nearest
from .spectral import Spectrum, snr, spectrum

__all__ = [
    "Estimate",
    "Judge",
    "Moments",
    "Spectrum",
    "TwoSample",
    "class_accuracy",
    "copy_ratio",
    "energy_distance",
    "frechet_distance",
    "judge",
    "moments",
    "nearest",
    "snr",
    "spectrum",
    "two_sample",
]
