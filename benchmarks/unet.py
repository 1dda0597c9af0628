"""The U-Net beside diffusers' UNet2DModel: the same structure, the same weights, the same answers, turn by turn.

    python -m benchmarks.unet [--turns 10] [--batch 32]        (pip install -c constraints.txt diffusers)

32 x 32 pictures, 64 channels, float32. `training` is a step as each library's own trainer takes it, from bytes to
weights: noise, clipping, AdamW and a moving average included; `sampling` is DDIM. Figures are images/s, for sampling
steps of an image: the median of all turns and their range; the last column is the median, and the range, of the ratios
within each turn. Operations are counted as the definitions have them: convolutions by Winograd's way take fewer, so
that their rate may pass the peak. Memory is what training takes at its peak, each in a process of its own.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from pellucid import sample
from pellucid.data import Dataset, Split
from pellucid.denoiser import Denoiser
from pellucid.nets import UNet
from pellucid.objective import Objective
from pellucid.training import Learner, Plan
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


class Theirs:
    """Training and sampling as diffusers' own example has them: a plain loop with AdamW and a moving average."""

    def __init__(self, net: Any, data: Dataset) -> None:
        self.net, self.ema = net, EMAModel(net.parameters(), use_ema_warmup=True, power=0.75)
        self.optimizer, self.scheduler = torch.optim.AdamW(net.parameters(), 1e-4), DDPMScheduler()
        self.pictures = TensorDataset(data.train.x)

    def step(self, batch: int) -> None:
        (x,) = next(iter(DataLoader(self.pictures, batch, shuffle=True)))
        x = x.float() / 127.5 - 1
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (batch,))
        nn.functional.mse_loss(self.net(self.scheduler.add_noise(x, noise, t), t).sample, noise).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.net.parameters())

    def sample(self, batch: int) -> None:
        pipeline = DDIMPipeline(self.net, DDIMScheduler())
        pipeline.set_progress_bar_config(disable=True)
        pipeline(batch_size=batch, num_inference_steps=STEPS, output_type="np")


class Ours:
    """The same by this library: a learner of the same objective, and DDIM."""

    def __init__(self, net: UNet, data: Dataset) -> None:
        self.model = Denoiser(net, "vp", "eps")
        self.learner = Learner(self.model, data, Plan(steps=1000, batch=32, lr=1e-4), Objective())

    def step(self, batch: int) -> None:
        self.learner.plan = replace(self.learner.plan, batch=batch)
        self.learner.advance()

    def sample(self, batch: int) -> None:
        sample(self.model.eval(), batch, sampler="ddim", steps=STEPS)


STEPS = 2


def pictures(n: int = 512) -> Dataset:
    """Bytes."""
    x = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Dataset("noise", Split(x, None, None), None)


def memory(who: str, batch: int) -> float:
    """MiB that two steps of training take beyond what was there before them, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.unet", "--memory", who, "--batch", str(batch)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def taken(who: str, batch: int) -> float:
    """What `memory` asks a process of its own."""
    pair = dict(zip(("theirs", "ours"), networks(), strict=True))
    side: Any = Theirs(pair[who], pictures()) if who == "theirs" else Ours(pair[who], pictures())
    del pair
    before = highest()
    for _ in range(2):
        side.step(batch)
    return highest() - before


def highest() -> float:
    """MiB that this process has had at its peak; other than the system's accounts, it does not know its parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def peaks(turns: int = 5) -> dict[str, float]:
    """Operations a second of the best matrix product and of the best convolution of the networks' kind."""
    a, x = torch.randn(1024, 1024), torch.randn(32, 128, 16, 16).to(memory_format=torch.channels_last)
    w = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last)
    works = {
        "matrix": (2 * 1024**3, lambda: a @ a),
        "convolution": (2 * 9 * 128**2 * 256 * 32, lambda: conv2d(x, w, padding=1)),
    }
    return {name: cost / min(timed(run) for _ in range(turns)) for name, (cost, run) in works.items()}


def cost(net: Any, answer: Answer) -> float:
    """Floating-point operations of a sample, forth and back."""
    with FlopCounterMode(display=False) as counter:
        gradient(net, answer)(torch.randn(2, 3, 32, 32), torch.rand(2))
    return counter.get_total_flops() / 2


def timed(run: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def spread(values: list[float]) -> str:
    return f"{median(values):6.2f} ({min(values):.2f} - {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory", choices=("theirs", "ours"))
    args, _ = parser.parse_known_args()
    if args.memory:
        print(taken(args.memory, args.batch))
        return
    theirs, ours = networks()
    answers: list[tuple[Any, Answer]] = [
        (theirs, lambda x, clock: theirs(x, clock).sample),
        (ours, lambda x, clock: ours(x, clock, Context())),
    ]
    x, clock = torch.randn(4, 3, 32, 32), torch.tensor([0.0, 10.0, 500.0, 999.0])
    with torch.no_grad():
        a, b = (answer(x, clock) for _, answer in answers)
    print(f"largest difference of answers {(a - b).abs().max():.1e}, of {a.abs().max():.2f}")
    print(f"{'images/s':10s}{'diffusers':>26s}{'pellucid':>26s}{'ratio':>24s}")
    x, clock, batch = torch.randn(args.batch, 3, 32, 32), 1000 * torch.rand(args.batch), args.batch
    sides = Theirs(theirs, pictures()), Ours(ours, pictures())
    rows: dict[str, list[Callable[[], None]]] = {
        "forward": [partial(forward(*pair), x, clock) for pair in answers],
        "gradient": [partial(gradient(*pair), x, clock) for pair in answers],
        "training": [partial(side.step, batch) for side in sides],
        "sampling": [partial(side.sample, batch) for side in sides],
    }
    paces = {}
    for name, runs in rows.items():
        turns = [[timed(run) for run in runs] for _ in range(args.turns + 1)][1:]  # the first warms up
        images = batch / STEPS if name == "sampling" else batch  # of a step
        a, b = ([images / turn[i] for turn in turns] for i in (0, 1))
        paces[name] = median(a), median(b)
        ratios = [turn[0] / turn[1] for turn in turns]
        print(f"{name:10s}{spread(a):>26s}{spread(b):>26s}{spread(ratios):>24s}", flush=True)
    top, costs = peaks(), [cost(*pair) for pair in answers]
    rates = [c * pace / 1e9 for c, pace in zip(costs, paces["training"], strict=True)]
    print(f"GFLOP an image, forth and back: {costs[0] / 1e9:.2f}, {costs[1] / 1e9:.2f}")
    print(
        f"GFLOP/s of training: {rates[0]:.0f}, {rates[1]:.0f}; peaks "
        + ", ".join(f"{k} {v / 1e9:.0f}" for k, v in top.items())
    )
    share = median(timed(partial(sides[1].learner.lesson, n)) for n in range(9)) * paces["training"][1] / batch
    print(f"share of a step that makes the batch: {share:.2%}")
    used = [memory(who, batch) for who in ("theirs", "ours")]
    print(f"MiB of training at its peak: {used[0]:.0f}, {used[1]:.0f}, ratio {used[1] / used[0]:.2f}")


if __name__ == "__main__":
    main()
