"""Likelihood: how probable a model holds data to be, by the bound that is trained and by the flow that it defines.

    bound.discrete     log p >= - prior - sum of the KLs of a chain of T steps + decoder       (Ho et al. 2020)
    bound.continuous   the same at T = infinity: an integral over noise levels                 (Kingma et al. 2021)
    flow               log p by the probability-flow ODE, for which the model has a density    (Song et al. 2021)

Each works for any model on any path, asks nothing but (x0, eps), and says of every number how well it is known.
"""

from .bound import continuous, discrete
from .divergence import Divergence, Exact, Hutchinson
from .draws import Wiener
from .flow import Solver, flow, log_prob
from .grain import Dequantise, Noise, Normal, Uniform, decode
from .value import Curve, Likelihood, estimate

__all__ = [
    "Curve",
    "Dequantise",
    "Divergence",
    "Exact",
    "Hutchinson",
    "Likelihood",
    "Noise",
    "Normal",
    "Solver",
    "Uniform",
    "Wiener",
    "continuous",
    "decode",
    "discrete",
    "estimate",
    "flow",
    "log_prob",
]
