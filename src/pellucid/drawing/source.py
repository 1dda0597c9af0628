"""Where a drawing comes from: a run and its labels, or a PNG that carries one."""

import json
from pathlib import Path

from .. import checkpoint, pictures
from ..checkpoint import Checkpoint
from ..errors import PellucidError
from .order import Drawing
from .shown import usual


def of_run(run: str, found: Checkpoint, label: str | None = None, classifier: str | None = None) -> Drawing:
    """A run's own way of drawing: its recipe's sampler and guidance, the classes (or its classifier's) in turn."""
    chosen = labels("all" if label is None else label, found, classifier)
    settings = dict(found.meta.get("recipe", {}).get("sample", {}))
    settings |= {"run": run, "weights": fingerprint(found), "labels": chosen, "classifier": classifier}
    return Drawing.parse(settings | {"n": usual(found.meta["config"]["shape"], chosen)})


def of_png(path: Path) -> Drawing:
    """The drawing that a PNG carries."""
    try:
        table = json.loads(pictures.read_words(path)["pellucid"])
        if isinstance(table, dict):
            return Drawing.parse(table)
    except PellucidError:
        raise
    except (KeyError, ValueError, RecursionError):
        pass
    raise PellucidError(f"{path} does not say how it was drawn; expected a PNG written by pellucid.")


def labels(text: str, found: Checkpoint, classifier: str | None = None) -> tuple[int, ...]:
    """The classes that a text names: "all", "none", or names and numbers with commas between.

    They are the model's own, or where it has none those of the run that leads it.
    """
    classes = names(found) or (names(checkpoint.latest(Path(classifier))) if classifier else [])
    if text == "none" or (text == "all" and not classes):
        return ()
    if not classes:
        raise PellucidError(f"label is {text!r}, but this model has no classes; leave it out.")
    words = classes if text == "all" else text.split(",")
    return tuple(_label(word.strip(), classes) for word in words)


def names(found: Checkpoint) -> list[str]:
    """The names of the classes by which a model can be conditioned, or that a classifier tells apart."""
    config = found.meta["config"]
    heard = config["conditioner"].get("base", config["conditioner"])  # of an augmented one
    count = config.get("classes", heard.get("classes", 0) if isinstance(heard, dict) else 0)
    return [str(name) for name in found.meta.get("classes", range(count))][:count]


def _label(word: str, classes: list[str]) -> int:
    if word in classes:
        return classes.index(word)
    if word.isdecimal() and int(word) < len(classes):
        return int(word)
    last = len(classes) - 1
    names = "" if classes == [str(i) for i in range(last + 1)] else f", or a name such as {classes[0]!r}"
    raise PellucidError(f"label {word!r} is no class of this model; expected 0 to {last}{names}.")


def find(run: str, weights: str | None = None) -> Checkpoint:
    """The newest checkpoint of a run, or the one that has these weights."""
    if weights is None:
        return checkpoint.latest(Path(run))
    for folder in checkpoint.folders(Path(run)) or [Path(run)]:
        found = checkpoint.open_(folder)
        if fingerprint(found) == weights:
            return found
    raise PellucidError(f"no checkpoint of {run} has the weights {weights}; the run was trained on, moved or removed.")


def fingerprint(found: Checkpoint) -> str:
    """The first digits of the hash of the averaged weights."""
    return checkpoint.digest(found.meta, "ema")[:16]
