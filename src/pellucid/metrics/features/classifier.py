"""A small network that learns to read the classes of the training data; its last layer but one are the features.

    h = silu(norm(W x)),  h <- silu(norm(W h)) at half the side, until 4 pixels are left;    f = silu(V h)
    logits = U f,    loss = cross entropy with labels smoothed by 0.1

It sees the training half alone, so that held-out pictures are as new to it as samples are. Its weights come from the
data and a seed, but their last digits from the machine: they are kept in a file, whose hash names the figures. Before
training the same network is a fixed random projection, the eyes for data without classes.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, silu

from ...errors import PellucidError
from ...files import whole
from .base import Features

WIDTH, FEATURES, SMALLEST = 32, 64, 4
STEPS, BATCH, RATE, SMOOTHING = 300, 128, 4e-3, 0.1
Progress = Callable[[int, int], None]


class Reader(nn.Module):
    """Pictures [b, c, h, w] of one shape to features [b, 64] and logits [b, classes]."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        halvings = max(1, math.ceil(math.log2(max(shape[1:]) / SMALLEST)))
        widths = [shape[0], *(min(WIDTH * 2**i, 4 * WIDTH) for i in range(halvings + 1))]
        pairs = list(zip(widths, widths[1:], strict=False))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 1 + (i > 0), 1) for i, (a, b) in enumerate(pairs))
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for _, b in pairs)
        left = math.prod(math.ceil(side / 2**halvings) for side in shape[1:])
        self.gather, self.read = nn.Linear(left * widths[-1], FEATURES), nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """[b, 64]."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = silu(norm(conv(x)))
        return silu(self.gather(x.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.features(x))


class Classifier(Features):
    """A trained reader. It is a judge of classes too."""

    net: Reader

    def __init__(self, net: Reader, digest: str, name: str = "classifier") -> None:
        self.net, self.digest, self.name = net.eval(), digest, name

    def see(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.net.shape:
            raise PellucidError(
                f"the {self.name} sees pictures of {self.net.shape}, not {tuple(x.shape[1:])}; take others."
            )
        return self.net.features(x.float())

    @torch.no_grad()
    def judge(self, x: Tensor) -> Tensor:
        """The class [n] that each of x [n, c, h, w] is read as."""
        parts = x.float().split(BATCH)
        return torch.cat([self.net(part.to(self.device)).argmax(1).cpu() for part in parts])


def fresh(shape: tuple[int, ...], classes: int, seed: int = 0) -> Reader:
    """A reader before training, its weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Reader(shape, classes)


def untrained(shape: tuple[int, ...]) -> Classifier:
    """The network with its first weights: random convolutions, the same for everyone."""
    net = fresh(shape, 1)
    return Classifier(net, hashlib.sha256(_file(net, {})).hexdigest(), "untrained")


def train(x: Tensor, label: Tensor, classes: int, seed: int = 0, progress: Progress | None = None) -> Reader:
    """A reader that has learnt pictures x [n, c, h, w] in model units and their labels [n]."""
    net, rng = fresh(tuple(x.shape[1:]), classes, seed).train(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.05)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.2)
    for step in range(STEPS):
        rows = torch.randint(len(x), (min(BATCH, len(x)),), generator=rng)
        loss = cross_entropy(net(x[rows].float()), label[rows], label_smoothing=SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        course.step()
        if progress:
            progress(step + 1, STEPS)
    return net.eval().requires_grad_(False)


def trained(x: Tensor, label: Tensor, classes: int, progress: Progress | None = None) -> Classifier:
    """The classifier of this data: the one that is kept, or one that is trained now and kept."""
    key = hashlib.sha256(x.contiguous().numpy().tobytes() + label.numpy().tobytes()).hexdigest()
    path = cache() / f"classifier-{key[:16]}.safetensors"
    if path.is_file():
        try:
            return load(path)
        except PellucidError:  # torn, or of another version: it is trained again
            pass
    data = _file(train(x, label, classes, progress=progress), {"shape": list(x.shape[1:]), "classes": classes})
    with whole(path) as temporary:
        temporary.write_bytes(data)
    return load(path)


def cache() -> Path:
    """Where trained eyes are kept, so that all runs on the same data are seen with the same."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pellucid" / "features"


def load(path: Path) -> Classifier:
    """The classifier in a file that was written here."""
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})["pellucid"])
            net = Reader(tuple(meta["shape"]), int(meta["classes"]))
            net.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise PellucidError(f"{path} is no classifier of pellucid's ({why}); give the file that it wrote.") from None
    return Classifier(net.requires_grad_(False), hashlib.sha256(path.read_bytes()).hexdigest())


def _file(net: Reader, meta: dict[str, Any]) -> bytes:
    return save({k: v.detach().contiguous() for k, v in net.state_dict().items()}, {"pellucid": json.dumps(meta)})
