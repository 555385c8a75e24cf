"""Rules about the shape of the code: imports between folders, and where Faust, the environment and I/O may be used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import agents
from sinks.postgres.sql.queries import SQL

ROOT = Path(__file__).parents[1]
PACKAGES = ("agents", "schemas", "sinks", "web")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

#: Folder to the modules of ours that it may import; the first match counts.
MAY_IMPORT = {
    "schemas/": {"schemas"},
    "sinks/ports/": {"schemas", "sinks.ports"},
    "sinks/": {"schemas", "sinks"},
    "web/": {"schemas", "sinks", "web"},
    "agents/text/": {"schemas", "agents.text"},
    "agents/redaction/": {"schemas", "agents.redaction", "agents.text"},
    "agents/media/": {"schemas", "sinks", "agents.media"},
    "agents/runtime/": {"schemas", "sinks", "agents.runtime"},
    "agents/asr/": {
        "schemas",
        "sinks.ports",
        "sinks.coalesce",
        "agents.asr",
        "agents.text",
        "agents.media",
        "agents.runtime",
    },
    "agents/llm/": {"schemas", "sinks.ports", "agents.llm", "agents.asr", "agents.text", "agents.runtime"},
    "agents/reports/": {
        *("schemas", "sinks.ports", "agents.reports", "agents.media.subprocess_worker", "agents.runtime.failpoints"),
    },
    "agents/webhooks/": {"schemas", "sinks.ports", "agents.webhooks", "agents.media.source", "agents.runtime"},
    "agents/corrections/": {"schemas", "sinks.ports", "agents.corrections", "agents.text", "agents.runtime.failpoints"},
    "agents/embeddings/": {
        *("schemas", "sinks.ports", "agents.embeddings", "agents.asr", "agents.runtime", "agents.llm.openai_client"),
    },
    "agents/search/": {
        *("schemas", "sinks.ports", "agents.search", "agents.embeddings", "agents.text", "agents.llm"),
        *("agents.asr.paid_calls", "agents.asr.protocols", "agents.runtime.metrics"),
    },
    "agents/conversations/": {
        *("schemas", "sinks.ports", "agents.conversations", "agents.media.probe_pool", "agents.runtime.failpoints"),
    },
    "agents/upkeep/": {"schemas", "sinks.ports", "agents.upkeep"},
    "agents/stages/": {
        *("schemas", "sinks.ports", "agents.stages", "agents.asr", "agents.llm", "agents.text", "agents.media"),
        *("agents.redaction", "agents.runtime", "agents.upkeep", "agents.reports", "agents.conversations"),
        "agents.voices.protocols",
    },
    "agents/voices/": {"schemas", "agents.voices", "agents.text", "agents.media"},
    "agents/embedded/": {"schemas", "agents.embedded", "agents.runtime.scratch"},
}

#: Modules in one folder at most, and lines in one of them.
MODULES, LINES = 12, 400

#: The files of stages, and what they share; the list of them reads Kafka's layout.
STAGES = sorted(path for path in (ROOT / "agents" / "stages").rglob("*.py") if path.stem != "registry")
FORBIDDEN_TO_STAGES = {
    "faust",
    "aiokafka",
    "asyncpg",
    "agents.runtime.faust_binding",
    "agents.fleet",
    "web",
}

#: The files that know Faust: how apps are made and run, our consumer and offsets, and who holds the running apps.
FAUST = {
    "agents/runtime/faust_binding.py",
    "agents/fleet/build.py",
    "agents/fleet/fleet.py",  # as a type
    "agents/runtime/offsets.py",
    "agents/runtime/kafka/client.py",
}
ENVIRONMENT = {
    "agents/__main__.py",
    "agents/commands/remote/output.py",  # NO_COLOR, TERM
    "agents/embedded/address.py",
    "agents/embedded/kafka.py",
    "agents/embedded/postgres.py",
    "agents/media/sandbox.py",  # what children get of it
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Source:
    """What the rules ask of a file: they ask six times, and to parse it each time took three of their five seconds."""

    docstring: str | None
    #: Modules that it imports, whether outside functions, and whether for annotations only.
    imports: tuple[tuple[frozenset[str], bool, bool], ...]
    #: Functions that it calls when it is imported, with their lines.
    calls: tuple[tuple[str, int], ...]


@cache
def source(path: Path) -> Source:
    tree = ast.parse(path.read_text())
    every = list(statements(tree.body))
    blocks = [b for b in every if isinstance(b, ast.If) and "TYPE_CHECKING" in ast.unparse(b.test)]
    typing, top = {id(node) for node in statements(blocks)}, {id(node) for node in tree.body}
    imports = tuple(
        (modules(node), id(node) in top | typing, id(node) in typing)
        for node in every
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    values = ((getattr(node, "value", None), node.lineno) for node in tree.body)
    calls = tuple((ast.unparse(value.func), line) for value, line in values if isinstance(value, ast.Call))
    return Source(ast.get_docstring(tree), imports, calls)


def statements(block: list[ast.stmt]) -> Iterator[ast.stmt]:
    """These statements and those within them. Expressions, which are most of a tree, contain none."""
    for statement in block:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            yield from statements(getattr(statement, part, []))
        for part in ("handlers", "cases"):
            for inner in getattr(statement, part, []):
                yield from statements(inner.body)


def modules(node: ast.Import | ast.ImportFrom) -> frozenset[str]:
    if isinstance(node, ast.Import):
        return frozenset(alias.name for alias in node.names)
    if node.module:
        return frozenset({node.module} | {f"{node.module}.{alias.name}" for alias in node.names})
    return frozenset()


def imported(path: Path, *, top_level: bool = False, types: bool = False) -> set[str]:
    """Every module that a file imports; with `top_level` not in functions, with `types` also for annotations only."""
    used = (
        names
        for names, at_top, for_types in source(path).imports
        if (at_top or not top_level) and (types or not for_types)
    )
    return set().union(*used)


def ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in PACKAGES


def within(module: str, allowed: set[str]) -> bool:
    return any(module == a or module.startswith(f"{a}.") for a in allowed) or any(
        a.startswith(f"{module}.") for a in allowed
    )


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_arrows_point_one_way(path):
    allowed = next((may for folder, may in MAY_IMPORT.items() if name(path).startswith(folder)), None)
    if allowed is not None:
        assert [m for m in sorted(imported(path)) if ours(m) and not within(m, allowed)] == []


def test_folders_are_small():
    folders = {path.parent for path in SOURCES}
    sizes = {name(folder): sum(f.parent == folder and f.name != "__init__.py" for f in SOURCES) for folder in folders}

    assert {folder for folder, size in sizes.items() if size > MODULES} == set()


def test_files_are_short():
    scripts = (ROOT / "web" / "static").rglob("*.js")

    assert {name(path) for path in [*SOURCES, *scripts] if len(path.read_text().splitlines()) > LINES} == set()


@pytest.mark.parametrize("path", STAGES, ids=name)
def test_stages_know_neither_faust_nor_settings_nor_drivers(path):
    found = imported(path)

    assert [m for m in sorted(found) if any(m == f or m.startswith(f"{f}.") for f in FORBIDDEN_TO_STAGES)] == []


def test_faust_is_imported_where_stages_are_bound_and_nowhere_else():
    users = {name(path) for path in SOURCES if any(m.split(".")[0] == "faust" for m in imported(path, types=True))}

    assert users <= FAUST


@pytest.mark.parametrize("query", sorted(SQL))
def test_no_query_reads_every_column_of_jobs(query):
    """Metadata may be 850 kB a job; only `metadata` reads them."""
    assert not re.search(r"SELECT\s+(DISTINCT\s+)?(\w+\.)?\*[^()]*?\bFROM jobs\b", SQL[query])


def test_the_web_view_makes_no_outgoing_calls():
    """It answers from the database, the store and the table here: a caller's key has nowhere to go."""
    clients = {"ClientSession", "open_connection", "create_connection", "urlopen"}
    callers = {
        name(path)
        for path in SOURCES
        if name(path).startswith("web/")
        and (
            clients & {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(ast.parse(path.read_text()))}
            or {"requests", "httpx"} & imported(path)
        )
    }

    assert callers == set()


def test_the_environment_is_read_at_the_edge_only():
    readers = {name(path) for path in SOURCES if "os.environ" in path.read_text() or "os.getenv" in path.read_text()}

    assert readers <= ENVIRONMENT


def test_no_module_imports_itself_in_a_circle():
    modules = {name(p)[:-3].replace("/", ".").removesuffix(".__init__"): p for p in SOURCES}
    graph = {
        m: {i for i in imported(p, top_level=True, types=True) if i in modules and i != m} for m, p in modules.items()
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*above, module))
            done.add(module)

    for module in modules:
        visit(module, ())


def test_agents_is_ours():
    """Other distributions install a package of that name, too."""
    assert Path(agents.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_says_why_it_exists(path):
    assert source(path).docstring, f"{name(path)} has no docstring"


def test_nothing_is_opened_or_connected_at_import():
    opening = {"App", "open", "connect", "create_pool"}
    calls = [(name(path), *call) for path in SOURCES for call in source(path).calls]

    assert [f"{file}:{line}" for file, call, line in calls if call.split(".")[-1] in opening] == []
