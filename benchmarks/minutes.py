"""Quality per minute: the shipped recipe of the digits beside plain DDPM, on the same network.

    python -m benchmarks.minutes [--seconds 120] [--seeds 3] [--budgets 0.4]
    python -m benchmarks.minutes --steps 800 --seeds 1        (counting steps in place of seconds)

Plain: 1000 linear betas, the noise predicted, uniform times, every level equal, Adam at 2e-4, EMA 0.9999 with its usual
(1 + n)/(10 + n). Ours: `pellucid train digits`, sized to a part of the plain recipe's time. Both train the same network
from the same weights on the same rows and are drawn by the same sampler, without guidance. The figure is the Frechet
distance of 1000 samples to the held-out digits, in the features of a classifier of the training digits; `real` is what
the training digits score. The last column is how many of the seeds reach the plain figure, and the median ratio.

The seconds of ours include those in which the pace is measured; 0.4 leaves room for them within half of the time.
One network means that a step costs the same: counted in steps the comparison holds on a busy machine too.
"""

import argparse
import time
from statistics import median

import torch

import pellucid as pl
from pellucid.config import Recipe
from pellucid.data import Dataset, encode
from pellucid.metrics.features import Features
from pellucid.metrics.features.classifier import trained
from pellucid.metrics.frechet import frechet
from pellucid.training import Learner

SAMPLES = 1000
PLAIN = ["path=linear-table", "prediction=eps", "clock=index", "objective.times=uniform", "objective.weight=simple"]
PLAIN += ["optim.method=adam", "optim.lr=2e-4", "optim.betas=[0.9,0.999]", "optim.warmup=0", "optim.decay=constant"]
PLAIN += ["optim.ema=0.9999"]


def learnt(recipe: Recipe, data: Dataset, seconds: float | None) -> tuple[pl.Denoiser, int, float]:
    """The model of a recipe with its averaged weights, its steps, and the seconds that it took; stopped after some."""
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    began = time.perf_counter()
    learner = Learner(model := recipe.build(data), data, recipe.plan(model, data), recipe.aim())
    for _ in learner.fit():
        if seconds is not None and time.perf_counter() - began >= seconds:
            break
    model.load_state_dict(learner.ema.groups()["ema"])
    return model.eval(), learner.step, time.perf_counter() - began


def distance(model: pl.Denoiser, data: Dataset, eyes: Features, seed: int) -> float:
    """Of samples, a label each as often as the training digits have it, to the held-out digits."""
    assert data.train.label is not None and data.test is not None
    label = data.train.label[torch.arange(SAMPLES) % len(data.train.label)]
    x = pl.sample(model, SAMPLES, sampler="dpmpp-2m", steps=20, grid="karras", seed=seed, cond={"label": label})
    return frechet(eyes(encode(Dataset.decode(x))), eyes(encode(data.test.x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.4], help="parts of the plain recipe's time")
    args, _ = parser.parse_known_args()
    data = Recipe.load("digits").read()
    assert data.train.label is not None and data.test is not None
    eyes = trained(encode(data.train.x), data.train.label, len(data.classes))
    real = frechet(eyes(encode(data.train.x)), eyes(encode(data.test.x)))
    rows: dict[str, list[tuple[float, int, float]]] = {}
    for seed in range(args.seeds):
        steps = args.steps or 10**6
        plain = Recipe.load("digits", [*PLAIN, f"train.steps={steps}", f"train.seed={seed}"])
        model, n, took = learnt(plain, data, None if args.steps else args.seconds)
        rows.setdefault("plain", []).append((distance(model, data, eyes, seed), n, took))
        for part in args.budgets:
            size = f"train.steps={int(part * n)}" if args.steps else f"train.minutes={part * args.seconds / 60}"
            model, n_ours, took = learnt(Recipe.load("digits", [size, f"train.seed={seed}"]), data, None)
            rows.setdefault(f"ours, {part:g}", []).append((distance(model, data, eyes, seed), n_ours, took))
    print(f"{'':12s}{'Frechet distance':>30s}{'steps':>8s}{'seconds':>10s}{'reach it, ratio':>22s}")
    print(f"{'real':12s}{real:>10.3f}")
    for name, found in rows.items():
        values, n, took = ([row[i] for row in found] for i in range(3))
        ratios = [mine[0] / plain[0] for mine, plain in zip(found, rows["plain"], strict=True)]
        reach = f"{sum(r <= 1 for r in ratios)} of {len(ratios)}, {median(ratios):.2f}" if name != "plain" else ""
        spread = f"{median(values):.3f} ({min(values):.3f} - {max(values):.3f})"
        print(f"{name:12s}{spread:>30s}{int(median(n)):>8d}{median(took):>10.1f}{reach:>22s}", flush=True)


if __name__ == "__main__":
    main()
