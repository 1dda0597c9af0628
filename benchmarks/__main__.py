"""All comparisons in turn:  python -m benchmarks [--out docs/speed.md],  or `make bench`. Each prints ratios with their
spread; the page that is written says when, on what, and beside what other work."""

import argparse
import io
import os
import platform
import sys
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path

import torch

from . import data, metrics, minutes, steps, strangers, unet

HEAD = """# Speed, as measured

Written by `python -m benchmarks --out docs/speed.md`; not by hand. Figures in one line were taken in turns, so their
ratio says more than they do: of another machine, or of a busy one, only the ratio holds.

{said}
"""


class Both(io.StringIO):
    """What is printed is kept, and shown at once."""

    def write(self, text: str) -> int:
        sys.__stdout__.write(text)  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
        return super().write(text)


def machine() -> str:
    """When, on what, and beside what other work."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    said = f"{date.today()}, {cpu}, {cores} cores, torch {torch.__version__} on {torch.get_num_threads()} threads"
    return f"{said}; load before it began: {load:.1f}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    args, _ = parser.parse_known_args()
    page = [machine()]
    for comparison in (steps, unet, strangers, metrics, data, minutes):
        title = (comparison.__doc__ or "").partition("\n")[0]
        print(f"\n{title}\n", flush=True)
        with redirect_stdout(Both()) as said:
            comparison.main()
        name = comparison.__name__.rpartition(".")[2]
        page += [f"## {title.rstrip('.')}", f"`benchmarks/{name}.py`", f"```text\n{said.getvalue().strip()}\n```"]
    if args.out:
        args.out.write_text(HEAD.format(said="\n\n".join(page)), "utf-8")


if __name__ == "__main__":
    main()
