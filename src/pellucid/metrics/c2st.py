"""Can a classifier tell samples from data? Its accuracy on pairs that it has not seen (Lopez-Paz & Oquab 2017, eq. 2).

    f(z) = sum_i a_i k(z, z_i),    a = (K + r I)^-1 t,    t = +1 for data, -1 for samples

Kernel ridge regression, k Gaussian as wide as the data's median distance: one linear system, no chance. It learns from
one half of each set and is asked about the other; equally many of each, so that 1/2 is a blind guess, and what samples
of the data's own law score.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .estimate import Figure, share
from .kernel import Kernel, gaussian
from .metric import Case, Metric, registry
from .sets import both

RIDGE = 0.001  # of the number of samples


def c2st(x: Tensor, y: Tensor, seed: int = 0) -> Figure:
    """How often samples x [n, ...] and data y [m, ...] are told apart."""
    x, y = both(x, y, 4)
    n, rng = min(len(x), len(y)) // 2, torch.Generator().manual_seed(seed)
    x, y = (one[torch.randperm(len(one), generator=rng)[: 2 * n]] for one in (x, y))
    learnt, asked = (torch.cat([x[part], y[part]]) for part in (slice(n), slice(n, None)))
    sign = torch.cat([-torch.ones(n), torch.ones(n)]).double()
    return share(_answers(gaussian(y[:n]), learnt, asked, sign) * sign > 0)


def _answers(kernel: Kernel, learnt: Tensor, asked: Tensor, sign: Tensor) -> Tensor:
    system = kernel(learnt, learnt) + RIDGE * len(learnt) * torch.eye(len(learnt), dtype=torch.float64)
    return kernel(asked, learnt) @ torch.linalg.solve(system, sign.unsqueeze(1)).squeeze(1)


@registry.register("c2st", "classifier-two-sample-test")
@dataclass(frozen=True)
class TwoSampleTest(Metric):
    """How often a classifier of the features tells samples from data: 1/2 where it cannot."""

    better = "less"
    most = 4000

    def __call__(self, case: Case) -> dict[str, Figure]:
        return {"c2st": c2st(case.samples.features, case.real.features, case.seed)}
