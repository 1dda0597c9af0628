"""Any vision model of the transformers library as eyes, from a folder on this machine.

Pictures are brought to the size, mean and deviation that the folder's preprocessor_config.json tells, bicubic and with
antialias. Features are the model's pooled output, or the mean of its last hidden states where it pools nothing. Only
safetensors are opened, and no code that comes with a model is run.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...errors import PellucidError
from .base import Features

HALF = (0.5, 0.5, 0.5)


class Vision(Features):
    """The eyes of a pretrained model."""

    net: Any

    def __init__(self, model: Any, name: str, digest: str, size: tuple[int, int], mean: Tensor, std: Tensor) -> None:
        self.net, self.name, self.digest, self.size, self.mean, self.std = model, name, digest, size, mean, std
        self.resize = f"bicubic to {size[0]} x {size[1]}, antialias"

    def see(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise PellucidError(f"{self.name} sees pictures, not samples of shape {tuple(x.shape[1:])}; take others.")
        x = interpolate(x.float().expand(-1, 3, -1, -1), self.size, mode="bicubic", antialias=True)
        out = self.net(pixel_values=((x + 1) / 2 - self.mean.to(x)) / self.std.to(x))
        pooled = getattr(out, "pooler_output", None)
        if pooled is None:
            hidden = out.last_hidden_state  # [b, tokens, d] or [b, d, h, w]
            pooled = hidden.mean(1) if hidden.dim() == 3 else hidden.mean((2, 3))
        return pooled.flatten(1)


def load(folder: Path) -> Vision:
    """The model in a folder that `save_pretrained` wrote."""
    try:
        from transformers import AutoModel
    except ImportError:
        raise PellucidError("vision models need transformers; run pip install 'pellucid[vision]'.") from None
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise PellucidError(f"{folder} holds no .safetensors; expected a model as save_pretrained writes it.")
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_safetensors=True)
        model = getattr(model, "vision_model", model)  # of a pair such as CLIP, the half that sees
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise PellucidError(f"{folder} is no vision model that transformers opens ({why}).") from None
    table = folder / "preprocessor_config.json"
    seen = json.loads(table.read_text()) if table.is_file() else {}
    size = _size(getattr(model.config, "image_size", None) or seen.get("crop_size") or seen.get("size") or 224)
    mean, std = (torch.tensor(seen.get(f"image_{key}", HALF)).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    digest = hashlib.sha256()
    for path in weights:
        digest.update(path.read_bytes())
    return Vision(model.eval(), folder.name, digest.hexdigest(), size, mean, std)


def _size(told: Any) -> tuple[int, int]:
    """(height, width) from a number, a pair, or the table of a preprocessor."""
    if isinstance(told, dict):
        told = (told["height"], told["width"]) if "height" in told else told["shortest_edge"]
    return (told, told) if isinstance(told, int) else tuple(told)
