"""What is asked of a trained run: a few numbers, for sample i of seed s is the same picture wherever it is drawn."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from .. import __version__, checkpoint, grids, guidance, pictures, samplers, sampling
from ..data import decode
from ..errors import PellucidError
from ..files import whole, whole_folder
from ..guidance import Classifier, Rule, Threshold
from ..noise import Kind
from ..settings import Calls, Count, Natural, Part, Section, Share
from ..types import Model
from .shown import check_shown, is_picture


class Drawing(Section):
    """Samples first ... first + n - 1 of `seed`, by the averaged weights of a run."""

    run: str
    weights: str | None = None  # the first digits of their hash; None: the run's newest
    n: Annotated[int, Field(gt=0, le=10_000_000)] = 64
    first: Natural = 0
    seed: Natural = 0
    labels: tuple[Natural, ...] = ()  # sample i has labels[i % len(labels)]; without any, none has a condition
    guidance: float = 1.0
    interval: tuple[Share, Share] = (0.0, 1.0)
    rescale: Share = 0.0
    rule: Part = "cfg"  # of the guidance
    classifier: str | None = None  # a run that names classes through noise; in place of the rule it leads to them
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None  # the share of each sample kept within its range
    sampler: Part = "scales"
    steps: Calls = 20
    grid: Part = "scales"
    noise: Kind = "independent"
    batch: Count = 64
    exact: bool = False
    only: Natural | None = None  # of the n, the one in this file

    @model_validator(mode="before")
    @classmethod
    def _grid_in_the_label(cls, table: Any) -> Any:
        if not isinstance(table, dict) or not isinstance(table.get("sampler"), str):
            return table
        sampler, grid = samplers.names.split(table["sampler"])
        return table | {"sampler": sampler, "grid": grid} if grid else table

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        samplers.registry.make(self.sampler)
        grids.registry.make(self.grid)
        _ = self._rule
        if self.classifier and not self.labels:
            raise PellucidError("a classifier leads to classes, and no label is given; give --label, such as 3 or all.")
        if self.classifier and (self.rescale or self.rule != "cfg" or self.interval != (0.0, 1.0)):
            raise PellucidError("a classifier leads at all times and by itself; leave out rule, rescale and interval.")
        if self.only is not None and self.only >= self.n:
            raise PellucidError(f"only is {self.only}; expected a number below n = {self.n}.")
        if self.first + self.n > 2**63:
            raise PellucidError(f"first is {self.first}; expected one with {self.n} numbers left below 2**63.")
        return self

    @property
    def label(self) -> Tensor | None:
        """[n] the class of each sample."""
        index = torch.arange(self.first, self.first + self.n)
        return torch.tensor(self.labels)[index % len(self.labels)] if self.labels else None

    def draw(self, model: Model, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """The samples, [n, *shape] in model units."""
        x = sampling.sample(model, self.n, batch=self.batch, exact=self.exact, progress=progress, **self._heard(model))
        return x if self.only is None else x[self.only : self.only + 1]

    def trajectory(self, model: Model) -> list[sampling.Step]:
        """The samples' way from noise to data."""
        return sampling.trajectory(model, self.n, **self._heard(model))

    def _heard(self, model: Model) -> dict[str, Any]:
        """The settings, without labels where neither model nor classifier hears them: data may have more classes."""
        hears = getattr(model, "hears", None)
        deaf = hears is not None and "label" not in hears and not self.classifier
        return (self.model_copy(update={"labels": ()}) if deaf else self).settings()

    @property
    def guide(self) -> sampling.Guidance:
        """The guidance, and the threshold around it."""
        rule = self._led if self.classifier else self._rule
        if not (share := self.threshold):
            return rule
        return lambda model: _kept(share, model.shape)(rule(model))

    def _led(self, model: Model) -> Model:
        """The model without conditions, led by the classifier."""
        reads = checkpoint.classifier(checkpoint.latest(Path(self.classifier or ""))).to(model.device)
        if reads.shape != model.shape:
            raise PellucidError(f"the classifier reads {reads.shape}, the model draws {model.shape}; train another.")
        if (label := max(self.labels)) >= reads.classes:
            raise PellucidError(f"label {label} is no class of the classifier; expected 0 to {reads.classes - 1}.")
        return Classifier(reads.on(model.path), self.guidance)(model)

    @property
    def _rule(self) -> Rule:
        extras = {"rescale": self.rescale} if self.rescale else {}
        return guidance.made(self.rule, scale=self.guidance, interval=self.interval, **extras)

    def settings(self) -> dict[str, Any]:
        """The arguments of `sample` that decide what is drawn."""
        label = self.label
        return {
            "sampler": samplers.registry.make(self.sampler),
            "steps": self.steps,
            "grid": grids.registry.make(self.grid),
            "noise": self.noise,
            "seed": self.seed,
            "first": self.first,
            "cond": None if label is None else {"label": label},
            "guidance": None if label is None and not self.threshold else self.guide,
        }

    def alone(self, i: int) -> "Drawing":
        """The drawing of sample number i of this one: it draws again no more than the batch in which i was drawn."""
        batch = 1 if self.exact else self.batch
        low = i // batch * batch
        part = {"first": self.first + low, "n": min(batch, self.n - low), "only": i - low}
        return self.model_copy(update=part)

    def changed(self, changes: dict[str, Any], eta: float | None = None) -> "Drawing":
        """The same but for these settings."""
        apart = {"only": None} if {"n", "first"} & set(changes) else {}
        if isinstance(changes.get("sampler"), str):
            sampling.parted(changes["sampler"], changes.get("grid"))
        new = Drawing.parse(self.model_dump() | apart | changes)
        if {"guidance", "rule", "rescale", "interval"} & set(changes) and not (new.labels or new._rule.idle):
            raise PellucidError(
                f"guidance is {new.guidance:g}, and no label is given that it could strengthen; give --label, such as "
                "3 or all, or leave guidance out."
            )
        if eta is None:
            return new
        sampler = sampling.with_eta(new.sampler, eta)
        return new.model_copy(update={"sampler": samplers.registry.describe(sampler)})

    def plain(self) -> dict[str, Any]:
        """All that is set, ready for JSON."""
        return self.model_dump(mode="json", exclude_none=True)

    def words(self, shape: tuple[int, ...]) -> dict[str, str]:
        """The text chunks of a PNG."""
        sampler, grid = (part if isinstance(part, str) else part["name"] for part in (self.sampler, self.grid))
        size = {"Size": "x".join(map(str, shape[:0:-1]))} if is_picture(shape) else {}
        settings = {
            "Steps": self.steps,
            "Sampler": sampler,
            "Schedule type": grid,
            "CFG scale": self.guidance if self.labels else 1.0,
            "Seed": self.seed,
            **size,
            "Model hash": self.weights,
            "Model": Path(self.run).name,
            "Version": f"pellucid {__version__}",
        }
        prompt = f"label {', '.join(map(str, self.labels))}" if self.labels else ""
        parameters = f"{prompt}\n{', '.join(f'{key}: {value}' for key, value in settings.items())}"
        return {"pellucid": json.dumps(self.plain()), "parameters": parameters}

    def sheet(self, x: Tensor) -> pictures.Picture:
        """All samples as one picture, a row for each class where they take turns; a sample alone as it is."""
        check_shown(x.shape[1:])
        if not is_picture(x.shape[1:]):
            return pictures.scatter(x)
        if self.only is not None:
            return pictures.plain(decode(x)[0])
        turns = len(self.labels)
        if 2 <= turns <= 32 and len(x) % turns == 0:
            return pictures.tile(decode(x.unflatten(0, (-1, turns)).transpose(0, 1).flatten(0, 1)), len(x) // turns)
        return pictures.tile(decode(x))

    def arrays(self, x: Tensor) -> dict[str, Any]:
        """arr_0: the samples, pictures as bytes [n, h, w, c]; arr_1: their labels (the layout of ADM's evaluations)."""
        pixels = decode(x).permute(0, 2, 3, 1) if is_picture(x.shape[1:]) else x
        chosen = slice(None) if self.only is None else slice(self.only, self.only + 1)
        labels = {} if self.label is None else {"arr_1": self.label[chosen].numpy()}
        return {"arr_0": pixels.cpu().numpy(), **labels}

    def check_finite(self, x: Tensor) -> None:
        """Refuse samples that are no numbers."""
        if not bool(torch.isfinite(x).all()):
            raise PellucidError(f"{self.run} draws numbers that are not finite; train it again with a lower optim.lr.")

    def write(self, x: Tensor, out: Path) -> None:
        """Write samples x [n, *shape]: a .png shows them all, an .npz holds them, a folder gets a PNG for each."""
        if out.suffix.lower() == ".npz":
            with whole(out) as temporary, open(temporary, "wb") as file:
                np.savez(file, **self.arrays(x))
        elif out.suffix.lower() == ".png":
            pictures.save_png(out, self.sheet(x), self.words(tuple(x.shape[1:])))
        else:
            with whole_folder(out) as folder:
                for i, sample in enumerate(decode(x), self.only or 0):
                    words = self.alone(i).words(tuple(sample.shape))
                    pictures.save_png(folder / f"{self.first + i:06d}.png", pictures.plain(sample), words)


def _kept(share: float, shape: Sequence[int]) -> Threshold:
    """The threshold of pictures, which lie in [-1, 1]; other data have no such limit."""
    if not is_picture(shape):
        raise PellucidError(f"threshold keeps pictures within [-1, 1], and samples of shape {tuple(shape)} are none.")
    return Threshold(share)
