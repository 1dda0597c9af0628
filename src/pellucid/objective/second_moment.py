r"""Times that learn where the loss is large: importance sampling by second moments (Nichol & Dhariwal 2021, sec. 3.3).

    E_{k ~ p} [l_k / (K p_k)] = 1/K sum_k E l_k   for every p;   its variance is least for   p_k ~ sqrt(E l_k^2)

Time is cut into K levels, uniform within each, p(t) = K p_k. E l_k^2 is the mean over the last 10 losses of level k;
until every level has as many, all are drawn alike, and a small share is drawn so for ever, that none is forgotten.
"""

import torch
from torch import Tensor, nn

from ..paths import Path
from ..registry import Count, Share
from ..types import Times
from .time import TimeSampler, times

KEPT = 10
"""Losses of each level that are remembered."""


@times.register("second-moment", "loss-second-moment")
class SecondMoment(TimeSampler, nn.Module):
    """t ~ sqrt(E l_t^2), with `share` of the draws uniform. What it has heard is the state of a run: `state_dict()`."""

    learns = True

    def __init__(self, *, levels: Count = 1000, share: Share = 0.001) -> None:
        nn.Module.__init__(self)
        self.levels, self.share = levels, share
        self.register_buffer("losses", torch.zeros(levels, KEPT, dtype=torch.float64))
        self.register_buffer("heard", torch.zeros(levels, dtype=torch.int64))
        self.losses: Tensor
        self.heard: Tensor

    def chances(self) -> Tensor:
        """[levels] p_k."""
        if bool((self.heard < KEPT).any()):
            return torch.full_like(self.losses[:, 0], 1 / self.levels)
        moment = self.losses.square().mean(1).sqrt() + 1e-150  # a model without error is asked everywhere
        return (1 - self.share) * moment / moment.sum() + self.share / self.levels

    def times(self, u: Tensor, path: Path) -> Times:
        chances = self.chances()
        ends = chances.cumsum(0)
        k = torch.searchsorted(ends, u * ends[-1], right=True).clamp(max=self.levels - 1)
        inside = (u * ends[-1] - ends[k] + chances[k]) / chances[k]
        return (k + inside.clamp(0, 1 - 1e-9)) / self.levels

    def density(self, t: Times, path: Path) -> Times:
        return self.levels * self.chances()[self.level(t)]

    def level(self, t: Times) -> Tensor:
        """[b] k, the level of each time."""
        return (t * self.levels).long().clamp(0, self.levels - 1)

    def hear(self, t: Times, losses: Tensor) -> None:
        k, order = self.level(t).sort(stable=True)  # in the order of the batch, level by level
        first = torch.searchsorted(k, k)
        turn, many = torch.arange(len(k)) - first, torch.searchsorted(k, k, right=True) - first
        late = turn >= many - KEPT  # of more than are kept, the last
        self.losses[k[late], (self.heard[k] + turn)[late] % KEPT] = losses[order][late]
        self.heard += torch.bincount(k, minlength=self.levels)
