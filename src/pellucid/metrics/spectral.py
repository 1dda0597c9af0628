"""The power of pictures at each spatial frequency, and what noise leaves of it.

With the orthonormal Fourier transform X of a picture x of N pixels, |X_f|^2 sums to |x|^2 (Parseval), and white noise
of variance one has power 1 at every f. Averaged over all pictures, channels and frequencies of one radius,

    P_k = mean over round(|f|) = k of |X_f|^2,    |f| in cycles per shorter side,

and as x_t = alpha x0 + sigma eps, band k of x_t has the signal-to-noise ratio  alpha^2 P_k / sigma^2.
Natural pictures fall as P ~ |f|^-2 (Field 1987): noise hides the detail first, and diffusion draws from coarse to fine.
Samples whose detail is too soft or too sharp have another spectrum than the data; the distance, in decibels, is

    sqrt( mean over k of (10 log10 (P_k + q)/(Q_k + q))^2 ),    q = (2/255)^2/12 the noise of rounding to bytes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .estimate import POSITIVE, Figure, halved
from .metric import Case, Metric, registry

ROUNDING = (2 / 255) ** 2 / 12  # in model units


class Spectrum(NamedTuple):
    """Power by radius."""

    frequency: Tensor  # [k], cycles per shorter side: 0, 1, 2, ...
    power: Tensor  # [k], mean |X_f|^2
    modes: Tensor  # [k], how many f have that radius: sum(modes * power) is the mean |x|^2 of a channel


def spectrum(x: Tensor) -> Spectrum:
    """Radial power spectrum of samples [n, c, *spatial] in any number of spatial dimensions; float64."""
    modes = _radius(x.shape[2:]).bincount().double()
    return Spectrum(torch.arange(len(modes)).double(), bands(x).mean(0), modes)


def bands(x: Tensor) -> Tensor:
    """[n, k] the power of each sample by radius."""
    axes, radius = tuple(range(2, x.dim())), _radius(x.shape[2:])
    modes, found = radius.bincount(), []
    for part in x.split(256):
        power = torch.fft.fftn(part.double().cpu(), dim=axes, norm="ortho").abs().square().mean(1).flatten(1)
        found.append(power.new_zeros(len(part), len(modes)).index_add_(1, radius, power) / modes)
    return torch.cat(found)


def _radius(size: torch.Size) -> Tensor:
    """round(|f|) of each f, flat."""
    grid = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) * min(size) for n in size), indexing="ij")
    return torch.stack(grid).square().sum(0).sqrt().round().long().flatten()


def decibels(power: Tensor, other: Tensor) -> float:
    """The distance between two spectra [k] of samples in model units."""
    return (10 * ((power + ROUNDING) / (other + ROUNDING)).log10()).square().mean().sqrt().item()


def snr(power: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Signal-to-noise ratio of bands of `power` [k] at the levels alpha, sigma [t]: [t, k]; inf where sigma is 0."""
    return (alpha / sigma).square().unsqueeze(1) * power


@registry.register("spectral")
@dataclass(frozen=True)
class SpectralDistance(Metric):
    """The distance between the power spectra of pictures, in decibels."""

    better = "less"
    space = "values"

    def __call__(self, case: Case) -> dict[str, Figure]:
        if case.samples.x.dim() < 3:
            return {}
        x, y = bands(case.samples.x), bands(case.real.x)
        sizes, value = (len(x), len(y)), decibels(x.mean(0), y.mean(0))
        between = lambda i, j: decibels(x[i].mean(0), y[j].mean(0))  # noqa: E731
        return {"spectral": halved(value, between, *sizes, within=POSITIVE, seed=case.seed)}
