"""The U-Net beside diffusers' UNet2DModel: the same structure, the same weights, the same answers, turn by turn.

    python -m benchmarks.unet [--turns 10] [--batch 32]        (pip install -c constraints.txt diffusers)

32 x 32 pictures, 64 channels, float32. `step` is a training step as each library's own trainer takes it: gradient
clipping, AdamW and a moving average of the weights included. Figures are images/s: the median of all turns and their
range; the last column is the median, and the range, of the ratios within each turn.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from pellucid.ema import EMA
from pellucid.nets import UNet
from pellucid.types import Context

Answer = Callable[[Tensor, Tensor], Tensor]


def networks() -> tuple[UNet2DModel, UNet]:
    """Theirs and ours, with equal weights; neither is silent."""
    theirs = UNet2DModel(
        sample_size=32,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
    )
    ours = UNet((3, 32, 32), multipliers=(1, 2, 2), attention=(16,), fed="add", resample="plain")
    transplant(theirs, ours)
    return theirs, ours


def found(parts: list[nn.Module], names: tuple[str, ...]) -> list[Any]:
    """The layers of some classes, in the order in which they are asked."""
    return [m for part in parts for m in part.modules() if type(m).__name__ in names]


def transplant(theirs: Any, ours: Any) -> None:
    """Give ours the weights of theirs, whose key biases, of which ours has none, are set to zero."""
    a = [theirs.down_blocks, theirs.mid_block, theirs.up_blocks]
    b = [ours.down, ours.attend, ours.middle, ours.up]
    time = theirs.time_embedding
    pairs = [(time.linear_1, ours.hearing.time[0]), (time.linear_2, ours.hearing.time[2])]
    pairs += [(theirs.conv_in, ours.enter), (theirs.conv_norm_out, ours.norm), (theirs.conv_out, ours.leave)]
    for t, o in zip(found(a, ("ResnetBlock2D",)), found(b, ("ResBlock",)), strict=True):
        pairs += [(t.norm1, o.norm), (t.conv1, o.conv1), (t.time_emb_proj, o.hear.project), (t.norm2, o.hear.norm)]
        pairs += [(t.conv2, o.conv2)] + [(t.conv_shortcut, o.shortcut)] * (t.conv_shortcut is not None)
    for t, o in zip(found(a, ("Attention",)), found(b, ("Attention",)), strict=True):
        nn.init.zeros_(t.to_k.bias)
        pairs += [(t.group_norm, o.norm), (t.to_q, o.query), (t.to_k, o.key), (t.to_v, o.value), (t.to_out[0], o.out)]
    samplers = found(a, ("Downsample2D", "Upsample2D")), found(b, ("Down", "Up"))
    pairs += [(t.conv, o.conv) for t, o in zip(*samplers, strict=True)]
    assert {id(p) for _, o in pairs for p in o.parameters()} == {id(p) for p in ours.parameters()}
    for t, o in pairs:
        o.load_state_dict({name: t.state_dict()[name] for name in o.state_dict()})


def forward(net: Any, answer: Answer) -> Callable[[Tensor, Tensor], None]:
    """An answer alone, as in sampling."""

    @torch.no_grad()
    def run(x: Tensor, clock: Tensor) -> None:
        answer(x, clock)

    return run


def gradient(net: Any, answer: Answer) -> Callable[[Tensor, Tensor], None]:
    """An answer and the gradient of its square."""

    def run(x: Tensor, clock: Tensor) -> None:
        net.zero_grad(set_to_none=True)
        answer(x, clock).square().mean().backward()

    return run


def step(net: Any, answer: Answer) -> Callable[[Tensor, Tensor], None]:
    """A training step."""
    ours = isinstance(net, UNet)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True if ours else None)
    ema: Any = EMA(net) if ours else EMAModel(net.parameters())
    learn = gradient(net, answer)

    def run(x: Tensor, clock: Tensor) -> None:
        learn(x, clock)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        ema.update(net) if ours else ema.step(net.parameters())

    return run


def seconds(run: Callable[[Tensor, Tensor], None], batch: int) -> float:
    x, clock = torch.randn(batch, 3, 32, 32), 1000 * torch.rand(batch)
    began = time.perf_counter()
    run(x, clock)
    return time.perf_counter() - began


def spread(values: list[float]) -> str:
    return f"{median(values):6.2f} ({min(values):.2f} - {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    args, _ = parser.parse_known_args()
    theirs, ours = networks()
    answers: list[tuple[Any, Answer]] = [
        (theirs, lambda x, clock: theirs(x, clock).sample),
        (ours, lambda x, clock: ours(x, clock, Context())),
    ]
    x, clock = torch.randn(4, 3, 32, 32), torch.tensor([0.0, 10.0, 500.0, 999.0])
    with torch.no_grad():
        a, b = (answer(x, clock) for _, answer in answers)
    print(f"largest difference of answers {(a - b).abs().max():.1e}, of {a.abs().max():.2f}")
    print(f"{'':10s}{'diffusers':>26s}{'pellucid':>26s}{'ratio':>24s}")
    for work in (forward, gradient, step):
        runs = [work(net, answer) for net, answer in answers]
        turns = [[seconds(run, args.batch) for run in runs] for _ in range(args.turns + 1)][1:]  # the first warms up
        a, b = ([args.batch / turn[i] for turn in turns] for i in (0, 1))
        ratios = [turn[0] / turn[1] for turn in turns]
        print(f"{work.__name__:10s}{spread(a):>26s}{spread(b):>26s}{spread(ratios):>24s}", flush=True)


if __name__ == "__main__":
    main()
