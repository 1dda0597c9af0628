"""Eyes for samples: what a network makes of them, so that distances mean what a viewer would say.

values        the numbers themselves
untrained     random convolutions, the same for everyone: for pictures without classes
classifier    a small network that has learnt the classes of the training data: where there are any
PATH          a file of Inception weights (.pth or .safetensors), a kept classifier, or a folder of transformers
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import PellucidError, unknown
from ...files import expanded
from ..classes import told
from ..metric import Judge
from . import classifier, inception, vision
from .base import Features, Values
from .classifier import Classifier, Progress

__all__ = ["Classifier", "Features", "Values", "look", "reader", "usual"]

NAMES = "values", "untrained", "classifier"


def usual(x: Tensor, label: Tensor | None) -> str:
    """The eyes that suit training data x [n, *shape] best."""
    return "values" if x.dim() != 4 else "classifier" if told(label) else "untrained"


def look(name: str, x: Tensor, label: Tensor | None, classes: int, progress: Progress | None = None) -> Features:
    """The eyes of that name, or at that path, for training data x [n, *shape] in model units with labels [n]."""
    if name == "values":
        return Values()
    if name in NAMES:
        if x.dim() != 4:
            raise PellucidError(f"{name} sees pictures, not samples of shape {tuple(x.shape[1:])}; take values.")
        if name == "untrained":
            return classifier.untrained(tuple(x.shape[1:]))
        if not told(label):
            raise PellucidError("a classifier needs two classes or more in the data; take untrained, or values.")
        return classifier.trained(x, label, classes, progress)
    path = expanded(name)
    if path.is_dir():
        return vision.load(path)
    if path.is_file():
        return classifier.load(path) if _is_ours(path) else inception.load(path)
    if path.suffix or len(path.parts) > 1:
        raise PellucidError(f"there is no {name}; expected a file of weights, a folder, or {', '.join(NAMES)}.")
    raise unknown("features", name, NAMES)


def reader(eyes: Features, x: Tensor, label: Tensor | None, classes: int) -> Judge | None:
    """Who reads classes: the eyes, if they have learnt it, or the classifier of the training data; pictures alone."""
    if x.dim() != 4 or not told(label):
        return None
    if isinstance(eyes, Classifier) and eyes.net.classes == classes:
        return eyes.judge
    return classifier.trained(x, label, classes).judge


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return "pellucid" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False
