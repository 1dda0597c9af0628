"""What a network of features is: samples in, [n, d] numbers out, and a name that tells it from every other."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

BATCH = 256


class Features(ABC):
    """The eyes with which samples are compared. Figures of different eyes, or sizes of eyes, do not compare."""

    name: str
    digest: str = ""
    """The SHA-256 of its weights; none where it has none."""
    resize: str = "none"
    """How pictures are brought to the size that it sees."""
    net: nn.Module | None = None
    device = torch.device("cpu")

    @abstractmethod
    def see(self, x: Tensor) -> Tensor:
        """Features [b, d] of samples x [b, *shape] in model units; pictures from -1 to 1."""

    def on(self, device: torch.device) -> Self:
        """The same eyes, at work there."""
        self.device = device
        if self.net is not None:
            self.net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Features [n, d] of samples x [n, *shape], float64 on the CPU, a batch at a time."""
        return torch.cat([self.see(part.to(self.device)).double().cpu() for part in x.split(BATCH)])

    @property
    def distance(self) -> str:
        """What the Frechet distance of these features is called; FID is the name of one network alone."""
        return f"FD-{self.digest[:8] or self.name}"

    def plain(self) -> dict[str, Any]:
        """All that must be equal for two figures to compare."""
        return {"name": self.name, "sha256": self.digest, "resize": self.resize}


class Values(Features):
    """The samples' own numbers: pixels, or coordinates."""

    name = "values"

    def see(self, x: Tensor) -> Tensor:
        return x.flatten(1)
