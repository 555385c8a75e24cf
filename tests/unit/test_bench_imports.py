"""What benchmarks import of the project is there, also what a function imports when it runs: no test runs them all."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
OURS = ("agents", "schemas", "sinks", "web")


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each name that the file imports from a package of the project."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            yield from ((node.module, alias.name) for alias in node.names)


def is_there(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("path", sorted(BENCH.rglob("*.py")), ids=lambda path: path.relative_to(BENCH).as_posix())
def test_what_a_benchmark_imports_of_the_project_is_there(path: Path):
    absent = [f"{module}.{name}" for module, name in imported(path) if not is_there(module, name)]
    assert not absent
