"""The pages as programs:  python docs/pages.py  runs them, rewrites what they print and redraws their figures.

The ```python blocks of a page run in one namespace, in an empty folder. What a block prints stands in the ```text
block after it. What it saves under figures/ is kept in docs/figures/. The tests run the same pages and compare.
Figures named demo-* are those of `make demo` and `pellucid explain runs/demo`, taken from there if they are there.
"""

import contextlib
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parent
HOUSE = DOCS.parent
PAGES = [HOUSE / "README.md", HOUSE / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
DEMO = [HOUSE / "runs/demo" / f"{name}.png" for name in ("digits", "trajectory", "explain/levels", "explain/spectrum")]
FENCE = re.compile(r"^```(\S+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, its text, and where it lies in the page."""

    language: str
    text: str
    start: int
    end: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(match[1], match[2], *match.span()) for match in FENCE.finditer(text)]


def renewed(page: Path, folder: Path) -> str:
    """The page with what its code prints now; its code runs in `folder`."""
    text, found = page.read_text(), blocks(page.read_text())
    namespace: dict[str, Any] = {"__name__": page.stem}
    out, done = [], 0
    for i, block in enumerate(found):
        if block.language != "python":
            continue
        after = found[i + 1] if i + 1 < len(found) else None
        line = text.count("\n", 0, block.start) + 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(folder):
            exec(compile("\n" * line + block.text, str(page), "exec"), namespace)
        out.append(text[done : block.end])
        done = block.end
        if after and after.language == "text" and not text[block.end : after.start].strip():
            done = after.end
        if printed.getvalue():
            out.append(f"\n```text\n{printed.getvalue()}```\n")
    return "".join([*out, text[done:]])


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Figures drawn inside have the look of the library's own, and no window."""
    import matplotlib
    import torch

    from pellucid.explain.style import RC

    torch.set_num_threads(1)
    matplotlib.use("Agg")
    with matplotlib.rc_context(RC | {"figure.constrained_layout.use": True, "figure.dpi": 150}):
        yield


def main(names: list[str]) -> None:
    """Renew the pages of these names, or all of them."""
    for figure in filter(Path.is_file, DEMO):
        shutil.copy(figure, DOCS / "figures" / f"demo-{figure.name}")
    for page in PAGES:
        if names and page.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder, styled():
            (figures := Path(folder) / "figures").mkdir()
            page.write_text(renewed(page, Path(folder)))
            for figure in figures.iterdir():
                shutil.copy(figure, DOCS / "figures" / figure.name)


if __name__ == "__main__":
    main(sys.argv[1:])
