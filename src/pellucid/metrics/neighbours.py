"""Are the samples copies? Compare how near they lie to the training data with how near fresh data lie.

    copy ratio = median_i  min_j |sample_i - train_j|  /  median_i  min_j |held_out_i - train_j|

Near 1, the samples are as new as held-out data are; near 0 they repeat the training data; far above 1 they are not like
the data at all. It says nothing of a few copies among many new samples; those are found one by one: x is a

    copy       where  |x - nearest training sample| < 1/3 |x - the second nearest|    (Yoon et al. 2023, sec. 3)

Real data have such neighbours too, so the share of copies is read beside that of held-out data: a model memorises where
the interval of its share lies above theirs. Both are meant for small pictures, where pixels are a fair measure.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import PellucidError
from .estimate import POSITIVE, Figure, share
from .metric import Case, Metric, registry
from .sets import distances, rows, spaced

THIRD = 1 / 3


def nearest(x: Tensor, data: Tensor) -> Tensor:
    """Distance of each of x [n, ...] to the nearest of data [m, ...]: float64 [n], in the units of the values."""
    data = data.flatten(1).double()
    return torch.cat([torch.cdist(part, data).amin(1) for part in x.flatten(1).double().split(256)])


def copy_ratio(samples: Tensor, train: Tensor, held_out: Tensor, seed: int = 0) -> Figure:
    """Median nearest distance of samples over that of held-out data, equally many of each; the error by bootstrap."""
    n = min(len(samples), len(held_out))
    near, fresh = (nearest(x[spaced(len(x), n)], train) for x in (samples, held_out))
    rng = torch.Generator().manual_seed(seed)
    one, other = torch.randint(n, (2, 500, n), generator=rng)
    ratios = near[one].median(1).values / fresh[other].median(1).values
    if not bool(ratios.isfinite().all()):
        raise PellucidError("about half of the held-out data or more are training data too; hold out others.")
    return Figure.of((near.median() / fresh.median()).item(), ratios.std().item(), POSITIVE)


class Origin(NamedTuple):
    """The training sample nearest to each of n samples."""

    place: Tensor  # int64 [n], among the training data
    distance: Tensor  # [n], in the units of the values
    ratio: Tensor  # [n], to the distance of the second nearest: near 0, a copy


def origin(x: Tensor, train: Tensor) -> Origin:
    """Where each of x [n, ...] may have been taken from among train [m, ...], m > 1."""
    data = rows(train)
    found = [distances(part, data).topk(2, largest=False) for part in rows(x).split(256)]
    two = torch.cat([near.values for near in found])
    ratio = torch.where(two[:, 0] > 0, two[:, 0] / two[:, 1], 0)
    return Origin(torch.cat([near.indices[:, 0] for near in found]), two[:, 0], ratio)


def copies(x: Tensor, train: Tensor) -> Figure:
    """The share of copies among x [n, ...]."""
    return share(origin(x, train).ratio < THIRD)


@registry.register("copies", "memorisation")
@dataclass(frozen=True)
class Copies(Metric):
    """Copies of the training data: how near to it the samples lie, and how many are one of its pictures."""

    better = "near"
    space = "values"
    most = 10_000

    def __call__(self, case: Case) -> dict[str, Figure]:
        x, train = case.samples.x, case.train
        found = {"copies": copies(x, train)}
        try:
            return {"copy_ratio": copy_ratio(x, train, case.real.x, case.seed)} | found
        except PellucidError:  # what is no news to the training data cannot say how near news lie
            return found

    def floor(self, case: Case) -> Case:
        """One half of the held-out data against the other: what copies fresh data are."""
        place = torch.arange(len(case.real.x))
        return case.instead(case.real.take(place[::2]), case.real.take(place[1::2]))
