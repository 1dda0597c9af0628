"""The house stands: a module imports only from strictly lower floors or its own package, and runs nobody's code.

Read from the source, so imports inside functions count too. A new module must be given a floor here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mutants

HOUSE = Path(__file__).parents[1] / "src" / "pellucid"
FLOORS = [
    "errors",  # the cellar, floor -1
    "types registry files",
    "paths nets noise settings world covariance",
    "predictions grids oracle samplers guidance conditioning coupling ema metrics data pictures",
    "denoiser likelihood",
    "objective sampling checkpoint",
    "training interop drawing batcher fitting evaluation",
    "config explain serve systems",
    "compare",
    "cli",
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS, start=-1) for room in rooms.split()}
DOORS = {"__init__", "__main__"}  # the front doors look at every floor
FORBIDDEN = {"eval", "exec", "pickle", "torch.load", "torch.manual_seed", "np.random.seed", "random.seed"}


def room(path: Path) -> str:
    """The word of the floor plan: samplers/multistep.py lies in `samplers`, noise.py in `noise`."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


MODULES = sorted(path for path in HOUSE.rglob("*.py") if room(path) not in DOORS)
every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, without what only the type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from running(child)


def origins(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of everything that a file imports from pellucid."""
    package = ["pellucid", *path.relative_to(HOUSE).parts[:-1]]
    for node in running(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            names = [f"{source}.{alias.name}" for alias in node.names]
        rooms = (name.split(".")[1] for name in names if name.startswith("pellucid."))
        yield from ((node.lineno, name) for name in rooms if name != "__version__")


def test_every_module_has_a_floor() -> None:
    assert {room(path) for path in MODULES} <= set(FLOOR)


@every_module
def test_imports_come_from_lower_floors(path: Path) -> None:
    here = room(path)
    upward = [
        f"line {line}: {here} (floor {FLOOR[here]}) imports {origin} (floor {FLOOR.get(origin, 'unknown')})"
        for line, origin in origins(path)
        if origin != here and FLOOR.get(origin, len(FLOORS)) >= FLOOR[here]
    ]
    assert not upward


@every_module
def test_nothing_runs_code_from_data_or_seeds_the_world(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert not (called | imported) & FORBIDDEN


@every_module
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_mutant_is_of_the_source_as_it_stands() -> None:
    """A flip that is found nowhere proves nothing."""
    assert len(list(mutants.mutants(""))) > 200
