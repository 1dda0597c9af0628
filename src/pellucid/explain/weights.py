r"""Where a model learns: the weight of an error in every unit, and the density of the times.

The objective prices |x0 - x0^|^2 at w(t) and draws t ~ p(t). At a given x,  |dx0| = gain |dy|,  so in the units of any
prediction the weight is  w gain^2. Over lam the density is  p(lam) = p(t) / |dlam/dt|,  and the loss is

    int w(lam) p(lam) gain_eps^2 E|eps - eps^|^2 dlam:

that product is the weighting of Kingma & Gao (2023, eq. 5-6), and all that path, prediction and times amount to.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .. import predictions
from ..objective import Objective
from ..paths import Path, slope
from ..predictions import Prediction
from .chapter import Chapter, Picture
from .mathematics import display, inline
from .style import BLUE, GREEN, INK, ORANGE, WIDTH, draw
from .subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = {"x0": BLUE, "eps": ORANGE, "v": GREEN}
SIGN = {"x0": r"$x_0$", "eps": r"$\epsilon$", "v": "$v$"}


class Weights(NamedTuple):
    """At each lam [n]: the price of one draw's square error in x0, eps and v units, p(lam), and eps * p(lam)."""

    lam: Tensor
    x0: Tensor
    eps: Tensor
    v: Tensor
    density: Tensor
    effect: Tensor


def weights(path: Path, prediction: Prediction, objective: Objective, lam: Tensor) -> Weights:
    """The objective as functions of lam."""
    t = path.time(lam)
    price = objective.price(path, t, prediction)
    units = {name: price * predictions.registry.make(name).gain(path, t) ** 2 for name in UNITS}
    density = objective.times.density(t, path) / slope(path.lam, t).abs()
    return Weights(lam, **units, density=density, effect=units["eps"] * density)


def tell(subject: Subject) -> Chapter:
    """The weight in three units, the density of the times, and their product."""
    found = weights(subject.path, subject.model.prediction, subject.objective, subject.lams(200))
    words = (
        "<p>One error, three units: at a given "
        + inline("x_t")
        + ",</p>"
        + display(
            "w ( t ) | x_0 - hat{x}_0 |^2 = w ( t ) {sigma^2}/{alpha^2} | eps - hat{eps} |^2 = "
            "w ( t ) ( {sigma}/{alpha^2 + sigma^2} )^2 | v - hat{v} |^2"
        )
    )
    numbers = {name: values.tolist() for name, values in found._asdict().items()}
    return Chapter("weights", "What an error costs", (words, _picture(found)), numbers)


def _picture(found: Weights) -> Picture:
    lam = found.lam

    def paint(figure: "Figure") -> None:
        from matplotlib.ticker import MultipleLocator

        price, density, effect = figure.subplots(1, 3)
        for name, colour in UNITS.items():
            price.semilogy(lam, getattr(found, name), color=colour)
        for (name, colour), end in zip(UNITS.items(), _ends([getattr(found, name) for name in UNITS]), strict=True):
            x, y = float(lam[end]), float(getattr(found, name)[end])
            price.annotate(
                SIGN[name], (x, y), (4 if end else -4, 0), textcoords="offset points", color=colour,
                va="center", ha="left" if end else "right",
            )  # fmt: skip
        price.set_xlim(float(lam[0]) - 1.2, float(lam[-1]) + 1.2)
        price.set_title("price of one error, in units of")
        density.plot(lam, found.density, color=INK)
        density.fill_between(lam, 0, found.density, color=INK, alpha=0.1, lw=0)
        density.set(title=r"how often drawn, $p(\lambda)$", yticks=[], ylim=(0, None))
        density.spines["left"].set_visible(False)
        effect.semilogy(lam, found.effect / found.effect.max(), color=ORANGE)
        effect.set_title(r"both, for an error of $\epsilon$")
        for axes in (price, density, effect):
            axes.xaxis.set_major_locator(MultipleLocator(2))
            axes.set_xlabel(r"noise  ←  $\lambda$  →  data")

    return draw(
        "weights",
        (WIDTH, 2.6),
        paint,
        alt="The loss weight in x0, eps and v units, the density of training times, and their product, over lambda.",
        caption="Three equal ways to say what an error costs; how often each noise level is drawn; and the product of "
        "both, which is all that the loss knows of path, prediction and times.",
    )


def _ends(curves: list[Tensor]) -> list[int]:
    """For each curve the end, 0 or -1, at which it is further from the others: where its name is written."""
    logs = torch.stack([curve[[0, -1]].log() for curve in curves])  # [curves, 2]
    apart = (logs[:, None] - logs[None]).abs() + 1e9 * torch.eye(len(curves))[..., None]
    return [-int(near) for near in apart.amin(1).argmax(1)]
