"""Theorems of the equation: paths, predictions, weights, another path."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ... import objective, predictions
from ...denoiser import Repath
from ...noise import normal
from ...paths import Path
from ...predictions import Prediction, solve
from .theorem import Row, all_paths, at_most, error, interior, mixture, theorem, worst


def pairs(t: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(x0, eps) for each of the times, [n, 2] each."""
    index = torch.arange(len(t))
    x0, eps = (normal(seed, index, step, (2,), dtype=torch.float64) for step in range(2))
    return x0, eps


def all_predictions() -> dict[str, Prediction]:
    """Every registered prediction by name."""
    return {name: predictions.registry.make(name) for name in predictions.registry.names()}


@theorem
def path_ends() -> Iterator[Row]:
    """alpha(0) = 1 and sigma(0) = 0: data is data."""
    zero = torch.zeros(1, dtype=torch.float64)
    for name, path in all_paths().items():
        yield at_most(name, (path.alpha(zero) - 1).abs() + path.sigma(zero).abs(), 1e-15)


@theorem
def path_inverse() -> Iterator[Row]:
    """time(lam(t)) = t, and lam falls."""
    for name, path in all_paths().items():
        t = interior(path)
        falls = bool((path.lam(t).diff() < 0).all())
        yield at_most(name, error(path.time(path.lam(t)), t) if falls else torch.inf, 1e-11)


@theorem
def path_rates() -> Iterator[Row]:
    """(alpha', sigma') agree with Richardson's central differences."""
    for name, path in all_paths().items():
        t = ((interior(path) * 1000).floor() + 0.5) / 1000  # between the knots of tables
        h = (0.02 * torch.minimum(t, 1 - t)).clamp(max=4e-4)
        measured = []
        for f in (path.alpha, path.sigma):
            wide, narrow = ((f(t + d) - f(t - d)) / (2 * d) for d in (h, h / 2))
            measured.append((4 * narrow - wide) / 3)
        yield at_most(name, error(torch.stack(measured), torch.stack(path.rates(t))), 1e-7)


@theorem
def path_transition() -> Iterator[Row]:
    """s -> u -> t is s -> t, and 0 -> t is (alpha, sigma): step by step and in one shot agree in law."""
    for name, path in all_paths().items():
        s, u, t = (interior(path, 103)[i : i + 101] for i in range(3))
        (a, p), (b, q), zero = path.transition(s, u), path.transition(u, t), torch.zeros_like(t)
        got = [a * b, torch.hypot(b * p, q), *path.transition(zero, t)]
        expected = [*path.transition(s, t), path.alpha(t), path.sigma(t)]
        yield at_most(name, error(torch.stack(got), torch.stack(expected)), 1e-12)


@theorem
def round_trip() -> Iterator[Row]:
    """(x0, eps) -> (x, y) -> (x0, eps) for every prediction, relative to the condition of the 2 x 2 system."""
    for name, path in all_paths().items():
        t = interior(path)
        x0, eps = pairs(t)
        x, gaps = path.mix(x0, eps, t), []
        for spoken, prediction in all_predictions().items():
            d = solve(prediction, path, x, prediction.target(path, x0, eps, t), t)
            gap = torch.maximum((d.x0 - x0).abs(), (d.eps - eps).abs()).amax(1)
            gaps.append((spoken, (gap / condition(prediction, path, t)).max()))
        where, most = worst(gaps)
        yield at_most(f"{name}, {len(gaps)} predictions{where}", most, 1e-12)


def condition(prediction: Prediction, path: Path, t: Tensor) -> Tensor:
    """The condition number of the system whose rows are x and y."""
    rows = torch.stack([torch.stack(prediction.row(path, t), 1), torch.stack([path.alpha(t), path.sigma(t)], 1)], 1)
    return torch.linalg.cond(rows)


@theorem
def weight_transport() -> Iterator[Row]:
    """At fixed x, |dy|^2 = (det/sigma)^2 |dx0|^2: a weight in x0 units prices the network's own error."""
    for name, path in all_paths().items():
        t = interior(path)
        (x0, eps), (dx0, _), gaps = pairs(t), pairs(t, seed=1), []
        deps = -(path.alpha(t) / path.sigma(t))[:, None] * dx0  # x stays
        for spoken, prediction in all_predictions().items():
            dy = prediction.target(path, x0 + dx0, eps + deps, t) - prediction.target(path, x0, eps, t)
            gap = ((prediction.gain(path, t)[:, None] * dy).abs() - dx0.abs()).abs().amax(1)
            gaps.append((spoken, (gap / condition(prediction, path, t)).max()))
        where, most = worst(gaps)
        yield at_most(f"{name}, {len(gaps)} predictions{where}", most, 1e-12)


@theorem
def weight_identities() -> Iterator[Row]:
    """Each weight, carried to its paper's units, is its paper's formula on every path."""
    found: dict[str, list[tuple[str, Tensor]]] = {}
    for name, path in all_paths().items():
        for subject, got, expected in published(path, interior(path)):
            found.setdefault(subject, []).append((name, (got / expected - 1).abs().max()))
    for subject, gaps in found.items():
        where, gap = worst(gaps)
        yield at_most(f"{subject}{where}", gap, 1e-12)


def published(path: Path, t: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(identity, our weight in the paper's units, the paper's formula)."""
    alpha, sigma, (da, ds) = path.alpha(t), path.sigma(t), path.rates(t)
    snr, one = alpha**2 / sigma**2, torch.ones_like(t)
    g2 = 2 * sigma * (ds - sigma * da / alpha)  # g^2 = d sigma^2/dt - 2 f sigma^2, f = alpha'/alpha

    def ours(weight: str, unit: str) -> Tensor:
        prediction = predictions.registry.make(unit)
        return objective.weights.make(weight).x0(path, t, prediction) * prediction.gain(path, t) ** 2

    yield "simple in eps: 1 (Ho 2020, 14)", ours("simple", "eps"), one
    yield "unit in velocity: 1 (Lipman 2022, 9)", ours("unit", "velocity"), one
    yield "min-SNR in eps (Hang 2023)", ours("min-snr", "eps"), snr.clamp(max=5) / snr
    yield "min-SNR in v (Hang 2023)", ours("min-snr", "v"), snr.clamp(max=5) * sigma**2 / (alpha**2 + sigma**2) ** 2
    yield "EDM in F: 1 (Karras 2022, 8)", ours("edm", "edm"), one
    yield "ELBO in x0: -SNR'/2 (Kingma 2021, 17)", ours("elbo", "x0"), snr * (ds / sigma - da / alpha)
    yield "likelihood in eps: g^2/(2 sigma^2) (Song 2021)", ours("elbo", "eps"), g2 / (2 * sigma**2)
    yield "sigmoid in eps (Kingma 2023)", ours("sigmoid", "eps"), g2 / (2 * sigma**2) / (1 + snr)


@theorem
def repath() -> Iterator[Row]:
    """The oracle of one path, asked through Repath, is the oracle of the other: (x0, eps) do not know the path."""
    for name, path in all_paths().items():
        t = path.time(torch.linspace(4, -2, 101, dtype=torch.float64))
        x = path.mix(*pairs(t), t)
        expected, gaps = torch.cat(mixture().at(path)(x, t)[:2]), []
        for trained, other in all_paths().items():
            got = Repath(mixture().at(other), path)(x, t)
            gaps.append((trained, error(torch.cat(got[:2]), expected)))
        where, gap = worst(gaps)
        yield at_most(f"{name} from {len(gaps)} paths{where}", gap, 1e-10)
