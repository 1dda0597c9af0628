r"""What guidance does at each step: the terms of  x0 = u + w (c - u)  weighed along the way (guidance/ledger.py)."""

from typing import TYPE_CHECKING

from ..guidance import CFG, Ledger, registry
from ..guidance.ledger import Entry
from ..sampling import sample
from .chapter import Chapter, Picture
from .mathematics import inline, number
from .style import BLUE, FAINT, GREEN, INK, ORANGE, WIDTH, draw
from .subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 40


def tell(subject: Subject) -> Chapter | None:
    """The ledger of the model's own way of sampling; None where nothing is guided."""
    if not (subject.guided and subject.step):
        return None
    ledger = Ledger(limit=1.0 if subject.data.pictures else float("inf"))
    sample(
        subject.model,
        SAMPLES,
        sampler=subject.sampler,
        steps=subject.steps,
        grid=subject.grid,
        noise=subject.source,
        seed=subject.seed,
        cond=subject.turns(SAMPLES),
        guidance=ledger.of(subject.guide),
    )
    warning = f"<p><strong>{ledger.warning.capitalize()}</strong></p>" if ledger.warning else ""
    name = registry.describe(subject.guide)["name"]
    rule = "" if isinstance(subject.guide, CFG) else f", as <code>{name}</code> has it"
    words = (
        f"<p>The guided estimate is {inline('u + w (c - u)')} with w = {number(subject.guidance, 3)}{rule}: the "
        f"push from {inline('c')}, what is seen with the condition, further away from {inline('u')}, what is seen "
        "without it. A push along the picture makes more of it; one across, at 90°, changes it.</p>"
    )
    numbers = {"scale": subject.guidance, "steps": [e._asdict() for e in ledger.entries], "warning": ledger.warning}
    shown = (_picture(ledger.entries),) if ledger.entries else ()
    return Chapter("guidance", "What guidance does", (words + warning, *shown), numbers)


def _picture(entries: list[Entry]) -> Picture:
    def paint(figure: "Figure") -> None:
        t = [e.t for e in entries]
        left, middle, right = figure.subplots(1, 3)
        rows: list[tuple[str, str, list[float]]] = [
            ("with the condition", BLUE, [e.c for e in entries]),
            ("without", FAINT, [e.u for e in entries]),
            ("the push", ORANGE, [e.push for e in entries]),
        ]
        for name, colour, sizes in rows:
            left.plot(t, sizes, color=colour, label=name, marker="o", ms=2.5)
        left.set(title="size of each term, rms", ylim=(0, None))
        left.legend(frameon=False, fontsize=8.5, handlelength=1.2)
        middle.plot(t, [e.angle for e in entries], color=GREEN, marker="o", ms=2.5)
        middle.set(title="angle of the push, degrees", ylim=(0, 180), yticks=[0, 45, 90, 135, 180])
        right.plot(t, [100 * e.beyond for e in entries], color=ORANGE, marker="o", ms=2.5, label="guided")
        right.plot(t, [100 * e.beyond_c for e in entries], color=INK, ls="--", label="not guided")
        right.set(title="beyond the data's range, %", ylim=(0, None))
        right.legend(frameon=False, fontsize=8.5, handlelength=1.6)
        for axes in (left, middle, right):
            axes.set(xlabel="noise  ←  $t$  →  data", xlim=(1, 0))

    alt = "At each step: the sizes of the guided terms, the angle of the push, and how much leaves the data's range."
    return draw("guidance", (WIDTH, 2.4), paint, alt, f"Means over {SAMPLES} samples.")
