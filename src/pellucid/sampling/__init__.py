"""Sampling: from noise to data, and back.

    scheme      how: a sampler, a grid, a source of noise
    model       what is asked: path, guidance, conditions
    loop        state = sampler.step(denoise, state, s, noise), from each time of the grid to the next
    samples     the draws, and their trajectories
    inversion   the noise that leads to given data
"""

from .inversion import Inversion, invert
from .loop import legs, start, walk
from .model import Counted, Guidance, prepare
from .samples import Step, sample, trajectory
from .scheme import Scheme, extent, parted, with_eta

__all__ = [
    "Counted",
    "Guidance",
    "Inversion",
    "Scheme",
    "Step",
    "extent",
    "invert",
    "legs",
    "parted",
    "prepare",
    "sample",
    "start",
    "trajectory",
    "walk",
    "with_eta",
]
