r"""Frequencies: what noise hides first, and what diffusion therefore draws last.

With P_k the power of the data at radius k (metrics.spectral), x_t has  alpha^2 P_k + sigma^2,  and band k the
signal-to-noise ratio  alpha^2 P_k/sigma^2.  A linear denoiser keeps  SNR/(1 + SNR)  of the band's power: the share of
it that is decided at t. It is one half at  lam_k = -log(P_k)/2.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..metrics.spectral import snr, spectrum
from ..paths import Path
from .chapter import Chapter, Picture
from .mathematics import display, inline, number
from .style import BLUE, FAINT, INK, WIDTH, draw, label
from .subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANDS = 6


class Bands(NamedTuple):
    """For each radius: power of the data, its half-decided lam and t; SNR [t, k] at `times` [t]."""

    frequency: Tensor
    power: Tensor
    lam: Tensor
    t: Tensor
    times: Tensor
    snr: Tensor


def bands(path: Path, frequency: Tensor, power: Tensor) -> Bands:
    """When each band of a spectrum is decided on a path."""
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    lam = -power.log() / 2
    last = path.lam(torch.ones((), dtype=torch.float64))
    return Bands(
        frequency, power, lam, path.time(lam.clamp(min=last)), times, snr(power, path.alpha(times), path.sigma(times))
    )


def tell(subject: Subject) -> Chapter | None:
    """Spectra of data, of x_t and of samples, and when each band is decided. Points have none."""
    if not subject.data.pictures:
        return None
    mean = subject.data.mean
    data, drawn = spectrum(subject.draw_batch(2000)[0] - mean), spectrum(subject.walk[-1].x - mean)
    found = bands(subject.path, data.frequency, data.power.clamp(min=1e-12))
    words = (
        "<p>In the Fourier domain noise is flat and pictures are not: their power falls with the frequency. So noise "
        "hides the fine detail first, and drawing goes from coarse to fine. A band of power "
        + inline("P_k")
        + " is half "
        "decided where it equals the noise,</p>"
        + display('{alpha^2 P_k}/{sigma^2} = 1 , "at" lam_k = - {1}/{2} "log" P_k .')
        + f"<p>Here that is at t = {number(float(found.t[1]), 2)} for the coarsest band and at "
        f"t = {number(float(found.t[-1]), 2)} for the finest.</p>"
    )
    numbers = {name: value.tolist() for name, value in found._asdict().items()} | {"samples": drawn.power.tolist()}
    return Chapter("spectrum", "Coarse first, fine last", (words, _picture(subject, found, drawn.power)), numbers)


def _picture(subject: Subject, found: Bands, drawn: Tensor) -> Picture:
    wanted = torch.linspace(float(found.t[1]), float(found.t[-1]), BANDS, dtype=torch.float64)
    shown = sorted({1 + int((found.t[1:] - t).abs().argmin()) for t in wanted})
    share = 1 / (1 + 1 / found.snr)

    def paint(figure: "Figure") -> None:
        from matplotlib import colormaps

        left, right = figure.subplots(1, 2)
        f, power = found.frequency[1:], found.power[1:]
        for lam in torch.linspace(float(found.lam[1]), float(found.lam[1:].max()), 3).tolist():
            noisy = torch.sigmoid(torch.tensor(2 * lam)) * power + torch.sigmoid(torch.tensor(-2 * lam))
            left.loglog(f, noisy, color=FAINT, lw=0.8)
            label(left, float(f[-1]), float(noisy[-1]), rf"$\lambda = {lam:.1f}$", FAINT, size=8.5)
        left.loglog(f, power, color=INK)
        left.loglog(f, drawn[1:], "o", color=BLUE, ms=3.5)
        left.text(0.05, 0.14, "data", color=INK, transform=left.transAxes)
        left.text(0.05, 0.05, "samples", color=BLUE, transform=left.transAxes)
        left.set(title="power, of data and of $x_t$", xlabel="frequency, cycles per picture")
        ticks = [2**i for i in range(12) if 2**i <= f[-1]]
        left.set_xticks(ticks, [str(tick) for tick in ticks])
        left.minorticks_off()
        last = 1.0
        for k in shown:
            colour = colormaps["viridis"](0.8 * (k - 1) / max(1, len(found.power) - 2))
            right.plot(found.times, share[:, k], color=colour)
            place = int((share[:, k] - 0.5).abs().argmin())
            if found.times[place] < last - 0.05:
                right.annotate(
                    f"{int(found.frequency[k])}", (last := float(found.times[place]), float(share[place, k])), (-3, 2),
                    textcoords="offset points", color=colour, ha="right",
                )  # fmt: skip
        right.set(title="share of each frequency that is decided", xlabel="$t$, as sampling goes", xlim=(1, 0))
        right.set_ylim(0, 1.02)

    alt = "Radial power spectra of data, noisy data and samples; and the share of each frequency decided over time."
    caption = (
        "Left, grey: noisy data, scaled to α² + σ² = 1. Right: SNR/(1 + SNR) of each frequency, from noise to data."
    )
    return draw("spectrum", (WIDTH, 2.9), paint, alt, caption)
