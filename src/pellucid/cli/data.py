"""`pellucid data`: pictures packed once for all trainings, and damaged ones named."""

from pathlib import Path
from typing import Annotated

import typer

from .console import answer, progress

group = typer.Typer(help="Pack pictures once for all trainings; name damaged ones.")
Source = Annotated[str, typer.Argument(help="A folder or .zip of pictures, a .parquet file or a folder of them.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@group.command()
def pack(
    source: Source,
    out: Annotated[Path | None, typer.Option(help="Where the store is to be; by default in the cache.")] = None,
    size: Annotated[int | None, typer.Option(help="Side to which all are resized and cut; as they are.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (colour); as they are.")] = None,
    json: Json = False,
) -> None:
    """Decode pictures into a store, which is read without decoding. Training does so by itself the first time."""
    from ..data import pack, store

    with progress("packing") as show:
        place = pack(source, out, size=size, channels=channels, progress=lambda done, total: show(done, total, ""))
    data = store.open_(place)
    held = {"train": len(data.train.x), "test": len(data.test.x) if data.test else 0}
    numbers = {**held, "shape": list(data.shape), "classes": list(data.classes), "left_out": len(data.skipped)}
    sides = " x ".join(map(str, data.shape))
    words = f"{place}: {held['train']} to train on and {held['test']} held out, {sides}; {len(data.skipped)} left out"
    answer(words, {"store": str(place), **numbers}, json)


@group.command()
def check(
    source: Annotated[str, typer.Argument(help="A folder or .zip of pictures, a .parquet, or a store.")],
    json: Json = False,
) -> None:
    """Read every picture (or every file of a store) and name those that are damaged; exit code 1 if there are any."""
    from ..data import check

    with progress("checking") as show:
        n, bad = check(source, lambda done, total: show(done, total, ""))
    lines = [f"{name}: {reason}" for name, reason in bad]
    words = "\n".join(lines) or f"{source}: all {n} are whole"
    answer(words, {"checked": n, "damaged": [name._asdict() for name in bad]}, json)
    if bad:
        raise typer.Exit(1)
