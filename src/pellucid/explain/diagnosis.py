r"""Why samples can be bad where the loss is low: fit, memory, variance and steps, each a number with its error.

    excess(lam) = SNR (L(lam) - L*(lam))            L* the least possible on the training data
    gap(lam)    = SNR (L_new(lam) - L(lam))         L_new on held-out data

SNR |dx0|^2 is what the bound on log p loses for each unit of lam (Kingma et al. 2021, eq. 17), so that excess and gap
add up to bits per dimension and can be laid beside each other at any noise. Without excess the training data have been
learnt by heart; without a gap, nothing has been learnt of them that new data do not share.

    z^2(lam) = E mean (v + m^2)/v'                  of a learned variance v' (likelihood/bound.py): 1 where it is right
    error(N) = (E |x_N - x_500|^2 / d)^1/2          x_N drawn in N steps of the same noise as x_500
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..likelihood.bound import missed, widened
from ..metrics import Figure, copies
from ..metrics.estimate import Estimate, Z
from ..sampling import sample
from ..types import Batch, Cond, Model, Times
from .chapter import Block, Chapter, Picture, Table
from .levels import FIRST, LEVELS, lines
from .mathematics import number
from .style import BLUE, FAINT, GREEN, INK, ORANGE, WIDTH, draw
from .subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COUNTS, TRUTH = (10, 20, 50), 500  # steps, and those of the model's own solution
DRAWN, ASKED, CLOSE = 8, 64, 0.05  # samples drawn; samples asked for their variance; an error that nobody sees
DETERMINISTIC = "dpmpp-2m"  # in the place of a sampler that draws noise


class Lost(NamedTuple):
    """What is lost for each unit of lam, bits per dimension: by level, each with its error, and in all."""

    levels: list[Estimate]
    total: Estimate


class Taken(NamedTuple):
    """How far from the model's own solution so many steps end, rms per number, in the data's standard deviations."""

    steps: int
    error: Estimate


def lost(lams: Tensor, each: Tensor, other: Tensor, paired: bool) -> Lost:
    """The bits by which losses `each` [levels, n] lie above `other` [levels, m]; paired: of the same samples."""
    price = torch.exp(2 * lams)[:, None] / math.log(2)
    sets = [price * (each - other)] if paired else [price * each, -price * other]
    found = [torch.stack([_mean(row) for row in bits]) for bits in sets]  # [levels, 2]
    totals = torch.stack([_mean(torch.trapezoid(bits, lams, dim=0)) for bits in sets])
    return Lost([_sum(torch.stack(rows)) for rows in zip(*found, strict=True)], _sum(totals))


def _mean(x: Tensor) -> Tensor:
    """The mean of x [n] and its variance."""
    return torch.stack([x.mean(), x.var() / len(x)])


def _sum(parts: Tensor) -> Estimate:
    """Of independent means and variances [k, 2]."""
    value, variance = parts.sum(0).tolist()
    return Estimate(value, variance**0.5)


@torch.no_grad()
def calibration(model: Model, x0: Batch, eps: Batch, cond: Cond, t: Times, s: Times) -> Tensor | None:
    """[n] z^2 of a step from t [n] to s [n]; None where no variance is learned."""
    path = model.path
    heard = {name: value.to(model.device) for name, value in cond.items()}
    d = model(path.mix(x0, eps, t).to(model.device, model.dtype), t, heard)
    if d.spread is None:
        return None
    square = missed(path, x0.double() - d.x0.cpu().double(), eps.double() - d.eps.cpu().double(), t, s)
    return ((1 + square) * torch.exp(-widened(path, d.spread, t, s))).flatten(1).mean(1)


def spreads(subject: Subject, lams: Tensor) -> list[Estimate] | None:
    """z^2 at each level, for the step that the variance was learned for; None where none is learned."""
    x0, cond = subject.draw_batch(ASKED, "test" if subject.data.test else "train")
    found, step = [], 1 / subject.objective.steps
    for k, lam in enumerate(lams):
        t = subject.path.time(lam).clamp(min=2 * step).expand(len(x0))
        each = calibration(subject.model, x0, subject.noise(len(x0), FIRST + k), cond, t, t - step)
        if each is None:
            return None
        found.append(Estimate(float(each.mean()), float(each.std()) / len(each) ** 0.5))
    return found


def taken(subject: Subject) -> list[Taken]:
    """The error of few steps, and of the model's own number of them."""
    scheme = subject.scheme
    sampler = DETERMINISTIC if scheme.sampler.stochastic else scheme.sampler

    def end(steps: int) -> Tensor:
        drawn = sample(
            subject.model,
            DRAWN,
            sampler=sampler,
            steps=steps,
            grid=subject.grid,
            noise=subject.source,
            seed=subject.seed,
            cond=subject.turns(DRAWN),
            guidance=subject.guide if subject.guided else None,
        )
        return drawn.cpu().double()

    truth, found = end(TRUTH), []
    for steps in sorted({*COUNTS, subject.steps}):
        square = ((end(steps) - truth) / max(subject.data.std, 1e-12)).square().flatten(1).mean(1)
        error = float(square.mean()) ** 0.5
        found.append(Taken(steps, Estimate(error, float(square.std()) / len(square) ** 0.5 / max(2 * error, 1e-12))))
    return found


def repeated(subject: Subject) -> tuple[Figure, Figure] | None:
    """The share of copies of training data among samples, and among held-out data; None where that cannot be said."""
    if subject.data.test is None or subject.exact is None or len(subject.data.train.x) < 3:
        return None
    train, test = (subject.draw_batch(10**9, split)[0] for split in ("train", "test"))
    x = subject.walk[-1].x
    return copies(x, train), copies(test[torch.linspace(0, len(test) - 1, min(len(test), 500)).long()], train)


def tell(subject: Subject) -> Chapter | None:
    """What is wrong, and where; None before training."""
    if not subject.step or len(subject.data.train.x) < 2:
        return None
    lams, by = subject.lams(LEVELS), lines(subject)
    own, new, least = by["model", "train"], by.get(("model", "test")), by.get(("exact", "train"))
    excess = lost(lams, own.each, least.each, True) if least else None
    gap = lost(lams, new.each, own.each, False) if new and new.each.shape[1] > 1 else None
    variance, steps, copied = spreads(subject, lams), taken(subject), repeated(subject)
    memorises = copied is not None and copied[0].low > copied[1].high
    worst = _worst(lams, excess)
    numbers: dict[str, Any] = {
        "lam": lams.tolist(),
        "excess": _plain(excess),
        "worst": worst,
        "gap": _plain(gap),
        "variance": None if variance is None else [e._asdict() for e in variance],
        "steps": [{"steps": one.steps, **one.error._asdict()} for one in steps],
        "copies": None if copied is None else {"samples": copied[0]._asdict(), "held_out": copied[1]._asdict()},
        "memorises": memorises,
    }
    words = "".join(f"<p>{text}</p>" for text in _words(subject, excess, worst, gap, copied, memorises, variance))
    blocks: list[Block] = [words, _picture(lams, excess, gap, variance, steps), _table(subject, steps)]
    numbers["advice"] = advice(subject, gap, memorises, variance, steps)
    blocks.append(f"<p><strong>{numbers['advice']}</strong></p>")
    return Chapter("diagnosis", "What is wrong, and where", tuple(blocks), numbers)


def _worst(lams: Tensor, excess: Lost | None) -> float | None:
    """The lam at which most is lost."""
    if excess is None:
        return None
    return float(lams[max(range(len(lams)), key=lambda k: excess.levels[k].value)])


def _plain(found: Lost | None) -> dict[str, Any] | None:
    return found and {"total": found.total._asdict(), "levels": [e._asdict() for e in found.levels]}


def advice(
    subject: Subject, gap: Lost | None, memorises: bool, variance: list[Estimate] | None, steps: list[Taken]
) -> str:
    """The first of these that is wrong for certain."""
    own = next(one.error for one in steps if one.steps == subject.steps)
    if memorises:
        return "The model repeats training data: take more data, fewer steps of training, or dropout."
    if own.value - Z * own.error > CLOSE:
        return f"Of the sampler's {subject.steps} steps there are too few: take more, or a sampler of higher order."
    if gap and gap.total.value > 3 * gap.total.error and gap.total.value > CLOSE:
        return "The model knows its training data better than new data: stop earlier, or take more data."
    if variance and max(abs(e.value - 1) - Z * e.error for e in variance) > CLOSE:
        return "The learned variance is off where z² is not 1: train longer, or sample without noise."
    return (
        "Neither memory nor steps are to blame: what is left to win is the fit, by training longer or a larger network."
    )


def _words(
    subject: Subject,
    excess: Lost | None,
    worst: float | None,
    gap: Lost | None,
    copied: tuple[Figure, Figure] | None,
    memorises: bool,
    variance: list[Estimate] | None,
) -> list[str]:
    found = ["A low loss does not make good samples by itself. Four things can be wrong, and each has its number."]
    if excess and worst is not None:
        found.append(
            f"Fit. On its training data the model loses {_said(excess.total)} bits per dimension more than the exact "
            f"denoiser of that data, which knows it by heart, and most of it about λ = {number(worst, 2)}."
        )
    else:
        found.append("Fit. This training set is too large to ask its exact denoiser.")
    if gap:
        found.append(
            f"Memory. On held-out data it loses {_said(gap.total)} bits per dimension more than on its training data."
        )
    if copied:
        share = [f"{number(100 * f.value, 2)} % [{number(100 * f.low, 2)}, {number(100 * f.high, 2)}]" for f in copied]
        found[-1] += (
            f" Of the samples {share[0]} are copies of training data, of held-out data {share[1]}: the model "
            f"{'memorises' if memorises else 'does not memorise, as far as so few samples can tell'}."
        )
    if variance is None:
        found.append("Variance. The model learns none: the steps that add noise take that of the forward process.")
    else:
        low, high = (pick(variance, key=lambda e: e.value) for pick in (min, max))
        found.append(
            f"Variance. By the model's own variance its errors are {_said(low)} to {_said(high)} of what they should "
            f"be; 1 is right, more is too sure of itself (for {subject.objective.steps} steps)."
        )
    sampler = DETERMINISTIC if subject.scheme.sampler.stochastic else "its own sampler"
    found.append(
        f"Steps. The model has a solution of its own, here that of {TRUTH} steps of {sampler}; fewer end beside it, in "
        f"the same noise by so many standard deviations of the data ({DRAWN} samples)."
    )
    return found


def _said(e: Estimate) -> str:
    return f"{number(e.value, 3)} ± {number(e.error, 1)}"


def _table(subject: Subject, steps: list[Taken]) -> Table:
    rows = tuple((f"{one.steps}{' (its own)' * (one.steps == subject.steps)}", _said(one.error)) for one in steps)
    return Table(("steps", f"distance from {TRUTH} steps, in standard deviations of the data"), rows)


def _picture(
    lams: Tensor, excess: Lost | None, gap: Lost | None, variance: list[Estimate] | None, steps: list[Taken]
) -> Picture:
    def paint(figure: "Canvas") -> None:
        panes = figure.subplots(1, 2 if variance is None else 3)
        for found, colour, label in (
            (excess, BLUE, "above the least possible"),
            (gap, ORANGE, "held-out above training"),
        ):
            if found:
                _band(panes[0], lams, found.levels, colour, label)
        panes[0].axhline(0, color=FAINT, lw=0.6)
        panes[0].set(title="bits lost per dimension and λ", xlabel="noise  ←  $\\lambda$  →  data")
        panes[0].legend(frameon=False, fontsize=8.5)
        if variance:
            _band(panes[1], lams, variance, GREEN, "")
            panes[1].axhline(1, color=INK, lw=0.8, ls="--")
            panes[1].set(title="$z^2$ of the learned variance", xlabel="noise  ←  $\\lambda$  →  data")
        n = [one.steps for one in steps]
        panes[-1].errorbar(
            n, [e.value for _, e in steps], [2 * e.error for _, e in steps], color=BLUE, marker="o", ms=4
        )
        panes[-1].set(title=f"distance from {TRUTH} steps", xlabel="steps", xscale="log", yscale="log")
        panes[-1].set_xticks(n, [str(one) for one in n])
        panes[-1].minorticks_off()

    alt = "What is lost at each noise level above the least possible, and how far few steps end from many."
    return draw("diagnosis", (WIDTH, 2.7), paint, alt, "Bands and bars: two standard errors over samples.")


def _band(axes: "Axes", lams: Tensor, found: list[Estimate], colour: str, label: str) -> None:
    value, error = (torch.tensor(column) for column in zip(*found, strict=True))
    axes.plot(lams, value, color=colour, label=label)
    axes.fill_between(lams, value - 2 * error, value + 2 * error, color=colour, alpha=0.2, lw=0)
