"""Strangers in one batcher: pictures a second of 16 requests alone and shared, with a small U-Net.

    python -m benchmarks.strangers [--turns 5] [--requests 16]

Each request wants one 3 x 16 x 16 picture, with its own sampler, steps, seed, label and guidance. Alone, one runs after
another; shared, all run at once. The last column is the median, and the range, of the ratios within each turn.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from pellucid import sample
from pellucid.batcher import Batcher
from pellucid.denoiser import Denoiser
from pellucid.types import Model

SAMPLERS = "dpmpp-2m", "ddim", "heun", "dpmpp-2m-sde", "unipc", "ddpm", "lms", "dpmpp-sde"
NET = {"name": "unet", "width": 32, "multipliers": [1, 2], "blocks": 1}


def stranger(i: int) -> Callable[[Model], object]:
    """The i-th request."""
    sampler, steps, guidance = SAMPLERS[i % len(SAMPLERS)], 10 + 5 * (i % 3), None if i % 2 else 2.0
    return lambda model: sample(
        model, 1, sampler=sampler, steps=steps, seed=i, cond={"label": i % 10}, guidance=guidance
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--requests", type=int, default=16)
    args, _ = parser.parse_known_args()
    conditioner = {"name": "label", "classes": 10, "width": 32}
    settings = {"path": "cosine", "prediction": "v", "data_std": 1.0, "clock": "time"}
    model = Denoiser.from_config({"shape": [3, 16, 16], "net": NET, "conditioner": conditioner, **settings}).eval()
    works, turns, calls = [stranger(i) for i in range(args.requests)], list[tuple[float, float]](), (0, 0)
    for _ in range(args.turns + 1):
        began = time.perf_counter()
        for work in works:
            work(model)
        middle = time.perf_counter()
        with Batcher(model) as batcher:
            requests = [batcher.submit(work) for work in works]
        turns.append((middle - began, time.perf_counter() - middle))
        calls = sum(request.calls for request in requests), batcher.calls
    alone, shared = ([args.requests / turn[i] for turn in turns[1:]] for i in (0, 1))  # the first warms up
    ratios = [turn[0] / turn[1] for turn in turns[1:]]
    print(f"{'':10s}{'alone':>24s}{'shared':>24s}{'ratio':>22s}")
    row = "".join(f"{f'{median(v):.2f} ({min(v):.2f} - {max(v):.2f})':>24s}" for v in (alone, shared, ratios))
    print(f"{'images/s':10s}{row}\n{'calls':10s}{calls[0]:>24d}{calls[1]:>24d}{calls[0] / calls[1]:>24.2f}")
    print(f"{torch.get_num_threads()} threads, batch sizes up to {batcher.batch} rows", flush=True)


if __name__ == "__main__":
    main()
