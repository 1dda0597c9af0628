"""Accuracy a call: what a few calls lead to, beside the best of many schedulers and settings of diffusers.

    python -m benchmarks.accuracy [--nfe 5 8 10 15 20] [--dims 2 64 3072] [--quick] [--json] [--out docs/accuracy.md]
    (after pip install -c constraints.txt diffusers scipy; ten minutes on one core)

Gaussian mixtures on the linear VP table. Error: the root mean square distance, over all samples and dimensions, to the
exact flow from the same noise (the classical Runge-Kutta method in 200 steps). Ours is `pellucid.sample` with nothing
set but its steps; theirs is for each mixture and number of calls whichever of all settings happens to be best there,
each asked at the exact times of its noise levels. Ratios below 1: ours is nearer. --quick: settings in common use. In
3072 dimensions those are left out that are seldom among the best.
"""

import argparse
import json
import math
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers.utils import logging
from torch import Tensor

from pellucid.grids import Lam
from pellucid.noise import START, normal, uniform
from pellucid.oracle import GaussianMixture
from pellucid.paths import LinearTable
from pellucid.sampling import sample
from pellucid.types import Batch, Denoised, Times

TABLE = LinearTable()
NFES = 5, 8, 10, 15, 20
SAMPLES = {2: 256, 64: 64, 3072: 4}
SPACINGS = tuple({"timestep_spacing": each} for each in ("linspace", "leading", "trailing"))
CURVES = tuple({f"use_{each}": True} for each in ("karras_sigmas", "exponential_sigmas", "beta_sigmas"))
LU = ({"use_lu_lambdas": True},)


class Peer(NamedTuple):
    """A scheduler with its settings, and the options of its step."""

    kind: str
    settings: dict[str, Any]
    options: dict[str, Any] = {}  # noqa: RUF012

    def __str__(self) -> str:
        said = [f"{k}={v}" if not isinstance(v, bool) else k if v else f"not {k}" for k, v in self.settings.items()]
        return " ".join([self.kind, *said, *(f"{k}={v}" for k, v in self.options.items())])

    @property
    def scaled(self) -> bool:
        """Whether its sample is x / alpha."""
        return self.kind in ("EulerDiscrete", "HeunDiscrete", "KDPM2Discrete", "LMSDiscrete") or "EDM" in self.kind


def peers() -> list[Peer]:
    """All settings: each deterministic scheduler on each of its grids, at each order, with each end."""
    found = [Peer("DDIM", {"clip_sample": False, **grid}) for grid in SPACINGS]
    found += [Peer("PNDM", {"skip_prk_steps": skip, **grid}) for skip in (True, False) for grid in SPACINGS]
    for kind in ("EulerDiscrete", "HeunDiscrete", "KDPM2Discrete"):
        found += [Peer(kind, grid) for grid in (*SPACINGS, *CURVES)]
    found += [Peer("LMSDiscrete", grid, {"order": k}) for grid in (*SPACINGS, *CURVES) for k in (2, 3, 4)]
    ends: list[dict[str, Any]] = [
        {"final_sigmas_type": "zero", "lower_order_final": True},
        {"final_sigmas_type": "zero", "lower_order_final": True, "euler_at_final": True},
        {"final_sigmas_type": "zero", "lower_order_final": False},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    ]
    rules: list[dict[str, Any]] = [{"solver_order": 2, "solver_type": kind} for kind in ("midpoint", "heun")]
    rules += [{"solver_order": 3}]
    grids = *SPACINGS, *CURVES, *LU
    found += [Peer("DPMSolverMultistep", {**r, **g, **e}) for r, g, e in product(rules, grids, ends)]
    eps = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    found += [Peer("DPMSolverMultistep", {**eps, **r, **g}) for r, g in product(rules, grids)]
    found += [Peer("DPMSolverSinglestep", {**r, **g}) for r, g in product(rules, ({}, *CURVES))]
    unipc = [{"solver_order": k, "solver_type": bh} for k in (1, 2, 3) for bh in ("bh1", "bh2")]
    found += [Peer("UniPCMultistep", {**r, **g, **e}) for r, g, e in product(unipc, grids[:-1], ends[::2])]
    found += [Peer("UniPCMultistep", {**r, **g, "predict_x0": False}) for r, g in product(unipc[2:], grids[:-1])]
    found += [
        Peer("DEISMultistep", {"solver_order": k, **g, "lower_order_final": low})
        for k, g, low in product((2, 3), grids[:-1], (True, False))
    ]
    edm = {"sigma_min": 0.0292, "sigma_max": 157.4}
    for low, curve in product(({}, {"sigma_min": 0.002}), ("karras", "exponential")):
        grid = {**edm, **low, "sigma_schedule": curve}
        found += [Peer("EDMEuler", grid), *(Peer("EDMDPMSolverMultistep", {**grid, **r}) for r in rules)]
    return found


def common(peer: Peer) -> bool:
    """Whether it is a setting in common use."""
    said, grid = peer.settings, peer.settings.get("use_karras_sigmas") or "timestep_spacing" in peer.settings
    usual = said.get("lower_order_final", True) and not said.get("euler_at_final") and said.get("predict_x0", True)
    return bool(usual and grid and said.get("algorithm_type") != "dpmsolver" and peer.kind != "DPMSolverSinglestep")


SELDOM = "beta", "lu_lambdas", "euler_at_final", "predict_x0", "Heun", "KDPM2", "LMS", "EDMEuler", "DDIM"


def rivals(dim: int, quick: bool) -> list[Peer]:
    """Those that are tried in so many dimensions."""
    found = [peer for peer in peers() if common(peer) or not quick]
    return [peer for peer in found if dim < 1000 or not any(word in str(peer) for word in SELDOM)]


class Problem(NamedTuple):
    """A mixture, and its name."""

    name: str
    data: GaussianMixture


def mixture(means: Tensor, variances: Tensor | float) -> GaussianMixture:
    """Weights of all kinds, at these means [k, d] with these variances, one number or [k, 1, d] or [1, 1, d]."""
    return GaussianMixture(uniform(5, torch.arange(len(means))) + 0.5, means, torch.as_tensor(variances))


def clusters(k: int, dim: int, spread: float, std: float) -> GaussianMixture:
    """k of them, all round, their means N(0, spread^2)."""
    return mixture(spread * normal(7, torch.arange(k), 0, (dim,), dtype=torch.float64), std**2)


def spectrum(k: int, dim: int, std: float) -> GaussianMixture:
    """Like pictures: variances that fall with the square of the frequency, over `k` means that fall alike."""
    side = math.isqrt(dim // 3) if dim % 3 == 0 else math.isqrt(dim)
    low = torch.arange(side).double()
    fall = 1 / (1 + low[:, None] ** 2 + low**2).flatten().repeat(dim // side**2)
    fall = fall * std**2 / fall.mean()
    means = normal(8, torch.arange(k), 0, (dim,), dtype=torch.float64) * fall.sqrt()
    return mixture(means, fall.expand(1, 1, dim) * 0.5)


@cache
def problems(dim: int) -> list[Problem]:
    """Mixtures in `dim` dimensions."""
    if dim == 2:
        turn = torch.arange(8).double() * math.pi / 4
        own = [
            Problem("skew, overlapping", GaussianMixture.random(5, dim, seed=1)),
            Problem("ring of 8, std 0.1", mixture(torch.stack([turn.cos(), turn.sin()], 1), 0.01)),
            Problem("one, 1 by 0.1", mixture(torch.zeros(1, 2), torch.tensor([[[1.0, 0.01]]]))),
        ]
    else:
        own = [Problem("skew, apart", GaussianMixture.random(10, dim, seed=1))] if dim == 64 else []
        own += [Problem("spectrum", spectrum(1, dim, 0.5)), Problem("spectra of 5", spectrum(5, dim, 0.5))]
    sizes = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.8]).double()[:, None, None].expand(5, 1, dim) ** 2
    places = normal(6, torch.arange(5), 0, (dim,), dtype=torch.float64)
    return [
        *own,
        Problem("one, std 0.5", mixture(torch.full((1, dim), 0.3), 0.25)),
        Problem("10 apart, std 0.3", clusters(10, dim, 1.0, 0.3)),
        Problem("10 apart, std 0.05", clusters(10, dim, 0.5, 0.05)),
        Problem("4 near, std 0.5", clusters(4, dim, 0.5 * min(1.0, 6 / dim**0.5), 0.5)),
        Problem("5, std 0.05 to 0.8", mixture(places, sizes)),
    ]


def noise(dim: int) -> Tensor:
    """[n, dim] where all start."""
    return normal(0, torch.arange(SAMPLES[dim]), 0, (dim,), stream=START, dtype=torch.float64)


class Many:
    """The exact denoisers of all mixtures, each of its own rows: a Denoise."""

    def __init__(self, dim: int) -> None:
        self.path, self.parts = TABLE, [each.data.at(TABLE) for each in problems(dim)]

    def __call__(self, x: Batch, t: Times) -> Denoised:
        rows = zip(self.parts, x.chunk(len(self.parts)), t.chunk(len(self.parts)), strict=True)
        pairs = [part(own, time) for part, own, time in rows]
        return Denoised(torch.cat([pair.x0 for pair in pairs]), torch.cat([pair.eps for pair in pairs]))


@cache
def exact(dim: int) -> Tensor:
    """[problems, n, dim] where the flow leads."""
    fine = {"sampler": "rk4", "steps": 200, "grid": Lam(sigma_min=1e-4), "batch": 256}
    return torch.stack([sample(each.data.at(TABLE), SAMPLES[dim], **fine) for each in problems(dim)])  # type: ignore[arg-type]


def errors(x: Tensor, dim: int) -> Tensor:
    """[problems] of x [problems, n, dim]."""
    return (x - exact(dim)).square().mean((1, 2)).sqrt()


def ours(dim: int, nfe: int) -> Tensor:
    """[problems] what pellucid does with nothing set but the steps."""
    return errors(torch.stack([sample(p.data.at(TABLE), SAMPLES[dim], steps=nfe) for p in problems(dim)]), dim)


def prepared(peer: Peer, nfe: int) -> Any:
    """The scheduler with as many steps as take no more than nfe calls; none where not even one does."""
    for steps in range(nfe, 0, -1):
        scheduler = getattr(diffusers, f"{peer.kind}Scheduler")(**peer.settings)
        try:
            scheduler.set_timesteps(steps)
        except (ValueError, IndexError):
            return None
        if len(scheduler.timesteps) <= nfe:
            return scheduler
    return None


def asked(peer: Peer, scheduler: Any) -> Times:
    """The time of each of its calls."""
    if peer.kind in ("DDIM", "PNDM"):
        return (scheduler.timesteps.double() + 1) / 1000
    sigmas = scheduler.sigmas.double().clone()
    if hasattr(scheduler, "sigmas_interpol"):
        sigmas[1::2] = scheduler.sigmas_interpol[1::2][: len(sigmas[1::2])].double()
    return TABLE.time(-sigmas[: len(scheduler.timesteps)].log())


def theirs(peer: Peer, dim: int, nfe: int) -> Tensor | None:
    """[problems] what this setting does, if it can."""
    denoise, eps, scheduler = Many(dim), noise(dim).repeat(len(problems(dim)), 1), prepared(peer, nfe)
    if scheduler is None:
        return None
    x = eps * float(scheduler.init_noise_sigma)
    for timestep, time in zip(scheduler.timesteps, asked(peer, scheduler), strict=True):
        t = time.expand(len(x))
        shrink = float(TABLE.alpha(time)) if peer.scaled else 1.0
        d = denoise(shrink * x, t)
        said = d.eps
        if "EDM" in peer.kind:  # x0 = c_skip x + c_out said
            r, std = math.exp(-float(TABLE.lam(time))), scheduler.config.sigma_data
            said = (d.x0 - std**2 / (r**2 + std**2) * x) * (math.hypot(r, std) / (r * std))
        if peer.scaled:
            scheduler.scale_model_input(x, timestep)
        try:
            x = scheduler.step(said, timestep, x, return_dict=False, **peer.options)[0]
        except RuntimeError:  # its equations are singular where two of its levels are one
            return None
    return errors(x.double().reshape(exact(dim).shape), dim)


class Row(NamedTuple):
    """One comparison."""

    dim: int
    mixture: str
    nfe: int
    ours: float
    best: float
    peer: str

    @property
    def ratio(self) -> float:
        """Below 1: ours is nearer."""
        return self.ours / self.best


def compare(dim: int, nfe: int, peers: list[Peer]) -> Iterator[Row]:
    """A row for each mixture."""
    tried = [(str(peer), found) for peer in peers if (found := theirs(peer, dim, nfe)) is not None]
    table = torch.stack([found for _, found in tried]).nan_to_num(nan=math.inf)
    for i, (problem, mine) in enumerate(zip(problems(dim), ours(dim, nfe).tolist(), strict=True)):
        best = int(table[:, i].argmin())
        yield Row(dim, problem.name, nfe, mine, float(table[best, i]), tried[best][0])


def page(rows: list[Row], quick: bool) -> Iterator[str]:
    """The tables, as lines of Markdown."""
    nfes = list(dict.fromkeys(row.nfe for row in rows))
    for dim in dict.fromkeys(row.dim for row in rows):
        own = [row for row in rows if row.dim == dim]
        yield f"\n## {dim} dimensions, {len(rivals(dim, quick))} settings\n"
        yield f"| mixture | {' | '.join(f'{nfe} calls' for nfe in nfes)} |"
        yield "| --- |" + " ---: |" * len(nfes)
        for name in dict.fromkeys(row.mixture for row in own):
            yield f"| {name} | {' | '.join(f'{r.ratio:.2f} ({r.ours:.0e})' for r in own if r.mixture == name)} |"
        middle = [median(row.ratio for row in own if row.nfe == nfe) for nfe in nfes]
        yield f"| *median* | {' | '.join(f'{ratio:.2f}' for ratio in middle)} |"


HEAD = """# Accuracy a call

Written by `python -m benchmarks.accuracy --out docs/accuracy.md`; not by hand.

The error of `pellucid.sample` with nothing set but its steps over that of the best of many settings of diffusers'
deterministic schedulers, at the same number of calls: below 1, ours is nearer. In brackets, our error: the root mean
square distance to the exact flow from the same noise, on the linear VP table. The best is chosen for each mixture and
number of calls anew, with the exact answer in hand; nobody who samples can choose so. Ours is one sampler with one grid
(`samplers/scales.py:Scales`, `grids/scales.py:Scales`), which know of the data what a trained model has measured: its
std and its spectrum (`covariance.py:spectrum`). Where clusters lie apart, one sample that lands in another one is most
of the root mean square.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nfe", type=int, nargs="+", default=NFES)
    parser.add_argument("--dims", type=int, nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    args, _ = parser.parse_known_args()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    rows = [row for dim in args.dims for nfe in args.nfe for row in compare(dim, nfe, rivals(dim, args.quick))]
    if args.json:
        print(json.dumps([row._asdict() | {"ratio": row.ratio} for row in rows], indent=1))
    text = "\n".join(page(rows, args.quick))
    if args.out:
        args.out.write_text(f"{HEAD}{text}\n", "utf-8")
    elif not args.json:
        print(text)


if __name__ == "__main__":
    main()
