"""What a step costs beside the network: the sampler's own arithmetic, with a network that costs nothing.

    python -m benchmarks.steps [--turns 20] [--steps 50]        (pip install -c constraints.txt diffusers)

Microseconds a step, the median of all turns and their range, ours and diffusers' in turn; the last column is the ratio
of the medians. A stochastic step of ours includes noise that is keyed by seed, sample and step.
"""

import argparse
import time
from collections import deque
from statistics import median
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from diffusers.utils import logging

from pellucid.paths import LinearTable, Path
from pellucid.sampling import Scheme, walk
from pellucid.types import Batch, Denoised, Times

PAIRS: list[tuple[str, Any]] = [
    ("ddim", DDIMScheduler),
    ("euler", EulerDiscreteScheduler),
    ("dpmpp-2m", DPMSolverMultistepScheduler),
    ("euler-a", EulerAncestralDiscreteScheduler),
]
SHAPES = (1, 3, 32, 32), (64, 3, 32, 32)


class Free:
    """A network that costs nothing: the same answer whatever is asked."""

    def __init__(self, path: Path, answer: Batch) -> None:
        self.path, self.answer = path, Denoised(answer, answer)

    def __call__(self, x: Batch, t: Times) -> Denoised:
        return self.answer


def ours(name: str, x: Batch, steps: int) -> float:
    """Seconds a step of ours."""
    path = LinearTable()
    scheme = Scheme.make(path, name, steps, "trailing")
    state = scheme.sampler.init(x, torch.ones(len(x), dtype=torch.float64))
    began = time.perf_counter()
    deque(walk(Free(path, 0.7 * x), scheme, state, 0, torch.arange(len(x))), maxlen=0)
    return (time.perf_counter() - began) / steps


def theirs(scheduler: Any, x: Batch, steps: int) -> float:
    """Seconds a step of diffusers'."""
    rule = scheduler(timestep_spacing="trailing")
    rule.set_timesteps(steps)
    answer = 0.7 * x
    began = time.perf_counter()
    for t in rule.timesteps:
        x = rule.step(answer, t, x).prev_sample
    return (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    args, _ = parser.parse_known_args()
    logging.set_verbosity_error()
    print(f"{'us a step':12s}{'shape':>18s}{'pellucid':>26s}{'diffusers':>26s}{'ratio':>8s}")
    for shape in SHAPES:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for name, scheduler in PAIRS:
            turns = [(ours(name, x, args.steps), theirs(scheduler, x, args.steps)) for _ in range(args.turns + 1)][1:]
            a, b = ([1e6 * turn[i] for turn in turns] for i in (0, 1))
            row = "".join(f"{f'{median(v):.0f} ({min(v):.0f} - {max(v):.0f})':>26s}" for v in (a, b))
            print(f"{name:12s}{tuple(shape)!s:>18s}{row}{median(a) / median(b):8.2f}", flush=True)


if __name__ == "__main__":
    main()
