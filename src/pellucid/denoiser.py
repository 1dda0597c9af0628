"""The denoiser: a network that knows nothing of diffusion, and the settings that make it a model.

    c_in x_t, clock(t), conditions -> network -> y = a x0 + b eps -> solve -> (x0, eps)

c_in = 1/sqrt(alpha^2 sd^2 + sigma^2) gives the network unit variance at every t: 1 on variance-preserving paths with
sd = 1, and Karras et al.'s (2022, eq. 7) on EDM's.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from . import conditioning, nets, paths, predictions
from .errors import PellucidError, unknown
from .paths import Path, carry
from .predictions import Prediction, solve
from .types import Batch, Cond, Denoised, Model, Spectrum, Times, Wrapper, along

CLOCKS = ("time", "lam", "edm", "index")


def tick(clock: str, path: Path, t: Times) -> Times:
    """What the network hears: 1000 t, lam (within +-20), EDM's -lam/4, or the index N t - 1 of a table."""
    match clock:
        case "time":
            return 1000 * t
        case "lam":
            return path.lam(t).clamp(-20, 20)
        case "edm":
            return -path.lam(t).clamp(-20, 20) / 4
        case "index":
            return getattr(path, "n", 1000) * t - 1
    raise unknown("clock", clock, CLOCKS)


class Sight(nn.Module):
    """A network that sees noisy samples: on which path, under which conditions, at which scale, by which clock."""

    def __init__(
        self, net: nn.Module, path: Path | str, conditioner: nn.Module | None, data_std: float, clock: str
    ) -> None:
        super().__init__()
        if not 0 < data_std < float("inf"):
            raise PellucidError(f"data_std is {data_std}; expected a positive number, the data's standard deviation.")
        if clock not in CLOCKS:
            raise unknown("clock", clock, CLOCKS)
        self.net = net
        self.conditioner = conditioner if conditioner is not None else conditioning.registry.make("none")
        self.path = paths.registry.resolve(path)
        self.data_std = data_std
        self.clock = clock

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.net.shape)  # type: ignore[arg-type]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the network."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.parameters()).device

    @property
    def hears(self) -> frozenset[str] | None:
        """The names of the conditions that it hears; None where the conditioner does not say."""
        return getattr(self.conditioner, "hears", None)

    def said(self, x: Batch, t: Times, cond: Cond | None = None) -> Tensor:
        """What the network says of x_t, x [b, *shape], t [b]."""
        scale = 1 / torch.hypot(self.path.alpha(t) * self.data_std, self.path.sigma(t))
        clock = tick(self.clock, self.path, t).to(x.device, x.dtype)
        said: Tensor = self.net(along(scale, x) * x, clock, self.conditioner(cond, len(x), x.device, x.dtype))
        return said


class Denoiser(Sight):
    """A network with its path, prediction, conditioner and clock. All settings are in `config()`."""

    def __init__(
        self,
        net: nn.Module,
        path: Path | str = "cosine",
        prediction: Prediction | str = "v",
        conditioner: nn.Module | None = None,
        data_std: float = 1.0,
        clock: str = "time",
        spectrum: Spectrum = (),
    ) -> None:
        super().__init__(net, path, conditioner, data_std, clock)
        self.prediction = predictions.registry.resolve(prediction)
        self.spectrum = tuple((float(std), float(share)) for std, share in spectrum)

    def answer(self, x: Batch, t: Times, cond: Cond | None = None) -> tuple[Batch, Batch | None]:
        """The network's own answer y at x_t, and where it has as many channels more, the spread that they mean.

        A channel from -1 to 1 is a spread from 0, the least variance of the reverse step, to 1, the largest (Nichol &
        Dhariwal 2021, eq. 15).
        """
        said = self.said(x, t, cond)
        if said.shape[1] == x.shape[1]:
            return said, None
        y, v = said.chunk(2, dim=1)
        return y, (v + 1) / 2

    def forward(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        """The pair (x0, eps) at x_t, and its spread where that is learned; x [b, *shape], t [b] float64."""
        y, spread = self.answer(x, t, cond)
        return solve(self.prediction, self.path, x, y, t)._replace(spread=spread)

    def config(self) -> dict[str, Any]:
        """Everything but the weights, as plain data: `from_config` builds the same model."""
        return {
            "shape": list(self.shape),
            "net": nets.registry.describe(self.net),
            "conditioner": conditioning.registry.describe(self.conditioner),
            "path": paths.registry.describe(self.path),
            "prediction": predictions.registry.describe(self.prediction),
            "data_std": self.data_std,
            "clock": self.clock,
            "spectrum": [list(band) for band in self.spectrum],
        }

    @staticmethod
    def from_config(config: dict[str, Any], seed: int = 0) -> "Denoiser":
        """The model that `config()` describes, with fresh weights drawn from `seed`."""
        with seeded(seed):
            conditioner = conditioning.registry.make(config["conditioner"])
            net = nets.registry.make(config["net"], tuple(config["shape"]), conditioner.width)
        return Denoiser(
            net,
            paths.registry.make(config["path"]),
            predictions.registry.make(config["prediction"]),
            conditioner,
            config["data_std"],
            config["clock"],
            config.get("spectrum", ()),  # older ones were not measured
        )


class NoisyClassifier(Sight):
    """log p(y | x_t): which class a noisy sample came from (Dhariwal & Nichol 2021, section 4).

    The network has an output channel for each class; their means over the sample are the logits.
    """

    def __init__(self, net: nn.Module, classes: int, path: Path | str, data_std: float, clock: str) -> None:
        super().__init__(net, path, None, data_std, clock)
        self.classes = classes

    def forward(self, x: Batch, t: Times) -> Tensor:
        """[b, classes] log probabilities at x_t."""
        return self.said(x, t).reshape(len(x), self.classes, -1).mean(2).log_softmax(1)

    def on(self, path: Path) -> Callable[[Batch, Times, Cond], Tensor]:
        """log p(y | x_t) of each sample's label on another path: what noise hides, it hides on all of them alike."""
        return lambda x, t, cond: self(*carry(x, t, path, self.path)).gather(1, cond["label"][:, None])[:, 0]

    def config(self) -> dict[str, Any]:
        """Everything but the weights, as plain data: `from_config` builds the same classifier."""
        return {
            "shape": list(self.shape),
            "classes": self.classes,
            "net": nets.registry.describe(self.net),
            "conditioner": conditioning.registry.describe(self.conditioner),
            "path": paths.registry.describe(self.path),
            "data_std": self.data_std,
            "clock": self.clock,
        }

    @staticmethod
    def from_config(config: dict[str, Any], seed: int = 0) -> "NoisyClassifier":
        """The classifier that `config()` describes, with fresh weights drawn from `seed`."""
        with seeded(seed):
            net = nets.registry.make({**config["net"], "out": config["classes"]}, tuple(config["shape"]), 0)
        path = paths.registry.make(config["path"])
        return NoisyClassifier(net, config["classes"], path, config["data_std"], config["clock"])


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """What torch draws inside, here and on a CUDA device, comes from `seed`; the caller's random state is untouched."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for card in cuda:
            torch.cuda.default_generators[card.index or 0].manual_seed(seed)
        yield


class Repath(Wrapper):
    """`model`, trained on its own path, as a model of another: x is rescaled and t renamed (identity 6)."""

    def __init__(self, model: Model, path: Path | str) -> None:
        super().__init__(model)
        self._path = paths.registry.resolve(path)

    @property
    def path(self) -> Path:
        """The path on which this model is asked."""
        return self._path

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        return self.model(*carry(x, t, self._path, self.model.path), cond)
