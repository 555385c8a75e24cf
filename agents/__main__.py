"""`concord`: the command line. `concord COMMAND --help` explains each command."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import sys
import textwrap
import threading
import time
from collections.abc import Coroutine
from typing import Any

from agents.fleet import settings as configuration
from agents.fleet.malloc import release_freed_memory
from agents.runtime.failpoints import arm
from schemas.errors import ConcordError
from schemas.printable import LINE, printable

#: Modules of `agents.commands`, in the order in which `--help` shows what they add.
COMMANDS = (
    *("demo", "serve", "jobs.publish", "jobs.status", "jobs.usage", "operations.requests", "jobs.cancel"),
    *("operations.dlq", "operations.skip", "operations.outbox", "operations.verify", "operations.rewind"),
    *("schema", "migrate", "doctor", "reconcile"),
)

#: Seconds that tasks have for ending after their command has, and threads after them.
END_S, THREADS_END_S = 2.0, 5.0

DESCRIPTION = """Concord turns uploaded call recordings into reconciled transcripts: several recognizers hear each
recording, Concord decides word by word what was said, stores it and announces it exactly once."""

EPILOG = """First steps:
  concord demo                      watch one recording travel through a fleet of its own
  concord up                        run a fleet on this machine
  concord publish call.wav --wait   transcribe a recording

Everything is configured by environment variables; `concord doctor` lists and checks them."""


def main() -> None:
    """Entry point of the `concord` command."""
    status = run(sys.argv[1:])
    threading.Thread(target=_end, args=(status,), daemon=True).start()
    sys.exit(status)


def _end(status: int) -> None:
    """End the process, should a thread that hangs hold it: Python waits for the consumers' threads without end."""
    time.sleep(THREADS_END_S)
    os._exit(status)


def run(argv: list[str]) -> int:
    """Run one command; its exit status."""
    release_freed_memory()
    parser = argparse.ArgumentParser(
        "concord", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"agents.commands.{name}").add(commands)
    arguments = parser.parse_args(argv)
    try:
        settings = configuration.from_env(os.environ)
        # We fork only to exec. gRPC would restart its threads in the child before that, and may hang there.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        arm(settings.failpoint)
        _log(settings.log_level)
        return _loop(arguments.run(arguments, settings))
    except (ConcordError, ValueError) as exc:
        print(f"concord: {printable(str(exc), lines=True)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `concord ... | head`: nobody reads on, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _loop(command: Coroutine[object, object, int]) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_ended(command))


async def _ended(command: Coroutine[object, object, int]) -> int:
    """The command's status, when nothing is left that would hold the process.

    Some tasks of Faust's and aiokafka's outlive their app after a crash and cancellation, and asyncio waits for all.
    """
    status = await command
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    _, deaf = await asyncio.wait(left, timeout=END_S) if left else ((), ())
    if deaf:
        logging.getLogger(__name__).debug("%d tasks do not end", len(deaf))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    return status


class OneLine(logging.Formatter):
    """A record is one line, whatever strangers wrote into it; what a traceback adds is indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line."""
        return printable(super().formatMessage(record), limit=LINE)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """The stack."""
        return _indented(stack_info)


def _indented(text: str) -> str:
    return textwrap.indent(printable(text, lines=True, limit=16 * LINE), "  ", lambda _: True)


def _tells_something(record: logging.LogRecord) -> bool:
    """Drop what every service of Faust's says at its start and stop, and what every client of Kafka says while a new
    group's coordinator starts: 40 lines, at each start of a fleet, of which none is news.
    """
    text = str(record.msg)
    return not (
        (record.levelno == logging.INFO and text.startswith(("[^", "Consumer shutting down")))
        or (text.startswith("Group Coordinator Request failed") and "CoordinatorNotAvailable" in record.getMessage())
    )


def _log(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    if level != "DEBUG":
        handler.addFilter(_tells_something)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("aiokafka", "faust", "mode", "botocore", "asyncio", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING if level != "DEBUG" else logging.INFO)
    # Commits that take longer than their interval are no news; a dead one is seen by the lag.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
