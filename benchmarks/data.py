"""The data path: packed store beside a DataLoader over the same files, and what share of a step loading takes.

    python -m benchmarks.data [--source FOLDER] [--turns 7] [--batch 128] [--recipe pictures]

`files` is torch's DataLoader without workers over the files, decoding as it goes (shuffled, to float in [-1, 1]), and
`store` the batches that training sees, from the packed store. Figures are pictures/s: the median of all turns and their
range; the last column is the median, and the range, of the ratios within each turn. The share is the time in which a
training step of the recipe waits for its batch (order, store, to float, noise, conditions), of the whole step.
Without --source, pictures of 32 x 32 are drawn and saved as JPEG.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from pellucid import data as room
from pellucid.config import Recipe
from pellucid.data.listing import Listing
from pellucid.data.pictures import read
from pellucid.training import Learner


class Files(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A picture is read and decoded whenever it is asked for."""

    def __init__(self, listing: Listing) -> None:
        place = {label: i for i, label in enumerate(listing.classes)}
        self.rows = [(row.source, place.get(row.label or "", 0)) for row in listing.train]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        source, label = self.rows[i]
        return torch.from_numpy(read(source)).float() / 127.5 - 1, label


def drawn(folder: Path, n: int = 2000) -> Path:
    """Smooth noise, saved as JPEG."""
    rng = np.random.default_rng(0)
    for i in range(n):
        picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((32, 32))
        (folder / str(i % 10)).mkdir(exist_ok=True)
        picture.save(folder / str(i % 10) / f"{i}.jpg", quality=75)
    return folder


def unpacked(source: Path, folder: Path, n: int) -> Path:
    """The pictures of a parquet file as files, n of them."""
    for i, row in enumerate(islice(room.sources.listing(source).train, n)):
        (folder / str(row.label)).mkdir(exist_ok=True)
        (folder / str(row.label) / f"{i}.jpg").write_bytes(
            row.source if isinstance(row.source, bytes) else row.source.read_bytes()  # type: ignore[union-attr]
        )
    return folder


def pace(batches: Callable[[], object], batch: int, count: int) -> float:
    """Pictures a second."""
    began = time.perf_counter()
    for _ in range(count):
        batches()
    return count * batch / (time.perf_counter() - began)


def spread(values: list[float], digits: int = 0) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--recipe", default="pictures")
    parser.add_argument("--steps", type=int, default=1)
    args, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        (folder / "pictures").mkdir()
        pictures = folder / "pictures"
        source = unpacked(args.source, pictures, args.pictures) if args.source else drawn(pictures)
        store = room.pack(source, folder / "store")
        recipe = Recipe.load(args.recipe, [f"data.source={store}", "data.size=32", "train.steps=1000"])
        recipe = Recipe.parse({**recipe.model_dump(), "train": {**recipe.train.model_dump(), "batch": args.batch}})
        data = recipe.read()
        learner = Learner(model := recipe.build(data), data, recipe.plan(model, data), recipe.aim())
        files = Files(room.sources.listing(source))
        theirs, turns = iter(DataLoader(files, args.batch, shuffle=True, drop_last=True)), []
        count = max(1, min(len(files) // args.batch // (args.turns + 1), 20))
        step = iter(range(10**9))
        ours = lambda: data.batch(learner.rows(learner.counters(next(step))))  # noqa: E731
        for _ in range(args.turns + 1):
            turns.append((pace(lambda: next(theirs), args.batch, count), pace(ours, args.batch, count)))
        a, b = ([turn[i] for turn in turns[1:]] for i in (0, 1))  # the first warms up
        print(f"{'':12s}{'files':>26s}{'store':>28s}{'ratio':>22s}")
        ratios = [turn[1] / turn[0] for turn in turns[1:]]
        print(f"{'pictures/s':12s}{spread(a):>26s}{spread(b):>28s}{spread(ratios, 1):>22s}")
        shares = [share(learner) for _ in range(args.steps + 1)][1:]
        net = f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M weights, batch {args.batch}"
        print(f"loader's share of a step ({net}): {spread([100 * s for s in shares], 2)} %", flush=True)


def share(learner: Learner) -> float:
    """Of one step, how much is spent on making its batch."""
    spent = 0.0

    def lesson(step: int) -> object:
        nonlocal spent
        began = time.perf_counter()
        made = learner.lesson(step)
        spent += time.perf_counter() - began
        return made

    began = time.perf_counter()
    learner.advance(lesson)  # type: ignore[arg-type]
    return spent / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
