"""How good are the samples? Each metric is one equation, and each number comes with its error or its test.

The functions take samples or features as tensors. The registry holds them as figures of an evaluation, see metric.py.
"""

from .c2st import c2st
from .classes import class_accuracy, judge
from .density import density_coverage, expected_coverage
from .energy import TwoSample, energy_distance, two_sample
from .estimate import Estimate, Figure, bootstrap, halved, share
from .frechet import frechet, frechet_distance, influence
from .kernel import gaussian, kid, mmd, polynomial
from .limit import frechet_limit
from .metric import Case, Judge, Metric, View, registry
from .moments import Moments, moments
from .neighbours import Origin, copies, copy_ratio, nearest, origin
from .precision import precision_recall
from .sliced import sliced_wasserstein
from .spectral import Spectrum, decibels, snr, spectrum
from .vendi import vendi

__all__ = [
    "Case",
    "Estimate",
    "Figure",
    "Judge",
    "Metric",
    "Moments",
    "Origin",
    "Spectrum",
    "TwoSample",
    "View",
    "bootstrap",
    "c2st",
    "class_accuracy",
    "copies",
    "copy_ratio",
    "decibels",
    "density_coverage",
    "energy_distance",
    "expected_coverage",
    "frechet",
    "frechet_distance",
    "frechet_limit",
    "gaussian",
    "halved",
    "influence",
    "judge",
    "kid",
    "mmd",
    "moments",
    "nearest",
    "origin",
    "polynomial",
    "precision_recall",
    "registry",
    "share",
    "sliced_wasserstein",
    "snr",
    "spectrum",
    "two_sample",
    "vendi",
]
