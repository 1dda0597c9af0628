r"""Extended reverse SDEs: any amount of noise, Adams predictors and correctors. SA-Solver and ER-SDE are settings.

With r = sigma/alpha and any psi(r) that does not fall, the reverse process of amount rho = d log psi / d log r is, in
lam = -log r (Cui et al. 2023, eq. 8; Xue et al. 2023, eq. 5, tau^2 = rho),

    x_s = sigma_s/sigma_t kappa x_t + alpha_s int_t^s x0 dG + sigma_s sqrt(1 - kappa^2) z
    kappa = psi_s/psi_t,    G(u) = (r_s/r_u) (psi_s/psi_u),    G(s) = 1

With q = lam or r as clock, q_0 ... q_k the nodes whose x0 are known and D_k their divided differences, Newton's
polynomial gives int x0 dG = sum_k b_k D_k. By parts, so that psi needs no derivative and may have corners:

    b_k = int P_k dG = P_k(s) - P_k(t) G(t) - int P_k' G dq,    P_k = (q - q_0) ... (q - q_(k-1))

The predictor's nodes are t and the past; the corrector's have s too, where x0 is what the network says of the
prediction: heard at the next step anyway (PEC), or asked for, and again of the corrected x (PECE).
A node that is missing has lam = -inf, its divided differences vanish, and the order falls by itself.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import PellucidError
from ..paths import Path
from ..registry import Limit
from ..types import Batch, Denoise, Noise, State, Times, combine
from .base import Number, Sampler, at, finite, registry, some, unseen


def _gauss(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre on [0, 1], from the eigenvectors of Jacobi's matrix (Golub & Welsch)."""
    k = torch.arange(1, n, dtype=torch.float64)
    beta = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beta, 1) + torch.diag(beta, -1))
    return (nodes + 1) / 2, vectors[0] ** 2


@registry.register("extended-sde")
@dataclass(frozen=True)
class ExtendedSDE(Sampler):
    """Adams's methods for x0 with `order` nodes, and `corrector` nodes (0: none; the new one counts) in `mode`.

    noise: "power" is psi = r^rho where low <= r <= high and constant outside: rho = 1 is the reverse SDE, 0 the ODE;
    "er" is psi = exp(r^0.3) + 10 (Cui et al. 2023, ER SDE 5). clock: the variable of the polynomial.
    """

    order: int = 2
    corrector: int = 0
    mode: Literal["PEC", "PECE"] = "PEC"
    noise: Literal["power", "er"] = "power"
    rho: float = 1.0
    low: float = 0.0
    high: Limit = math.inf
    clock: Literal["lam", "sigma"] = "lam"

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4) or self.corrector not in (0, 2, 3, 4):
            raise PellucidError(
                f"order is {self.order} and corrector is {self.corrector}; expected 1 to 4, and 0 (none) or 2 to 4."
            )
        if not self.rho >= 0 or not 0 <= self.low < self.high:
            raise PellucidError(
                f"rho is {self.rho}, low {self.low}, high {self.high}; expected 0 (no noise) or more, and low < high."
            )

    @property
    def stochastic(self) -> bool:
        return self.noise == "er" or self.rho > 0

    @property
    def calls(self) -> int:  # type: ignore[override]
        return 2 if self.corrector and self.mode == "PECE" else 1

    @property
    def past(self) -> int:
        return max(self.order - 1, self.corrector - 2, 0)

    @property
    def owing(self) -> bool:
        """Whether a step leaves its correction to the next, which hears what the network says of the prediction."""
        return bool(self.corrector) and self.mode == "PEC"

    def init(self, x: Batch, t: Times) -> State:
        debt = (x, torch.zeros_like(t)) if self.owing else ()  # x + 0 x0 is x
        return State(x, t, (*unseen(x, t, self.past), *debt))

    def psi(self, lam: Times) -> Times:
        """log psi."""
        if self.noise == "er":
            return torch.logaddexp(torch.exp(-0.3 * lam), torch.tensor(10.0, dtype=lam.dtype).log())
        return self.rho * torch.exp(-lam).clamp(self.low, self.high).log() if self.rho else torch.zeros_like(lam)

    def coefficients(self, path: Path, t: Times, s: Times, past: Times) -> tuple[Times, ...]:
        here, there, alpha, sigma = path.lam(t), path.lam(s), path.alpha(s), path.sigma(s)
        fall = self.psi(there) - self.psi(here)  # log kappa
        fall = torch.where(fall > -1e-12, 0.0, fall)  # at a corner of psi rounding is no noise: its root would be
        kept, fresh = sigma / path.sigma(t) * torch.exp(fall), sigma * (-torch.expm1(2 * fall)).sqrt()
        known = past > -torch.inf
        lams = torch.where(known, path.lam(torch.where(known, past, 1.0)), -torch.inf)
        nodes = torch.cat([here[..., None], lams], -1)
        predict = alpha * self.integrals(here, there, nodes[..., : self.order])
        numbers = kept, torch.where(sigma > 0, fresh, 0.0)
        if not self.corrector:
            return *numbers, *predict
        now, *before = nodes.unbind(-1)[: self.corrector - 1]
        correct = alpha * self.integrals(here, there, torch.stack([now, there, *before], -1))
        return *numbers, *predict, correct[0], *correct[2:], correct[1]  # the new node last

    def integrals(self, here: Times, there: Times, nodes: Times) -> Tensor:
        """[nodes, ...]: how much each node's x0 counts in int x0 dG."""
        xi, weights = _GAUSS
        u = here[..., None] + (there - here)[..., None] * xi
        g = torch.exp(u - there[..., None] + self.psi(there)[..., None] - self.psi(u))
        clock = (lambda lam: lam) if self.clock == "lam" else (lambda lam: torch.exp(-lam))
        q, end, knots = clock(u), clock(there), clock(nodes).unbind(-1)
        dq = (there - here)[..., None] * (1 if self.clock == "lam" else -q) * weights
        shares = list(torch.eye(len(knots), dtype=torch.float64).reshape(len(knots), -1, *(1,) * here.dim()))
        total = -torch.expm1(here - there + self.psi(there) - self.psi(here)) * shares[0]
        p, slope, last = torch.ones_like(u), torch.zeros_like(u), torch.ones_like(end)
        for k in range(1, len(knots)):
            knot = knots[k - 1]
            p, slope, last = p * (q - knot[..., None]), slope * (q - knot[..., None]) + p, last * (end - knot)
            shares = [
                (a - b) * finite(1 / (knots[j] - knots[j + k]))
                for j, (a, b) in enumerate(zip(shares, shares[1:]))  # noqa: B905
            ]
            total = total + finite(last - (slope * g * dq).sum(-1)) * shares[0]
        return total.expand(len(knots), *here.shape)

    def move(self, denoise: Denoise, state: State, s: Times, c: tuple[Number, ...], noise: Noise) -> State:
        x, t, memory = state
        past, (kept, fresh), predict, correct = self.past, c[:2], c[2 : 2 + self.order], c[2 + self.order :]
        d, times = denoise(x, t), memory[:past]
        x0 = d.x0, *memory[past : 2 * past]
        if self.owing:
            begun, owed = memory[2 * past :]
            x = combine((1.0, begun), (owed, d.x0))
        begun = combine((kept, x), (fresh, noise(0))) if some(fresh) else combine((kept, x))
        out, debt = combine((1.0, begun), *zip(predict, x0, strict=False)), tuple[Tensor, ...]()
        if correct:
            *known, new = correct
            begun = combine((1.0, begun), *zip(known, x0, strict=False))
            if self.owing:
                debt = (begun, at(new, t))
            elif some(new):
                out = combine((1.0, begun), (new, denoise(out, s).x0))
        return State(out, s, (*(t, *times)[:past], *x0[:past], *debt))


_GAUSS = _gauss(12)
