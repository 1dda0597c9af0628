"""What a likelihood is: terms in nats for each sample, drawn more than once, and so how well it is known.

    log p(x_i) = mean over rounds of  sum over terms of  l_ij

Rounds differ in what was drawn (noise, times, probes, dequantisation); each alone is without bias. Two errors follow:
`chance` of what was drawn, from the spread of the rounds, and that of the mean over samples, from the spread of the
samples' values, which chance has widened already. In bits, -log2 p per dimension.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..conditioning import Conditions, asked
from ..errors import PellucidError, integer
from ..metrics.estimate import Estimate
from ..types import Batch, Cond, Model, Times


class Curve(NamedTuple):
    """Where a bound is lost: the nats [m], with errors [m], that fall between consecutive `times` [m + 1]."""

    times: Times
    nats: Tensor
    error: Tensor


class Likelihood(NamedTuple):
    """The terms of log p (or of a bound below it) of n samples of `dims` numbers, float64 [n, rounds] each, in nats.

    drawn: whether rounds differ by chance. cut: [n] nats that stopping short of t = 0 leaves out, to leading order.
    calls: of the network for each sample.
    """

    kind: str
    terms: dict[str, Tensor]
    dims: int
    drawn: bool
    calls: float
    seconds: float
    curve: Curve | None = None
    cut: Tensor | None = None

    @property
    def rounds(self) -> Tensor:
        """[n, rounds]: what each round says of log p."""
        return torch.stack(list(self.terms.values())).sum(0)

    @property
    def nats(self) -> Tensor:
        """[n]: log p of each sample."""
        return self.rounds.mean(1)

    @property
    def chance(self) -> Tensor:
        """[n]: the standard error of each sample's number; 0 where nothing is drawn, nan where it is drawn once."""
        n, rounds = self.rounds.shape
        if not self.drawn or rounds == 1:
            return torch.full((n,), math.nan if self.drawn else 0.0, dtype=torch.float64)
        return self.rounds.std(1) / rounds**0.5

    @property
    def bits(self) -> Tensor:
        """[n]: bits per dimension of each sample."""
        return -self.nats / (self.dims * math.log(2))

    def mean(self, term: str | None = None) -> Estimate:
        """The mean over samples of log p, or of one of its terms, in nats."""
        return estimate((self.rounds if term is None else self.terms[term]).mean(1))

    def rate(self) -> Estimate:
        """The mean over samples in bits per dimension."""
        return estimate(self.bits)

    def drawing(self) -> float:
        """The part of the mean's error, in nats, that more rounds would lower."""
        return float(self.chance.square().mean() / len(self.rounds)) ** 0.5


def estimate(each: Tensor) -> Estimate:
    """The mean of independent numbers [n] and its standard error."""
    error = float(each.std()) / len(each) ** 0.5 if len(each) > 1 else math.nan
    return Estimate(float(each.mean()), error)


def door(model: Model, x: Batch, cond: Conditions, grain: float, counts: dict[str, int]) -> Cond:
    """The conditions, a value for each sample; refuses what is no data of this model, and counts below 1."""
    for name, count in counts.items():
        integer(name, count)
    if tuple(x.shape[1:]) != tuple(model.shape) or x.dim() < 2:
        raise PellucidError(f"the data is {list(x.shape)}; expected samples of {list(model.shape)}, like the model's.")
    if not len(x):
        raise PellucidError("there are no samples; expected one or more.")
    if not bool(x.isfinite().all()):
        raise PellucidError("the data holds numbers that are not finite; mend or leave out those samples.")
    if not 0 <= grain < math.inf:
        raise PellucidError(f"grain is {grain}; expected the step between values (2/255 for bytes), or 0 for none.")
    steps = (x.double() + 1) / grain if grain else x.new_zeros(1)
    if not bool(((steps - steps.round()).abs() < 1e-2).all()):
        raise PellucidError(f"the data is not on steps of {grain:.4g} from -1; take grain = 0 for continuous data.")
    return asked(model, cond, len(x))
