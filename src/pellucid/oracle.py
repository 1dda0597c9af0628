r"""The oracle: distributions whose every answer is known. The judge of all tests.

For data with density sum_k w_k N(mu_k, S_k) the noisy x_t has density sum_k w_k N(alpha mu_k, C_k), with
C_k = alpha^2 S_k + sigma^2 I, and with r_k = P(k | x_t):

    E[x0  | x_t] = sum_k r_k (mu_k + alpha S_k C_k^-1 (x_t - alpha mu_k))
    E[eps | x_t] = sum_k r_k  sigma C_k^-1 (x_t - alpha mu_k)

Both halves are finite and exact at t = 0 and t = 1. A data set is the mixture of its points with S_k = 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .covariance import empirical, spectrum
from .errors import PellucidError
from .noise import START, directions, normal, uniform
from .paths import Path
from .types import Batch, Cond, Denoised, Spectrum, Times

BLOCK = 1 << 23  # numbers of a data set that are in float64 at a time
EXACT = 20_000_000
"""Numbers in a data set up to which its exact denoiser is asked."""


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """weights [k], means [k, d], covariances [k, d, d] (or [d, d], or one variance), labels [k] of classes; float64.

    Covariances [k, 1, d] are their diagonals: so many dimensions as a picture has cost no more than they must.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        weights, means = torch.as_tensor(self.weights).double(), torch.as_tensor(self.means).double()
        k, d = means.shape
        covariances = torch.as_tensor(self.covariances).double()
        straight = covariances.dim() == 0 or (covariances.dim() == 3 and covariances.shape[1] == 1 < d)
        rows = covariances.expand(k, 1, d)[:, 0] if straight else None
        if covariances.dim() == 0:
            covariances = covariances * torch.eye(d, dtype=torch.float64)
        if not all(bool(v.isfinite().all()) for v in (weights, means, covariances)):
            raise PellucidError("a mixture has numbers that are not finite; expected finite ones.")
        if rows is None and not torch.allclose(covariances, covariances.mT):
            raise PellucidError("a mixture's covariances are not symmetric; expected each to equal its transpose.")
        variances, axes = torch.linalg.eigh(covariances.expand(k, d, d)) if rows is None else (rows, None)
        if len(weights) != k or not bool((weights > 0).all()) or not bool((variances > -1e-12).all()):
            raise PellucidError("a mixture's weights or covariances are not positive, or not one for each mean.")
        parts = {"weights": weights / weights.sum(), "means": means, "covariances": covariances.expand(k, -1, d)}
        for name, value in {**parts, "_variances": variances.clamp(min=0), "_axes": axes}.items():
            object.__setattr__(self, name, value)

    @staticmethod
    def random(components: int, dim: int, seed: int = 0, spread: float = 1.0) -> "GaussianMixture":
        """A mixture with random weights, means of scale `spread` and full covariances: no symmetry to be lucky with."""
        index = torch.arange(components)
        means = spread * normal(seed, index, 0, (dim,), dtype=torch.float64)
        roots = normal(seed, index, 1, (dim, dim), dtype=torch.float64) * 0.3 / math.sqrt(dim)
        floor = 0.05 * torch.eye(dim, dtype=torch.float64)
        labels = torch.arange(components) % 2
        return GaussianMixture(uniform(seed, index) + 0.5, means, roots @ roots.mT + floor, labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return (self.means.shape[1],)

    @property
    def std(self) -> float:
        """Of all values about their mean."""
        second = (self._variances + self.means**2).mean(1) @ self.weights  # type: ignore[attr-defined]
        return float((second - (self.means.mean(1) @ self.weights) ** 2).sqrt())

    @cached_property
    def spectrum(self) -> Spectrum:
        """In which directions it reaches how far: of the covariances' mean and the means' covariance."""
        apart = (self.means - self.weights @ self.means) * self.weights.sqrt()[:, None]
        variances, axes = self._variances, self._axes  # type: ignore[attr-defined]

        def product(v: Tensor) -> Tensor:
            if axes is None:
                return (self.weights @ variances)[:, None] * v + apart.mT @ (apart @ v)
            within = axes @ (variances[..., None] * (axes.mT @ v))
            return torch.einsum("k,kdp->dp", self.weights, within) + apart.mT @ (apart @ v)

        return spectrum(product, directions(self.means.shape[1]))

    def at(self, path: Path) -> "Oracle":
        """The exact denoiser of this data on `path`: a Model."""
        return Oracle(self, path)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """[n, d] exact samples."""
        index = torch.arange(n)
        z = normal(seed, index, 0, self.shape, stream=START, dtype=torch.float64)
        which = torch.searchsorted(self.weights.cumsum(0), uniform(seed, index)).clamp(max=len(self.weights) - 1)
        scaled = z * self._variances[which].sqrt()  # type: ignore[attr-defined]
        return self.means[which] + self._turned(scaled, "nij,nj->ni", which)

    def log_prob(self, x: Tensor, path: Path | None = None, t: Times | float = 0.0) -> Tensor:
        """[n] log density of x_t, in nats; without a path, of the data itself."""
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(x))
        one, zero = torch.ones_like(times), torch.zeros_like(times)
        alpha, sigma = (path.alpha(times), path.sigma(times)) if path else (one, zero)
        return torch.logsumexp(self._terms(x.double(), alpha, sigma)[0], 1)

    def _terms(self, x: Tensor, alpha: Times, sigma: Times) -> tuple[Tensor, Tensor, Tensor]:
        """log w_k N(x; alpha mu_k, C_k) [n, k]; the eigenvalues of C_k [n, k, d]; x - alpha mu_k in its axes."""
        gap = self._turned(x[:, None] - alpha[:, None, None] * self.means, "kij,nki->nkj")
        spread = alpha[:, None, None] ** 2 * self._variances + sigma[:, None, None] ** 2  # type: ignore[attr-defined]
        square = (gap**2 / spread + spread.log() + math.log(2 * math.pi)).sum(-1)
        return self.weights.log() - square / 2, spread, gap

    def denoise(self, x: Tensor, alpha: Times, sigma: Times, allowed: Tensor | None = None) -> Denoised:
        """The exact pair at x; `allowed` [n, k] restricts each sample to some components (its class)."""
        log_terms, spread, gap = self._terms(x.double(), alpha, sigma.clamp(min=1e-140))  # of data without room too
        if allowed is not None:
            log_terms = torch.where(allowed, log_terms, -torch.inf)
        r = torch.softmax(log_terms, 1)
        white = gap / spread
        back = lambda v: torch.einsum("nk,nki->ni", r, self._turned(v, "kij,nkj->nki"))  # noqa: E731
        x0 = r @ self.means + back(alpha[:, None, None] * self._variances * white)  # type: ignore[attr-defined]
        return Denoised(x0.to(x.dtype), back(sigma[:, None, None] * white).to(x.dtype))

    def _turned(self, v: Tensor, how: str, which: Tensor | slice = slice(None)) -> Tensor:
        """v by the axes of its components; as it is where those are the axes of the space."""
        axes = self._axes  # type: ignore[attr-defined]
        return v if axes is None else torch.einsum(how, axes[which], v)


@dataclass(frozen=True, eq=False)
class Empirical:
    """The distribution of a data set: points [n, *shape], each with weight 1/n, labels [n] for classes.

    Its denoiser is the exact minimiser of the training loss on that set: it returns training data as t falls.
    """

    points: Tensor
    labels: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.points.shape[1:])

    def at(self, path: Path) -> "Oracle":
        """The exact denoiser of this data on `path`: a Model."""
        return Oracle(self, path)

    @property
    def std(self) -> float:
        """Of all values about their mean."""
        return float(self.points.double().std(correction=0))

    @cached_property
    def spectrum(self) -> Spectrum:
        """In which directions the points reach how far."""
        return spectrum(empirical(self.points.double()), directions(math.prod(self.shape)))

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """[n, *shape] points drawn with replacement."""
        return self.points[(uniform(seed, torch.arange(n)) * len(self.points)).long()]

    def _blocks(self) -> Iterator[Tensor]:
        """The points in float64, some of them at a time."""
        for part in self.points.split(max(1, BLOCK // math.prod(self.shape))):
            yield part.double().flatten(1)

    def _logits(self, x: Tensor, alpha: Times, sigma: Times) -> Tensor:
        """-|x - alpha x_i|^2 / (2 sigma^2), [b, n]."""
        flat = x.double().flatten(1)
        scaled = flat / alpha[:, None].clamp(min=1e-300)
        square = torch.cat([torch.cdist(scaled, part) for part in self._blocks()], 1) ** 2 * alpha[:, None] ** 2
        square = torch.where(alpha[:, None] > 0, square, flat.square().sum(1, keepdim=True))
        return -square / (2 * sigma[:, None] ** 2)

    def log_prob(self, x: Tensor, path: Path, t: Times | float) -> Tensor:
        """[b] log density of x_t, in nats, t > 0 (at t = 0 there is none)."""
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(x))
        sigma, dim = path.sigma(times), math.prod(self.shape)
        scale = math.log(len(self.points)) + dim * (sigma.log() + math.log(2 * math.pi) / 2)
        return torch.logsumexp(self._logits(x, path.alpha(times), sigma), 1) - scale

    def denoise(self, x: Tensor, alpha: Times, sigma: Times, allowed: Tensor | None = None) -> Denoised:
        """The exact pair at x: x0 = sum_i r_i x_i, eps = (x - alpha x0)/sigma."""
        tiny = sigma.clamp(min=1e-150)
        logits = self._logits(x, alpha, tiny)
        if allowed is not None:
            logits = torch.where(allowed, logits, -torch.inf)
        r = torch.softmax(logits - logits.amax(1, keepdim=True), 1)
        shares = r.split(max(1, BLOCK // math.prod(self.shape)), dim=1)
        x0 = torch.stack([share @ part for share, part in zip(shares, self._blocks(), strict=True)]).sum(0)
        eps = (x.double().flatten(1) - alpha[:, None] * x0) / tiny[:, None]
        eps = torch.where(sigma[:, None] > 0, eps, 0.0)
        return Denoised(x0.reshape(x.shape).to(x.dtype), eps.reshape(x.shape).to(x.dtype))


@dataclass(frozen=True, eq=False)
class Oracle:
    """The exact denoiser of a known distribution on a path: a Model in float64 on the CPU."""

    data: GaussianMixture | Empirical
    path: Path
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.data.shape

    @property
    def data_std(self) -> float:
        """The std of the data, as a denoiser has measured it."""
        return self.data.std

    @property
    def spectrum(self) -> Spectrum:
        """The spectrum of the data, as a denoiser has measured it."""
        return self.data.spectrum

    @property
    def hears(self) -> frozenset[str]:
        """The label, where the data have classes."""
        return frozenset({"label"} if self.data.labels is not None else ())

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        return self.data.denoise(x, self.path.alpha(t), self.path.sigma(t), _allowed(self.data.labels, cond))


def _allowed(labels: Tensor | None, cond: Cond | None) -> Tensor | None:
    """[b, k]: the components of each sample's class; all of them where its condition is dropped or absent."""
    if labels is None or not cond or "label" not in cond:
        return None
    own = cond["label"][:, None] == labels
    absent = ~own.any(1) & ~cond.get("drop", torch.zeros(len(own), dtype=torch.bool))
    if absent.any():
        raise PellucidError(
            f"label {cond['label'][absent][0].item()} has no data; take one of {labels.unique().tolist()}."
        )
    return own | cond["drop"][:, None] if "drop" in cond else own
