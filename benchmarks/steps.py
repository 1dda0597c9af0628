"""What a step costs beside the network: the sampler's own arithmetic, with a network that costs nothing.

    python -m benchmarks.steps [--turns 10] [--steps 50] [--only ddim euler-a]
    (after pip install -c constraints.txt diffusers)

Microseconds a call of the network, ours and diffusers' in turn: the median of all turns and their range; the ratio is
the median, and the range, of the ratios within each turn. A stochastic step of ours includes noise that is keyed by
seed, sample and step. Preparing a grid (our coefficients, their set_timesteps) is timed apart: `before` is the ratio.
"""

import argparse
import time
import warnings
from collections import deque
from statistics import median
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers.utils import logging

from pellucid.paths import Flow, LinearTable, Path
from pellucid.sampling import Scheme, walk
from pellucid.types import Batch, Denoised, Times

PAIRS: dict[str, tuple[str, dict[str, Any]]] = {  # ours, and the scheduler of diffusers with its options
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "dpm-2": ("KDPM2DiscreteScheduler", {}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "midpoint": ("DPMSolverSinglestepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {"solver_order": 3}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ipndm": ("IPNDMScheduler", {}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpm2-a": ("KDPM2AncestralDiscreteScheduler", {}),
    "sa-solver": ("SASolverScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
SHAPES = (1, 3, 32, 32), (64, 3, 32, 32)


class Free:
    """A network that costs nothing: the same answer whatever is asked. It counts."""

    def __init__(self, path: Path, answer: Batch) -> None:
        self.path, self.answer, self.calls = path, Denoised(answer, answer), 0

    def __call__(self, x: Batch, t: Times) -> Denoised:
        self.calls += 1
        return self.answer


class Cost(NamedTuple):
    """Microseconds: the first step with all that comes before it, and each call of the network in the steps after."""

    before: float
    call: float


def ours(name: str, x: Batch, steps: int) -> Cost:
    """A run of ours."""
    path: Path = Flow() if name.startswith("flow") else LinearTable()
    scheme = Scheme.make(path, name, steps, "uniform" if name.startswith("flow") else "trailing")
    state, free = scheme.sampler.init(x, torch.ones(len(x), dtype=torch.float64)), Free(path, 0.7 * x)
    began = time.perf_counter()
    states = walk(free, scheme, state, 0, torch.arange(len(x)))
    next(states)
    first, free.calls = time.perf_counter(), 0
    deque(states, maxlen=0)
    return Cost(1e6 * (first - began), 1e6 * (time.perf_counter() - first) / free.calls)


def theirs(name: str, x: Batch, steps: int) -> Cost:
    """A run of diffusers', whose every step is a call."""
    kind, options = PAIRS[name]
    rule, answer = getattr(diffusers, kind)(**options), 0.7 * x
    began = time.perf_counter()
    rule.set_timesteps(steps)
    x = rule.step(answer, rule.timesteps[0], x).prev_sample
    first = time.perf_counter()
    for t in rule.timesteps[1:]:
        x = rule.step(answer, t, x).prev_sample
    return Cost(1e6 * (first - began), 1e6 * (time.perf_counter() - first) / (len(rule.timesteps) - 1))


def spread(values: list[float], digits: int = 0) -> str:
    """Their median and range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS))
    args, _ = parser.parse_known_args()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="diffusers")
    for shape in SHAPES:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        print(f"{tuple(shape)!s:16s}{'pellucid':>22s}{'diffusers':>22s}{'ratio':>24s}{'before':>8s}")
        for name in args.only:
            turns = [(ours(name, x, args.steps), theirs(name, x, args.steps)) for _ in range(args.turns + 1)][1:]
            a, b = ([turn[i].call for turn in turns] for i in (0, 1))
            ratios, before = [a.call / b.call for a, b in turns], [a.before / b.before for a, b in turns]
            print(
                f"{name:16s}{spread(a):>22s}{spread(b):>22s}{spread(ratios, 2):>24s}{median(before):8.2f}", flush=True
            )


if __name__ == "__main__":
    main()
