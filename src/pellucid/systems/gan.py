r"""A generative adversarial network: the rival of every diffusion model, under the same data and budget.

    generator      x = G(z, y),   z ~ N(0, I)
    discriminator  D(x, y): the log odds that x is real
    D lowers  softplus(-D(x)) + softplus(D(G(z))) + gamma/2 |grad_x D(x)|^2, x data     (R1: Mescheder et al. 2018)
    G lowers  softplus(-D(G(z)))                                     (non-saturating: Goodfellow et al. 2014, section 3)

Both are of DCGAN's kind and size (Radford et al. 2016); D hears the label by an inner product (Miyato & Koyama 2018,
eq. 3). What is drawn comes from the moving average of G. Everything random has its number: (seed, image counter).
"""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import Checkpoint, flatten_optimizer, restore_optimizer
from ..data import Dataset
from ..denoiser import seeded
from ..ema import EMA
from ..errors import PellucidError
from ..noise import TRAIN, normal
from ..training.learner import order

Z = 64
"""Numbers in z; fewer for points, four for each of a sample's own."""


class Generator(nn.Module):
    """Noise z [b, self.z] and labels [b] to samples [b, *shape]: from a quarter of the sides up, twice; or an MLP."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 64) -> None:
        super().__init__()
        self.shape, self.z = shape, min(Z, 4 * torch.Size(shape).numel())
        self.embed = nn.Embedding(max(classes, 1), self.z)
        self.sides = [-(-side // 4) for side in shape[1:]]
        c = 4 * width
        self.enter = nn.Linear(2 * self.z, c * torch.Size(self.sides).numel())
        self.body: nn.Module
        if len(shape) == 3:
            self.body = nn.Sequential(nn.Unflatten(1, (c, *self.sides)), *grown(c, c // 2), *grown(c // 2, width))
            self.leave: nn.Module = nn.Conv2d(width, shape[0], 3, padding=1)
        else:
            self.body = nn.Sequential(nn.ReLU(), nn.Linear(c, c), nn.ReLU(), nn.Linear(c, c), nn.ReLU())
            self.leave = nn.Sequential(nn.Linear(c, torch.Size(shape).numel()), nn.Unflatten(1, shape))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        x: Tensor = self.leave(self.body(self.enter(torch.cat([z, self.embed(label)], 1))))
        return x[..., : self.shape[-2], : self.shape[-1]] if len(self.shape) == 3 else x


class Discriminator(nn.Module):
    """The log odds [b] that samples x [b, *shape] of these labels [b] are real."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 64) -> None:
        super().__init__()
        c = 4 * width
        if len(shape) == 3:
            first = nn.Conv2d(shape[0], width, 3, padding=1)
            body = [first, *halved(width, c // 2), *halved(c // 2, c), nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(2)]
            self.body = nn.Sequential(*body, nn.Flatten(), nn.Linear(4 * c, c), nn.LeakyReLU(0.2))
        else:
            wide = [nn.Linear(c, c), nn.LeakyReLU(0.2)]
            enter = nn.Linear(torch.Size(shape).numel(), c)
            self.body = nn.Sequential(nn.Flatten(), enter, nn.LeakyReLU(0.2), *wide, nn.Linear(c, c), nn.LeakyReLU(0.2))
        self.score, self.embed = nn.Linear(c, 1), nn.Embedding(max(classes, 1), c)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.body(x)
        return self.score(h)[:, 0] + (h * self.embed(label)).sum(1) / h.shape[1] ** 0.5


def grown(start: int, end: int) -> list[nn.Module]:
    """Layers that double the sides."""
    return [nn.GroupNorm(8, start), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(start, end, 3, padding=1)]


def halved(start: int, end: int) -> list[nn.Module]:
    """Layers that halve the sides."""
    return [nn.LeakyReLU(0.2), nn.Conv2d(start, end, 4, stride=2, padding=1)]


@dataclass(frozen=True)
class Rules:
    """How the game is played: steps, samples in each, Adam's rate and what is left of it at the end, R1's gamma, the
    average's decay, the seed."""

    steps: int = 3000
    batch: int = 128
    lr: float = 5e-4
    left: float = 1.0
    gamma: float = 0.1
    ema: float = 0.995
    seed: int = 0


class GAN:
    """Two networks in training, from whichever step they have come to; `draw` gives samples of the averaged generator.

    The state is in `tensors()` and `step`: restored, it is played on as if it had never been put away.
    """

    def __init__(self, data: Dataset, rules: Rules | None = None) -> None:
        self.data, self.rules, self.step = data, rules or Rules(), 0
        with seeded(self.rules.seed):
            self.generator = Generator(data.shape, len(data.classes))
            self.discriminator = Discriminator(data.shape, len(data.classes))
        self.ema = EMA(self.generator, self.rules.ema)
        players = self.generator, self.discriminator
        self.optimizers = [torch.optim.Adam(net.parameters(), self.rules.lr, (0.0, 0.99)) for net in players]

    def advance(self) -> tuple[float, float]:
        """One step of each player; their losses, (generator, discriminator)."""
        rules, (for_g, for_d) = self.rules, self.optimizers
        rate = rules.lr * (1 - (1 - rules.left) * min(self.step / rules.steps, 1))
        index = torch.arange(self.step * rules.batch, (self.step + 1) * rules.batch)
        x, cond = self.data.batch(order(rules.seed, len(self.data.train.x), index))
        label = cond.get("label", torch.zeros(len(x), dtype=torch.long))
        fake = self.generator(normal(rules.seed, index, 0, (self.generator.z,), stream=TRAIN), label)
        x.requires_grad_()
        real = self.discriminator(x, label)
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        loss_d = F.softplus(-real).mean() + F.softplus(self.discriminator(fake.detach(), label)).mean()
        descend(for_d, loss_d + rules.gamma / 2 * slope.flatten(1).square().sum(1).mean(), rate)
        loss_g = F.softplus(-self.discriminator(fake, label)).mean()
        descend(for_g, loss_g, rate)
        self.ema.update(self.generator)
        self.step += 1
        return loss_g.item(), loss_d.item()

    @torch.no_grad()
    def draw(self, n: int, label: Tensor | None = None, seed: int = 0) -> Tensor:
        """[n, *shape] samples in model units; sample i of a seed is the same at any n."""
        z = normal(seed, torch.arange(n), 0, (self.generator.z,))
        y = torch.zeros(n, dtype=torch.long) if label is None else label
        with self.ema.applied(self.generator):
            return self.generator(z, y)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The state as named tensors, for a checkpoint."""
        nets = {"generator": self.generator.state_dict(), "discriminator": self.discriminator.state_dict()}
        optims = zip(("optim-generator", "optim-discriminator"), map(flatten_optimizer, self.optimizers), strict=True)
        return nets | self.ema.groups() | dict(optims)

    def meta(self) -> dict[str, Any]:
        """The rest of the state as plain data, with all that says what is played."""
        config = {"shape": list(self.data.shape), "conditioner": {"name": "label"}, "game": asdict(self.rules)}
        return {"step": self.step, "config": config}

    def restore(self, found: Checkpoint) -> None:
        """Take up a game by these rules where it was put away."""
        if found.meta["config"].get("game") != asdict(self.rules):
            raise PellucidError(f"the game was played by {found.meta['config'].get('game')}; take another folder.")
        self.generator.load_state_dict(found.tensors["generator"])
        self.discriminator.load_state_dict(found.tensors["discriminator"])
        self.step = int(found.meta["step"])
        self.ema.load(found.tensors, self.step)
        for optimizer, name in zip(self.optimizers, ("optim-generator", "optim-discriminator"), strict=True):
            restore_optimizer(optimizer, found.tensors[name])


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step down."""
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def sized(data: Dataset, rules: Rules, minutes: float, trials: int = 8) -> Rules:
    """The rules of a game that lasts so many minutes here, by the pace of a few steps."""
    game = GAN(data, rules)
    game.advance()
    began = time.perf_counter()
    for _ in range(trials):
        game.advance()
    return replace(rules, steps=max(1, int(60 * minutes * trials / (time.perf_counter() - began))))
