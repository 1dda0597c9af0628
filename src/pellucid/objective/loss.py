"""What a model lowers: w(t) |x0 - x0^|^2 at the times of its samples, and what stands beside it.

A learned variance adds some of the bound (`divergence`), a learned clock is moved to even the loss (`uneven`).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from ..conditioning import drop
from ..coupling import Coupling, Independent
from ..data.augment import Augmentation, augment
from ..denoiser import Denoiser, Sight
from ..errors import PellucidError
from ..noise import DROP, TRAIN, normal, uniform
from ..paths import Learned, Path
from ..predictions import Prediction, solve
from ..types import Batch, Cond, Times, along
from .time import TimeSampler, Uniform
from .weight import Chain, Unit, Weight


class Lesson(NamedTuple):
    """What a batch teaches: samples by their numbers, with data, noise and conditions."""

    number: Tensor  # [b] int64, on the CPU
    x0: Batch
    eps: Batch
    cond: dict[str, Tensor]

    def to(self, device: torch.device) -> "Lesson":
        """The same on another device."""
        cond = {name: value.to(device) for name, value in self.cond.items()}
        return Lesson(self.number, self.x0.to(device), self.eps.to(device), cond)

    def split(self, parts: int) -> "list[Lesson]":
        """The same in so many parts, as even as can be."""
        number, x0, eps = (value.tensor_split(parts) for value in self[:3])
        conds = [{name: value.tensor_split(parts)[i] for name, value in self.cond.items()} for i in range(parts)]
        return [Lesson(*part) for part in zip(number, x0, eps, conds, strict=True)]


@dataclass(frozen=True)
class Objective:
    """Where to learn (`times`), what an error costs (`weight`), how often conditions are withheld (`drop`).

    `span`: the quantiles of the times that are drawn; the ends, where the signal-to-noise ratio may be 0 or infinite,
    are left out by a hair. `bound`: where the variance is learned, this much of the bound beside the loss (Nichol &
    Dhariwal 2021, eq. 16: L_hybrid), for a chain of `steps`. `coupling`: which noise goes with which data. `augment`:
    how pictures are changed, one after the other.
    """

    times: TimeSampler = field(default_factory=Uniform)
    weight: Weight = field(default_factory=Unit)
    drop: float = 0.1
    span: tuple[float, float] = (1e-5, 1 - 1e-5)
    bound: float = 0.0
    steps: int = 1000
    coupling: Coupling = Independent()
    augment: tuple[Augmentation, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.drop <= 1:
            raise PellucidError(f"drop is {self.drop}; expected the share of conditions to withhold, from 0 to 1.")
        if not 0 <= self.span[0] < self.span[1] <= 1:
            raise PellucidError(f"span is {self.span}; expected two rising quantiles, from 0 to 1.")

    def draw(self, path: Path, seed: int, index: Tensor) -> Times:
        """The times at which samples number `index` [b] are learnt."""
        low, high = self.span
        return self.times.times(low + (high - low) * self.times.numbers(seed, index), path)

    def price(self, path: Path, t: Times, prediction: Prediction) -> Times:
        """w(t) in x0 units, per draw."""
        w = self.weight.x0(path, t, prediction)
        return w / self.times.density(t, path) if self.weight.integral or self.times.learns else w

    def loss(self, model: Denoiser, x0: Batch, eps: Batch, t: Times, cond: Cond | None = None) -> Tensor:
        """[b]: the weighted mean square error per dimension, measured on the network's own answer."""
        path, rule = model.path, model.prediction
        price, x = self.price(path, t, rule) * rule.gain(path, t) ** 2, path.mix(x0, eps, t)
        y, spread = model.answer(x, t, cond)
        loss = along(price, x0).flatten() * (y - rule.target(path, x0, eps, t)).square().flatten(1).mean(1)
        if spread is None:
            return loss
        error, density = x0 - solve(rule, path, x, y, t).x0, self.times.density(t, path).to(x0)
        if isinstance(self.weight, Chain):  # the bound, and nothing else
            return self.weight.steps * divergence(path, t, 1 / self.weight.steps, error, spread) / density
        bound = self.steps * divergence(path, t, 1 / self.steps, error.detach(), spread)  # moves the variance alone
        return loss + self.bound * bound / density

    def lesson(self, x0: Batch, cond: Cond, seed: int, index: Tensor) -> Lesson:
        """Samples number `index` with their own noise, some of their conditions withheld. It knows no model."""
        heard = dict(cond)
        eps = heard.pop("noise", None)  # what brought its own noise keeps it
        if eps is not None and self.augment:
            raise PellucidError("this data brings its own noise, and cannot be augmented; leave data.augment out.")
        if eps is None:
            fresh = normal(seed, index, 0, tuple(x0.shape[1:]), stream=TRAIN, dtype=x0.dtype)
            eps = self.coupling.couple(x0, fresh)
        if self.drop > 0 and heard:
            heard = dict(drop(heard, uniform(seed, index, stream=DROP) < self.drop))
        return Lesson(index, x0, eps, heard)

    def __call__(self, model: Denoiser, lesson: Lesson, seed: int) -> Tensor:
        """[b]: the loss of a lesson at its samples' own times, of which a path that is learned has the last word."""
        x0, done = augment(self.augment, lesson.x0, seed, lesson.number)
        cond = lesson.cond if done is None else {**lesson.cond, "augment": done}
        return self.loss(model, x0, lesson.eps, self.draw(model.path, seed, lesson.number), cond)

    def even(self, path: Path, losses: Tensor, seed: int, index: Tensor) -> None:
        """Add to the gradient of a learned clock what the losses [b] of a batch say of it: of a whole batch, for no
        part of one knows how large its losses are beside the others'."""
        if isinstance(path, Learned):
            moment = uneven(path, self.draw(path, seed, index), losses.detach())
            (found,) = torch.autograd.grad(moment.mean(), [path.logits])
            path.logits.grad = found if path.logits.grad is None else path.logits.grad + found

    @torch.no_grad()
    def hear(self, path: Path, losses: Tensor, seed: int, index: Tensor) -> None:
        """Tell times that learn what a batch cost: the losses [b] of samples number `index`, whole and sound."""
        if self.times.learns:
            t = self.draw(path, seed, index)
            self.times.hear(t, losses.double().cpu() * self.times.density(t, path))

    def memory(self) -> dict[str, Tensor]:
        """What the times have learnt, by name: the state of a run."""
        return self.times.state_dict() if isinstance(self.times, nn.Module) else {}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Take up what `memory` once gave."""
        if isinstance(self.times, nn.Module):
            self.times.load_state_dict(memory)


@dataclass(frozen=True)
class Naming(Objective):
    """What a classifier of noisy samples lowers: its cross entropy with their labels, none of which is withheld."""

    drop: float = 0.0

    def loss(self, model: Sight, x0: Batch, eps: Batch, t: Times, cond: Cond | None = None) -> Tensor:
        """[b]: -log p(y | x_t), nats."""
        return nll_loss(model(model.path.mix(x0, eps, t), t), (cond or {})["label"], reduction="none")


def divergence(path: Path, t: Times, step: float, error: Batch, spread: Batch) -> Tensor:
    """[b] KL(q(x_s | x_t, x0) | p(x_s | x_t)), s = t - step, nats per dimension, where x0 is missed by `error`.

    1/2 ((1 + k^2 error^2) e^-g - 1 + g),    k = e^(lam_s) sqrt(1 - e^(-2 h)),    g = 2 spread log(sigma_t/sigma_s)

    The step to the data itself has no variance to learn: the one before it stands in.
    """
    t = t.clamp(min=2 * step)
    s = t - step
    k = torch.exp(path.lam(s)) * (-torch.expm1(2 * (path.lam(t) - path.lam(s)))).sqrt()
    g = along(2 * (path.sigma(t) / path.sigma(s)).log(), error) * spread
    return (((1 + (along(k, error) * error).square()) * torch.exp(-g) - 1 + g) / 2).flatten(1).mean(1)


def uneven(path: Learned, t: Times, loss: Tensor) -> Tensor:
    """[b] how much the loss varies, in units of its square; its gradient evens it (Kingma et al. 2021, eq. 20).

    With uniform t the estimate's second moment is  int l(u)^2 / v'(u) du  for the loss l(u) du at the base's own time:
    it is least where v' is in proportion to l, and the network has no say in it.
    """
    density = path.density(path.inner(t))
    square = loss.double().cpu().square()
    return square / square.mean().clamp(min=1e-60) * density.detach() / density
