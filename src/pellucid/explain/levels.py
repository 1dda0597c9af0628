r"""The loss at each noise level, beside the least that is possible.

    L(lam) = E|x0 - x0^(x_t)|^2 / d      at lam(t) = lam

Three references need no network. The exact minimum on the training data, oracle.Empirical: a model that reaches it has
learnt the training set by heart. What that exact denoiser costs on held-out data: by heart is not understanding. And
the best linear denoiser,  mean_i s_i / (1 + e^(2 lam) s_i)  with s_i the eigenvalues of the data's covariance (Wiener).
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from ..metrics.estimate import Estimate
from ..types import Batch, Cond, Model
from .chapter import Chapter, Picture
from .mathematics import inline, number
from .style import BLUE, FAINT, INK, ORANGE, PURPLE, WIDTH, draw
from .subject import Subject
from .weights import weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS, SAMPLES = 21, 256
COLOURS = {("model", "train"): BLUE, ("model", "test"): ORANGE, ("exact", "train"): INK, ("exact", "test"): PURPLE}
NAMES = {
    ("model", "train"): "model, training data",
    ("model", "test"): "model, held-out data",
    ("exact", "train"): "the least possible on the training data",
    ("exact", "test"): "the same, met with held-out data",
}
WIDEST = 1024  # dimensions up to which the covariance is diagonalised
FIRST = 1000  # number of the noise draw of the first level


class Line(NamedTuple):
    """One denoiser on one split: its loss at each level, of the same samples in the same noise for every denoiser."""

    who: str
    split: Literal["train", "test"]
    each: Tensor  # [levels, n]

    @property
    def loss(self) -> list[Estimate]:
        """The mean over samples at each level."""
        error = self.each.std(1) / self.each.shape[1] ** 0.5
        return [Estimate(*pair) for pair in zip(self.each.mean(1).tolist(), error.tolist(), strict=True)]


@torch.no_grad()
def losses(model: Model, x0: Batch, eps: Batch, cond: Cond, lam: float) -> Tensor:
    """[n] mean square error of x0 per dimension, for each sample, at one level."""
    t = model.path.time(torch.tensor(lam, dtype=torch.float64)).expand(len(x0))
    out = []
    for i in torch.arange(len(x0)).split(128):
        part = {name: value[i].to(model.device) for name, value in cond.items()}
        x = model.path.mix(x0[i], eps[i], t[i]).to(model.device, model.dtype)
        out.append((model(x, t[i], part).x0.cpu() - x0[i]).double().square().flatten(1).mean(1))
    return torch.cat(out)


def line(subject: Subject, who: str, model: Model, split: Literal["train", "test"], lams: Tensor) -> Line:
    """A denoiser's loss on a split at each level; all see the same samples in the same noise."""
    x0, cond = subject.draw_batch(SAMPLES, split)
    found = [losses(model, x0, subject.noise(len(x0), FIRST + k), cond, lam) for k, lam in enumerate(lams.tolist())]
    return Line(who, split, torch.stack(found))


@lru_cache(maxsize=4)
def lines(subject: Subject) -> dict[tuple[str, str], Line]:
    """The model, once it has learnt, and the exact denoiser, where it can be asked, on both splits."""
    splits: list[Literal["train", "test"]] = ["train", "test"] if subject.data.test else ["train"]
    who = {"model": subject.model if subject.step else None, "exact": subject.exact}
    lams = subject.lams(LEVELS)
    return {(name, split): line(subject, name, it, split, lams) for name, it in who.items() if it for split in splits}


def linear(points: Tensor, lams: Tensor, label: Tensor | None = None) -> Tensor:
    """The loss of the best linear denoiser of points [n, d] at each level; with labels, about each class's mean."""
    if label is not None:
        own = torch.nn.functional.one_hot(label).to(points)
        points = points - own @ (own.T @ points / own.sum(0)[:, None].clamp(min=1))
    s = torch.linalg.eigvalsh(torch.atleast_2d(torch.cov(points.double().T))).clamp(min=0)
    return (s / (1 + torch.exp(2 * lams)[:, None] * s)).mean(1)


def tell(subject: Subject) -> Chapter:
    """Loss per level of the model and of its references."""
    lams, found = subject.lams(LEVELS), list(lines(subject).values())
    wiener = None
    if subject.dims <= WIDEST and len(subject.data.train.x) > 1:  # one sample has no covariance
        x, cond = subject.draw_batch(5000)
        wiener = linear(x.flatten(1), lams, cond.get("label"))
    shown = [_picture(subject, lams, found, wiener)] if found or wiener is not None else []
    numbers = {
        "lam": lams.tolist(),
        "lines": [{"who": a.who, "split": a.split, "loss": [e._asdict() for e in a.loss]} for a in found],
        "linear": wiener.tolist() if wiener is not None else None,
    }
    return Chapter("levels", "What is lost at each noise level", (_words(subject, found, lams), *shown), numbers)


def share(subject: Subject, lams: Tensor, loss: list[Estimate]) -> Tensor:
    """The part of the training loss that falls on each level: w(lam) p(lam) L(lam), in the loss's own units."""
    w = weights(subject.path, subject.model.prediction, subject.objective, lams)
    return w.x0 * w.density * torch.tensor([e.value for e in loss])


def _picture(subject: Subject, lams: Tensor, found: list[Line], wiener: Tensor | None) -> Picture:
    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for who, split, loss in ((a.who, a.split, a.loss) for a in found):
            colour = COLOURS[who, split]
            value, error = (torch.tensor(column) for column in zip(*loss, strict=True))
            dash, low, high = "-" if who == "model" else "--", (value - 2 * error).clamp(min=1e-12), value + 2 * error
            left.semilogy(lams, value, color=colour, label=NAMES[who, split], ls=dash, lw=1.3)
            left.fill_between(lams, low, high, color=colour, alpha=0.2, lw=0)
            if who == "model" or not subject.step and split == "train":
                right.plot(lams, share(subject, lams, loss), color=colour, ls=dash)
        if wiener is not None:
            left.semilogy(lams, wiener, color=FAINT, lw=1, label="best linear denoiser")
        top = max(e.value for a in found for e in a.loss) if found else 1.0
        left.set_ylim(1e-4 * top if wiener is None else 0.1 * float(wiener[-1]), 2 * top)
        left.set(title="mean square error of $\\hat x_0$, per dimension", xlabel=r"noise  ←  $\lambda$  →  data")
        left.legend(frameon=False, fontsize=8.5, loc="best", handlelength=1.6)
        right.set(title="where the training loss comes from", xlabel=r"noise  ←  $\lambda$  →  data", yticks=[])
        right.set_ylim(bottom=0)
        right.spines["left"].set_visible(False)

    alt = "The error of the clean estimate at each noise level, beside the least possible and the best linear one."
    return draw("levels", (WIDTH, 3.1), paint, alt, "Bands: two standard errors over samples.")


def _words(subject: Subject, found: list[Line], lams: Tensor) -> str:
    by = {(a.who, a.split): a.loss for a in found}
    middle = int(lams.abs().argmin())
    words = (
        "<p>The error of "
        + inline("hat{x}_0")
        + " at each noise level, between two references that need no network: the best "
        "linear denoiser, and the exact denoiser of the training set, which has it by heart. That is the "
        "least possible there, and a bad answer elsewhere: what a model is for lies in between.</p>"
    )
    if test := by.get(("model", "test")):
        train = by["model", "train"]
        gap = [a.value - b.value for a, b in zip(test, train, strict=True)][middle]
        error = (test[middle].error ** 2 + train[middle].error ** 2) ** 0.5
        words += (
            f"<p>With about as much noise as data (λ = {number(float(lams[middle]), 2)}) the model is wrong by "
            f"{number(test[middle].value, 3)} ± {number(test[middle].error, 1)} on held-out data, "
            f"{number(gap, 2)} ± {number(error, 1)} more than on its training data.</p>"
        )
    if not subject.exact:
        words += "<p>This training set is too large to ask its exact denoiser.</p>"
    return words
