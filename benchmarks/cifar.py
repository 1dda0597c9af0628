"""CIFAR-10 on a GPU: the recipe cifar10-fast in its ten minutes, and its step beside diffusers' UNet2DModel.

    python -m benchmarks.cifar --source train.parquet [--minutes 10] [--turns 8] [--device cuda] [--out FOLDER]
    python -m benchmarks.cifar --source train.parquet --minutes 0.2 --width 32 --batch 8 --turns 1 --device cpu  (a try)

First a training step of each, turn by turn, in bf16: ours is the recipe's, clipping, optimiser and averages included;
theirs is the loop of their example (add_noise, the mean square of eps, clipping, AdamW, EMAModel) on the same bytes.
`shipped`: ours as the recipe has it, theirs as the example has it; `compiled`: torch.compile on both. Figures are
images/s, the median of all turns and their range; the last column is the median, and the range, of the ratios within
each turn. Then `pellucid train cifar10-fast` for the minutes; its last record says images/s, operations a second and
what part they are of the measured peak, and its last sheet of samples is kept in FOLDER.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import mse_loss

from pellucid.config import Recipe
from pellucid.data import Dataset
from pellucid.training import Learner

Step = Callable[[int], object]


def settings(args: argparse.Namespace) -> list[str]:
    """What the command line changes of the recipe."""
    net = [f"net.width={args.width}", f"net.head={2 * args.width}"]
    return [f"data.source={json.dumps(str(args.source))}", f"train.batch={args.batch}", *net]


def ours(args: argparse.Namespace, data: Dataset, compiled: bool) -> Step:
    """A training step of the recipe."""
    recipe = Recipe.load("cifar10-fast", [*settings(args), "train.steps=1000000", f"train.compile={compiled}".lower()])
    model = recipe.build(data).to(args.device)
    learner = Learner(model, data, recipe.plan(model, data), recipe.aim())
    return lambda step: learner.advance()


def theirs(args: argparse.Namespace, data: Dataset, compiled: bool) -> Step:
    """A step of the loop in diffusers' example of unconditional training, with bf16."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    width, attends = args.width, ("AttnDownBlock2D", "AttnUpBlock2D")
    net = UNet2DModel(
        sample_size=32,
        block_out_channels=(width, 2 * width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", attends[0], "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", attends[1], "UpBlock2D"),
        attention_head_dim=2 * width,
        num_class_embeds=len(data.classes),
    ).to(args.device)
    scheduler, optimizer = DDPMScheduler(), torch.optim.AdamW(net.parameters(), 1e-4)
    ema, called = EMAModel(net.parameters()), torch.compile(net) if compiled else net

    def step(i: int) -> None:
        x, cond = data.batch(torch.randint(len(data.train.x), (args.batch,)))
        x, label = x.to(args.device), cond["label"].to(args.device)
        noise, t = torch.randn_like(x), torch.randint(1000, (args.batch,), device=args.device)
        with torch.autocast(torch.device(args.device).type, torch.bfloat16):
            said = called(scheduler.add_noise(x, noise, t), t, class_labels=label).sample
            loss = mse_loss(said.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(net.parameters())
        loss.item()

    return step


def pace(step: Step, args: argparse.Namespace) -> float:
    """Images a second over a few steps."""
    began = time.perf_counter()
    for i in range(args.steps):
        step(i)
    if args.device.startswith("cuda"):
        torch.cuda.synchronize()
    return args.steps * args.batch / (time.perf_counter() - began)


def spread(values: list[float], digits: int = 1) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def trained(args: argparse.Namespace) -> str:
    """The recipe's run, in a process of its own; what its last record says."""
    command = [sys.executable, "-m", "pellucid", "train", "cifar10-fast", *settings(args), "--runs", str(args.out)]
    command += ["--minutes", str(args.minutes), "--device", args.device, "--fresh"]
    command += [] if args.device.startswith("cuda") else ["train.compile=false"]
    subprocess.run(command, check=True)
    run = max(args.out.glob("cifar10-fast*"), key=lambda path: path.stat().st_mtime)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in reversed(rows) if "rate" in row)
    sheet = max((run / "samples").iterdir())
    shutil.copy(sheet, args.out / "cifar10-fast.png")
    pace = f"{row['rate']:.0f} images/s, {row['flops'] / 1e12:.2f} TFLOP/s, {row['of_peak']:.1%} of the measured peak"
    return f"{row['steps']} steps in {row['seconds']:.0f} s: {pace}; samples in {args.out / 'cifar10-fast.png'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="in a turn")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args, _ = parser.parse_known_args()
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    print(f"{date.today()}, {name}, torch {torch.__version__}, batch {args.batch}, width {args.width}", flush=True)
    data = Recipe.load("cifar10-fast", settings(args)).read()
    print(f"{'images/s':10s}{'diffusers':>30s}{'pellucid':>30s}{'ratio':>22s}")
    for what, both in (("shipped", (False, args.device.startswith("cuda"))), ("compiled", (True, True))):
        if what == "compiled" and not args.device.startswith("cuda"):
            break
        steps = theirs(args, data, both[0]), ours(args, data, both[1])
        turns = [[pace(step, args) for step in steps] for _ in range(args.turns + 1)][1:]  # the first warms up
        a, b = ([turn[i] for turn in turns] for i in (0, 1))
        print(f"{what:10s}{spread(a):>30s}{spread(b):>30s}{spread([y / x for x, y in turns], 2):>22s}", flush=True)
        del steps
    print(trained(args), flush=True)


if __name__ == "__main__":
    main()
