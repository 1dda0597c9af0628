"""Networks: x [b, *shape], a clock [b] and a context in; as many numbers out. They know nothing of diffusion."""

from .base import Network, registry
from .mlp import MLP
from .unet import UNet

__all__ = ["MLP", "Network", "UNet", "registry"]
