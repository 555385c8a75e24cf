"""What benchmarks import of the project is there, also what a function imports when it runs: no test runs them all."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
OURS = ("agents", "schemas", "sinks", "web")


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each name that the file imports from a package of the project."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            yield from ((node.module, alias.name) for alias in node.names)


@functools.cache
def names_of(module: str) -> set[str]:
    """What a module binds, and its submodules; read, not imported: that takes seconds."""
    path = ROOT.joinpath(*module.split("."))
    inside = {child.stem for child in path.iterdir()} if path.is_dir() else set()
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            inside.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            inside.update(alias.asname or alias.name for alias in node.names)
    return inside


@pytest.mark.parametrize("path", sorted(BENCH.rglob("*.py")), ids=lambda path: path.relative_to(BENCH).as_posix())
def test_what_a_benchmark_imports_of_the_project_is_there(path: Path):
    absent = [f"{module}.{name}" for module, name in imported(path) if name not in names_of(module)]
    assert not absent
