"""Networks: x [b, *shape], a clock [b] and a context in; as many numbers out. They know nothing of diffusion."""

from .base import Network, registry
from .dit import DiT
from .mlp import MLP
from .mp_unet import MPUNet
from .unet import UNet

__all__ = ["MLP", "DiT", "MPUNet", "Network", "UNet", "registry"]
