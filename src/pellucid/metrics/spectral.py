"""The power of pictures at each spatial frequency, and what noise leaves of it.

With the orthonormal Fourier transform X of a picture x of N pixels, |X_f|^2 sums to |x|^2 (Parseval), and white noise
of variance one has power 1 at every f. Averaged over all pictures, channels and frequencies of one radius,

    P_k = mean over round(|f|) = k of |X_f|^2,    |f| in cycles per shorter side,

and as x_t = alpha x0 + sigma eps, band k of x_t has the signal-to-noise ratio  alpha^2 P_k / sigma^2.
Natural pictures fall as P ~ |f|^-2 (Field 1987): noise hides the detail first, and diffusion draws from coarse to fine.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Spectrum(NamedTuple):
    """Power by radius."""

    frequency: Tensor  # [k], cycles per shorter side: 0, 1, 2, ...
    power: Tensor  # [k], mean |X_f|^2
    modes: Tensor  # [k], how many f have that radius: sum(modes * power) is the mean |x|^2 of a channel


def spectrum(x: Tensor) -> Spectrum:
    """Radial power spectrum of samples [n, c, *spatial] in any number of spatial dimensions; float64."""
    size = x.shape[2:]
    axes = tuple(range(2, x.dim()))
    total = torch.zeros(size, dtype=torch.float64)
    for part in x.split(256):
        total += torch.fft.fftn(part.double().cpu(), dim=axes, norm="ortho").abs().square().sum((0, 1))
    power = total / (x.shape[0] * x.shape[1])
    grid = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) * min(size) for n in size), indexing="ij")
    radius = torch.stack(grid).square().sum(0).sqrt().round().long().flatten()
    modes = radius.bincount().double()
    return Spectrum(torch.arange(len(modes)).double(), radius.bincount(power.flatten()) / modes, modes)


def snr(power: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Signal-to-noise ratio of bands of `power` [k] at the levels alpha, sigma [t]: [t, k]; inf where sigma is 0."""
    return (alpha / sigma).square().unsqueeze(1) * power
