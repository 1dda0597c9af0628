"""Are the samples copies? Compare how near they lie to the training data with how near fresh data lie.

    copy ratio = median_i  min_j |sample_i - train_j|  /  median_i  min_j |held_out_i - train_j|

Near 1, the samples are as new as held-out data are; near 0 they repeat the training data; far above 1 they are not like
the data at all. It is meant for small pictures, where pixels are a fair measure.
"""

import torch
from torch import Tensor

from .estimate import Estimate


def nearest(x: Tensor, data: Tensor) -> Tensor:
    """Distance of each of x [n, ...] to the nearest of data [m, ...]: float64 [n], in the units of the values."""
    data = data.flatten(1).double()
    return torch.cat([torch.cdist(part, data).amin(1) for part in x.flatten(1).double().split(256)])


def copy_ratio(samples: Tensor, train: Tensor, held_out: Tensor, seed: int = 0) -> Estimate:
    """Median nearest distance of samples over that of held-out data, equally many of each; the error by bootstrap."""
    n = min(len(samples), len(held_out))
    near, fresh = nearest(samples[:n], train), nearest(held_out[:n], train)
    rng = torch.Generator().manual_seed(seed)
    one, other = torch.randint(n, (2, 500, n), generator=rng)
    ratios = near[one].median(1).values / fresh[other].median(1).values
    return Estimate((near.median() / fresh.median()).item(), ratios.std().item())
