"""The pages are true: their code runs and prints what stands there, and what they name exists."""

import ast
import importlib
import re
import runpy
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pellucid.registry import Registry
from test_floors import FLOOR

HOUSE = Path(__file__).parents[1]
pages = SimpleNamespace(**runpy.run_path(str(HOUSE / "docs" / "pages.py")))
TEXT = {page: page.read_text() for page in pages.PAGES}
WITH_CODE = [page for page in pages.PAGES if "```python" in TEXT[page]]
every_page = pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page registers is forgotten."""
    import pellucid
    from pellucid.data import toys

    found = [pellucid.objective.times, pellucid.objective.weights, toys.registry]
    rooms = ("paths", "nets", "predictions", "grids", "samplers", "conditioning")
    found += [getattr(pellucid, room).registry for room in rooms]
    before = [{name: dict(table) for name, table in vars(r).items() if isinstance(table, dict)} for r in found]
    yield
    for registry, tables in zip(found, before, strict=True):
        vars(registry).update(tables)
    assert all(isinstance(registry, Registry) for registry in found)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_a_page_prints_what_it_says(page: Path, tmp_path: Path, registries: None) -> None:
    (tmp_path / "figures").mkdir()
    with pages.styled():
        assert pages.renewed(page, tmp_path) == TEXT[page], "renew it: .venv/bin/python docs/pages.py"
    drawn = {figure.name for figure in (tmp_path / "figures").iterdir()}
    assert all(f"figures/{name}" in TEXT[page] for name in drawn)


@every_page
def test_a_page_shows_pictures_that_are_there(page: Path) -> None:
    for figure in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT[page]):
        assert (page.parent / figure).is_file(), figure


@every_page
def test_what_a_page_names_exists(page: Path) -> None:
    """`file.py:Object` is an object of that file, `tests/file.py::test` is a test."""
    for file, name in re.findall(r"`([\w/]+)\.py:([\w.]+)`", TEXT[page]):
        part: Any = importlib.import_module(f"pellucid.{file.replace('/', '.')}")
        for word in name.split("."):
            part = getattr(part, word)
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT[page]):
        assert test in functions(HOUSE / file), f"{file}::{test}"


@cache
def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def commands(page: Path) -> Iterator[list[str]]:
    """The shell commands of a page, as words."""
    for block in pages.blocks(TEXT[page]):
        if block.language == "sh":
            yield from filter(None, (shlex.split(line, comments=True) for line in block.text.splitlines()))


@every_page
def test_the_commands_of_a_page_exist(page: Path) -> None:
    """Every `pellucid` command and option is known, every task of `make` is one."""
    tasks = runpy.run_path(str(HOUSE / "bootstrap.py"))["TASKS"]
    for program, *arguments in commands(page):
        match Path(program).name:
            case "pellucid":
                parse(arguments)
            case "make":
                assert arguments[0] in {*tasks, "clean"}, arguments


def parse(arguments: list[str]) -> None:
    """Read a command line as `pellucid` does, without running it."""
    import typer

    from pellucid.cli import app

    command: Any = typer.main.get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", {}):
        arguments, command = arguments[1:], command.commands[arguments[0]]
    command.make_context("pellucid", list(arguments))


def test_every_room_is_on_the_page_of_its_floor() -> None:
    house = HOUSE / "src" / "pellucid"
    rooms = {path.stem for path in house.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    for floor in range(8):
        told = re.findall(r"```\{room\} (\w+)\n```", TEXT[HOUSE / "docs" / f"floor{floor}.md"])
        assert sorted(told) == sorted(room for room in rooms if room in FLOOR and max(0, FLOOR[room]) == floor)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_the_built_pages_need_no_other_host(tmp_path: Path) -> None:
    """Sphinx finds nothing to warn of; nothing that a browser loads is elsewhere; mathematics is MathML."""
    pytest.importorskip("furo", reason="the pages are built where the extra `docs` is installed")
    from sphinx.cmd.build import build_main

    assert build_main(["-q", "-W", "-b", "html", str(HOUSE / "docs"), str(tmp_path)]) == 0
    loads = {
        "html": r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^\"]*",
        "css": r"(?:url\(|@import)\s*[\"']?(?:https?:)?//",
    }
    for kind, elsewhere in loads.items():
        for file in tmp_path.rglob(f"*.{kind}"):
            assert not re.search(elsewhere, file.read_text()), file.name
    assert (tmp_path / "lecture.html").read_text().count("<math ") > 20
