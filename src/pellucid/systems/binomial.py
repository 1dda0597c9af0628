r"""Diffusion of bits: the binomial half of the first diffusion models (Sohl-Dickstein et al. 2015, table 1).

    q(x_t = 1 | x_0)     = abar_t x_0 + (1 - abar_t)/2                 each bit is kept, or thrown anew
    q(x_s = 1 | x_t, x_0) = q(x_t | x_s = 1) q(x_s = 1 | x_0) / q(x_t | x_0)                  s = t - 1/T
    p(x_s = 1 | x_t)      = q(x_s = 1 | x_t, x_0 = 1) f + q(x_s = 1 | x_t, x_0 = 0) (1 - f),   f = P(x_0 = 1 | x_t)

A network says f, and is trained on the whole bound, term by term, with abar_t = 1 - t: each step forgets as much.

    -log p(x_0) <= T E_t KL(q(x_s | x_t, x_0) | p(x_s | x_t)),     nats; the last term is the reconstruction (s = 0),
                                                                    and the prior's is 0, since abar_1 = 0
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import conditioning, nets
from ..data import Dataset
from ..denoiser import seeded
from ..ema import EMA
from ..noise import START, TIMES, TRAIN, uniform, words
from ..training.learner import order
from ..types import along


def kept(x0: Tensor, t: Tensor) -> Tensor:
    """q(x_t = 1 | x_0), for bits x0 [b, ...] or the chances of their being 1."""
    return along(1 - t, x0) * x0 + along(t / 2, x0)


def back(x: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """q(x_s = 1 | x_t, x_0) by Bayes' rule."""
    stay = (1 - t) / (1 - s)  # abar_t / abar_s
    likely = [along(stay, x) * (x == bit) + along((1 - stay) / 2, x) for bit in (1, 0)]  # q(x_t | x_s)
    one = likely[0] * kept(x0, s)
    return one / (one + likely[1] * (1 - kept(x0, s)))


def reverse(x: Tensor, f: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """p(x_s = 1 | x_t) for a network that says P(x_0 = 1 | x_t) = f."""
    return back(x, torch.ones_like(x), t, s) * f + back(x, torch.zeros_like(x), t, s) * (1 - f)


def kl(q: Tensor, p: Tensor) -> Tensor:
    """[b] the divergence of Bernoulli variables, nats, summed over each sample."""
    p = p.clamp(1e-12, 1 - 1e-12)
    entropy = torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q)
    return (entropy - torch.xlogy(q, p) - torch.xlogy(1 - q, 1 - p)).flatten(1).sum(1)


def toss(chance: Tensor, seed: int, index: Tensor, step: int, stream: int) -> Tensor:
    """Bits that are 1 with this chance: sample i of a seed tosses the same coins at any batch size."""
    coins = words(seed, index, step, stream, chance[0].numel()).double() / 2**32
    return (coins.reshape(chance.shape) < chance).to(chance.dtype)


@dataclass(frozen=True)
class Rules:
    """T steps, samples a batch, AdamW's rate, the average's decay, the seed."""

    steps: int = 100
    batch: int = 128
    lr: float = 2e-3
    ema: float = 0.99
    seed: int = 0


class Bits(nn.Module):
    """f = P(x_0 = 1 | x_t) in float64 from a network and a conditioner; x is shown to it as -1 and 1."""

    def __init__(self, data: Dataset, net: str | dict[str, object], seed: int = 0) -> None:
        super().__init__()
        spec = {"name": "label", "classes": len(data.classes)} if data.classes else {"name": "none"}
        with seeded(seed):
            self.conditioner = conditioning.registry.make(spec)
            self.net = nets.registry.make(net, data.shape, self.conditioner.width)
        self.shape = data.shape

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """[b, *shape] the chances that the clean bits are 1."""
        ctx = self.conditioner(cond, len(x), x.device, torch.float32)
        return torch.sigmoid(self.net(2 * x.float() - 1, (1000 * t).float(), ctx).double())


class Binomial:
    """A model of bits in training; pictures become bits at the middle of their range."""

    def __init__(self, data: Dataset, net: str | dict[str, object], rules: Rules | None = None) -> None:
        self.data, self.rules, self.step = data, rules or Rules(), 0
        self.model = Bits(data, net, self.rules.seed)
        self.ema = EMA(self.model, self.rules.ema)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), self.rules.lr, weight_decay=0.0)

    def bound(self, x0: Tensor, cond: dict[str, Tensor], t: Tensor, index: Tensor) -> Tensor:
        """[b] the bound's term at times t [b], multiples of 1/T, times T: nats."""
        s = t - 1 / self.rules.steps
        x = toss(kept(x0, t), self.rules.seed, index, 0, TRAIN)
        return self.rules.steps * kl(back(x, x0, t, s), reverse(x, self.model(x, t, cond), t, s))

    def advance(self) -> float:
        """One step; the bound in bits for each bit."""
        rules, data = self.rules, self.data
        index = torch.arange(self.step * rules.batch, (self.step + 1) * rules.batch)
        x, cond = data.batch(order(rules.seed, len(data.train.x), index))
        u = (uniform(rules.seed, index, stream=TIMES) + torch.arange(rules.batch)) / rules.batch  # stratified
        t = (u * rules.steps).floor().add(1) / rules.steps
        loss = self.bound((x > 0).double(), cond, t, index).mean() / x[0].numel() / torch.log(torch.tensor(2.0))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.model)
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def draw(self, n: int, label: Tensor | None = None, seed: int = 0) -> Tensor:
        """[n, *shape] bits as -1 and 1, from coins alone, step by step."""
        index, cond, steps = torch.arange(n), {} if label is None else {"label": label}, self.rules.steps
        x = toss(torch.full((n, *self.data.shape), 0.5, dtype=torch.float64), seed, index, 0, START)
        with self.ema.applied(self.model):
            for k in range(steps, 0, -1):
                t, s = (torch.full((n,), time, dtype=torch.float64) for time in (k / steps, (k - 1) / steps))
                x = toss(reverse(x, self.model.eval()(x, t, cond), t, s), seed, index, k, 1)
        return 2 * x.float() - 1
