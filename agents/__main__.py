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

from agents.fleet.environment import from_env
from agents.fleet.process.malloc import release_freed_memory
from agents.runtime.failpoints import arm
from schemas.errors import ConcordError
from schemas.printable import LINE, printable

#: Modules of `agents.commands`, in the order in which `--help` lists their commands.
COMMANDS = (
    *("demo", "serve", "jobs.publish", "jobs.status", "jobs.usage", "operations.requests", "jobs.cancel"),
    *("operations.dlq", "operations.skip", "operations.outbox", "operations.verify", "operations.rewind"),
    *("operations.retention", "accounts.keys", "schema", "migrate", "doctor", "reconcile"),
)

#: Seconds for which tasks may outlive the command, and threads the tasks.
END_S, THREADS_END_S = 2.0, 5.0

DESCRIPTION = """Concord turns call recordings into transcripts. It runs several recognizers, reconciles them word by
word, and publishes exactly one completion event per run."""

EPILOG = """First steps:
  concord demo                      transcribe one recording with a fleet of its own
  concord up                        run a fleet on this machine
  concord publish call.wav --wait   transcribe a recording

Everything is configured by environment variables; `concord doctor` lists and checks them."""


def main() -> None:
    """Entry point of the `concord` command."""
    status = run(sys.argv[1:])
    threading.Thread(target=_end, args=(status,), daemon=True).start()
    sys.exit(status)


def _end(status: int) -> None:
    """Exit even if a thread hangs: at its end, Python waits for the consumers' threads without a timeout."""
    time.sleep(THREADS_END_S)
    os._exit(status)


def run(argv: list[str]) -> int:
    """Run one command and return its exit status: 2 for wrong arguments, settings or input, 130 after Ctrl-C.

    Raises SystemExit, as argparse does, for --help and unknown arguments.
    """
    release_freed_memory()
    parser = argparse.ArgumentParser(
        "concord", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"agents.commands.{name}").add(commands)
    arguments = parser.parse_args(argv)
    try:
        settings = from_env(os.environ)
        # This process forks only to exec. gRPC would restart its threads in the child before that, and may hang there.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        arm(settings.failpoint)
        _log(settings.log_level)
        return _loop(arguments.run(arguments, settings))
    except (ConcordError, ValueError) as exc:
        print(f"concord: {printable(str(exc), lines=True)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `concord ... | head`: the reader has closed the pipe, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _loop(command: Coroutine[object, object, int]) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_and_cancel_rest(command))


async def _run_and_cancel_rest(command: Coroutine[object, object, int]) -> int:
    """The command's status, after all other tasks are cancelled; exits the process if one does not end.

    Some tasks of Faust and aiokafka outlive their app after a crash and cancellation, and asyncio waits for all tasks.
    """
    status = await command
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    _, running = await asyncio.wait(tasks, timeout=END_S) if tasks else ((), ())
    if running:
        logging.getLogger(__name__).debug("%d tasks do not end", len(running))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    return status


class OneLine(logging.Formatter):
    """Formats a log record as one line, whatever texts it contains; a traceback follows indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The record's line."""
        return printable(super().formatMessage(record), limit=LINE)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The exception's traceback, indented."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """The stack, indented."""
        return _indented(stack_info)


def _indented(text: str) -> str:
    return textwrap.indent(printable(text, lines=True, limit=16 * LINE), "  ", lambda _: True)


def _is_relevant(record: logging.LogRecord) -> bool:
    """False for the lines that every Faust service logs at its start and stop, and every Kafka client while a new
    group's coordinator starts: 40 lines at each start of a fleet, without information.
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
        handler.addFilter(_is_relevant)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("aiokafka", "faust", "mode", "botocore", "asyncio", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING if level != "DEBUG" else logging.INFO)
    # mode warns of each commit that takes longer than its interval; one that hangs shows in the lag.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
