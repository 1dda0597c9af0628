"""The Frechet distance beside its definition: scipy's root of an unsymmetric matrix, turn by turn.

    python -m benchmarks.metrics [--turns 3] [--features 2048] [--samples 10000]        (pip install scipy)

`distance` starts from means and covariances, which is where all that was learnt before can be kept; `from samples`
counts them too, by numpy.cov on their side. The features are random, float64. The last columns are the median, and the
range, of the ratios within each turn, and the relative difference of the answers.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from pellucid.metrics import frechet_distance, moments

from .unet import spread


def definition(m1: np.ndarray, c1: np.ndarray, m2: np.ndarray, c2: np.ndarray) -> float:
    """|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2), as it is written."""
    return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * np.trace(sqrtm(c1 @ c2)).real)


def counted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(0), np.cov(x, rowvar=False)


def features(n: int, d: int, seed: int) -> Tensor:
    """Correlated, of full rank, and of another law for each seed."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=rng, dtype=torch.float64) * torch.logspace(0, -2, d, dtype=torch.float64)
    mirror = torch.nn.functional.normalize(torch.randn(d, generator=rng, dtype=torch.float64), dim=0)
    return x - 2 * (x @ mirror).unsqueeze(1) * mirror + 0.1 * seed


def timed(work: Callable[[], float]) -> tuple[float, float]:
    began = time.perf_counter()
    answer = work()
    return time.perf_counter() - began, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=10_000)
    args, _ = parser.parse_known_args()
    x, y = (features(args.samples, args.features, seed) for seed in (0, 1))
    a, b = moments(x), moments(y)
    plain = [array.numpy() for part in (a, b) for array in (part.mean, part.covariance)]
    works: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "distance": (lambda: definition(*plain), lambda: frechet_distance(a, b)),
        "from samples": (
            lambda: definition(*counted(x.numpy()), *counted(y.numpy())),
            lambda: frechet_distance(moments(x), moments(y)),
        ),
    }
    print(f"{'seconds':14s}{'scipy':>24s}{'pellucid':>24s}{'ratio':>24s}{'difference':>12s}")
    for name, (theirs, ours) in works.items():
        ours()
        turns = [(timed(theirs), timed(ours)) for _ in range(args.turns)]
        (_, one), (_, other) = turns[0]
        columns = [[t[0] for t, _ in turns], [o[0] for _, o in turns], [t[0] / o[0] for t, o in turns]]
        print(
            f"{name:14s}" + "".join(f"{spread(c):>24s}" for c in columns) + f"{abs(one - other) / one:12.0e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
