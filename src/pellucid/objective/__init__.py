r"""Objectives: at which times a model learns, and what an error costs there.

    loss = w(t) |x0 - x0^|^2,    t ~ p(t)

A weight is defined once, in x0 units, as a function of lam; SNR = exp(2 lam). At a given x the error of the
network's own answer y is |dy|^2 = (det/sigma)^2 |dx0|^2, which carries the weight to any prediction. Weights that
stand for an integral over t (the ELBO and its kin) are divided by the density p(t) of the draws, so that they mean
the same under every choice of times.
"""

from .loss import Lesson, Naming, Objective, divergence, uneven
from .second_moment import SecondMoment
from .time import LogitNormal, LogNormalSigma, Stratified, TimeSampler, Uniform, times
from .weight import EDM, ELBO, Chain, MinSNR, Sigmoid, Simple, Unit, Weight, snr, weights

__all__ = [
    "EDM",
    "ELBO",
    "Chain",
    "Lesson",
    "LogNormalSigma",
    "LogitNormal",
    "MinSNR",
    "Naming",
    "Objective",
    "SecondMoment",
    "Sigmoid",
    "Simple",
    "Stratified",
    "TimeSampler",
    "Uniform",
    "Unit",
    "Weight",
    "divergence",
    "snr",
    "times",
    "uneven",
    "weights",
]
