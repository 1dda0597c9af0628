"""Do class-conditional samples look like their class? Ask a judge that has seen the real data alone.

    accuracy = mean_i [ judge(sample_i) = label_i ],    standard error sqrt(accuracy (1 - accuracy) / n)

The judge is a support vector machine with a Gaussian kernel: on small pictures it is near the best that is known, is
the same on every run and has nothing to download. Its cost grows with the square of the training data.
"""

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from ..errors import PellucidError
from .estimate import Estimate

Judge = Callable[[Tensor], Tensor]
"""Samples [n, ...] to labels, int64 [n]."""


def judge(x: Tensor, label: Tensor) -> Judge:
    """Train a judge on real samples x [n, ...] and their labels [n]. It expects samples in the units of x."""
    try:
        from sklearn.svm import SVC
    except ImportError:
        raise PellucidError("the judge of classes needs scikit-learn; run pip install 'pellucid[demo]'.") from None
    machine = SVC(C=10.0, gamma="scale").fit(_features(x), label.numpy())
    return lambda samples: torch.from_numpy(machine.predict(_features(samples)))


def class_accuracy(read: Judge, samples: Tensor, label: Tensor) -> Estimate:
    """Share of samples [n, ...] that the judge reads as their label [n]."""
    share = (read(samples) == label).double().mean().item()
    return Estimate(share, sqrt(share * (1 - share) / len(label)))


def _features(x: Tensor) -> np.ndarray:
    return x.flatten(1).double().cpu().numpy()
