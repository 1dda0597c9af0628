"""Do class-conditional samples look like their class? Ask a judge that has seen the real data alone.

    accuracy = mean_i [ judge(sample_i) = label_i ],    standard error sqrt(accuracy (1 - accuracy) / n)

The judge is a support vector machine with a Gaussian kernel: on small pictures it is near the best that is known, is
the same on every run and has nothing to download. Its cost grows with the square of the training data.
"""

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..errors import PellucidError
from .estimate import Figure, share
from .metric import Case, Judge, Metric, registry


def told(label: Tensor | None) -> TypeGuard[Tensor]:
    """Whether labels tell samples apart: there are two classes or more among them."""
    return label is not None and len(label.unique()) > 1


def judge(x: Tensor, label: Tensor) -> Judge:
    """Train a judge on real samples x [n, ...] and their labels [n]. It expects samples in the units of x."""
    if not told(label):
        raise PellucidError("the judge of classes needs two classes or more; expected other labels.")
    try:
        from sklearn.svm import SVC
    except ImportError:
        raise PellucidError("the judge of classes needs scikit-learn; run pip install 'pellucid[demo]'.") from None
    machine = SVC(C=10.0, gamma="scale").fit(_features(x), label.numpy())
    return lambda samples: torch.from_numpy(machine.predict(_features(samples)))


def class_accuracy(read: Judge, samples: Tensor, label: Tensor) -> Figure:
    """Share of samples [n, ...] that the judge reads as their label [n]."""
    return share(read(samples) == label)


def _features(x: Tensor) -> np.ndarray:
    return x.flatten(1).double().cpu().numpy()


@registry.register("class-accuracy")
@dataclass(frozen=True)
class ClassAccuracy(Metric):
    """How many samples are read as what they are meant to be, by a judge that has seen the training data alone."""

    better = "more"
    space = "values"

    def __call__(self, case: Case) -> dict[str, Figure]:
        if case.judge is None or case.samples.label is None:
            return {}
        return {"class_accuracy": class_accuracy(case.judge, case.samples.x, case.samples.label)}

    def floor(self, case: Case) -> Case:
        """What the held-out data are read as: they too are new to the judge."""
        return case.instead(case.real)
