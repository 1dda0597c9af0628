"""Where fits are kept: RUN/fitted.json, the newest last, one for each sampler and budget."""

import json
from collections.abc import Sequence
from pathlib import Path

from .. import samplers
from ..checkpoint import MANIFEST
from ..errors import PellucidError
from ..files import whole
from ..samplers import Sampler
from .solve import Fit, called

FILE = "fitted.json"
FORMAT = 1


def home(run: Path) -> Path:
    """The folder of the run, which may be given by one of its checkpoints."""
    return run.parents[1] if (run / MANIFEST).is_file() and run.parent.name == "checkpoints" else run


def load(run: Path) -> list[Fit]:
    """All fits of a run, the newest last."""
    path = home(run) / FILE
    try:
        table = json.loads(path.read_text("utf-8"))
        if table["format"] != FORMAT:
            raise ValueError(f"its format is {table['format']}, not {FORMAT}")
        fits = [Fit.parse(entry) for entry in table["fits"]]
        for fit in fits:
            _ = fit.settings  # its parts exist
        return fits
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise PellucidError(f"{path} is damaged ({why}); remove it, and fit again: pellucid tune {run}.") from None


def save(run: Path, fits: Sequence[Fit]) -> Path:
    """Keep these fits, in place of earlier ones for the same sampler and budget."""
    old = [fit for fit in load(run) if not any((fit.made, fit.nfe) == (new.made, new.nfe) for new in fits)]
    path = home(run) / FILE
    table = {"format": FORMAT, "fits": [fit.model_dump(mode="json") for fit in [*old, *fits]]}
    with whole(path) as temporary:
        temporary.write_text(json.dumps(table, indent=1), "utf-8")
    return path


def find(run: str | Path, sampler: Sampler | str | None = None, steps: int | None = None) -> Fit:
    """The run's fit for so many steps and this sampler.

    Without steps, for the budget that was fitted last; without a sampler, the fewest calls and then the least error.
    """
    every = load(Path(run))
    wanted = None if sampler is None else samplers.registry.resolve(sampler)
    fits = [fit for fit in every if wanted in (None, fit.made)]
    if fits and steps is None:
        fits = [fit for fit in fits if fit.nfe == fits[-1].nfe]
    fits = [fit for fit in fits if steps in (None, fit.steps)]
    if fits:
        return min(fits, key=lambda fit: (fit.nfe, fit.error[0]))
    asked = f" for {steps} steps" * (steps is not None) + (f" of {called(wanted)}" if wanted else "")
    held = "; it has " + ", ".join(f"{called(fit.made)} at {fit.steps} steps" for fit in every) if every else ""
    option = f" --sampler {called(wanted)}" if wanted else ""
    raise PellucidError(
        f"{run} has no grid fitted{asked}{held}; fit one: pellucid tune {run} --nfe {steps or 8}{option}."
    )


def remark(fit: Fit, run: str, weights: str, step: int) -> str | None:
    """A line where the fit is for other weights than these."""
    if fit.run.get("weights") in (None, weights):
        return None
    when = f"step {fit.run['step']}" if "step" in fit.run else "other weights"
    return (
        f"the grid was fitted to {when} of {run}, not to step {step}; fit it again: pellucid tune {run} --nfe {fit.nfe}"
    )
