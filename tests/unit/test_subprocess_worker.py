"""A subprocess worker: calls, cancellation, kills, its parent's end. The child is this file, run as a module."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import uvloop

from agents.media.sandbox import PASSED
from agents.media.subprocess_worker import FILE_SIZE, MEMORY, NICENESS, Worker, WorkerDied, begin, serve
from schemas.errors import RefusedMedia, Unavailable

ROOT = Path(__file__).parents[2]
THIS = "tests.unit.test_subprocess_worker"


def work(request, tell):
    """What the child does, as it is told."""
    match request["do"]:
        case "echo":
            for message in request.get("messages", ()):
                tell(message)
            print("printing does not disturb")
            return {"pid": os.getpid(), "echo": request["say"]}
        case "refuse":
            raise RefusedMedia("never")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            raise ZeroDivisionError("not foreseen")
        case "sleep":
            tell({"sleeping": True})
            time.sleep(request["seconds"])
        case "go on":
            for number in range(10_000):
                tell({"at": number})
                time.sleep(0.01)
        case "list files":
            links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
            return {"files": [str(link.readlink()) for link in links]}
        case "describe yourself":
            status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
            limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in request["limits"]}
            return {"environment": dict(os.environ), "status": status, "limits": limits}
        case "misbehave":
            return {name: _failure(misdeed) for name, misdeed in MISDEEDS.items()}
    return {}


def _write_much():
    with tempfile.TemporaryFile() as file:
        file.truncate(FILE_SIZE + 1)


#: What code that took over a decoder would try next. Each must fail.
MISDEEDS = {
    "a socket": socket.socket,
    "a pair of sockets": socket.socketpair,
    "a program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "a program in a new process": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "a process": lambda: os.fork() or os._exit(0),
    "a signal to the parent": lambda: os.kill(os.getppid(), 0),
    "the parent's limits": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    "the parent's memory": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY),
    "the parent's files": lambda: os.open(f"/proc/{os.getppid()}/fd/0", os.O_RDONLY),
    "the parent's environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "a file without bound": _write_much,
    "memory without bound": lambda: bytearray(2 * MEMORY),
}


def _failure(misdeed):
    try:
        misdeed()
    except (OSError, MemoryError) as exc:
        return type(exc).__name__
    return None


@pytest.fixture
async def worker():
    found = Worker(THIS, start_s=60)
    yield found
    await found.close()


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


async def test_a_child_answers_and_is_asked_again(worker):
    heard = []

    one = await worker.ask(
        {"do": "echo", "say": "ä\n", "messages": [{"n": 1}, {}, {"n": 2}]}, stall_s=30, on_message=heard.append
    )
    two = await worker.ask({"do": "echo", "say": 2}, stall_s=30)

    assert one["echo"] == "ä\n"
    assert heard == [{"n": 1}, {"n": 2}]
    assert one["pid"] == two["pid"] == worker.pid


async def test_requests_wait_for_each_other(worker):
    answers = await asyncio.gather(*(worker.ask({"do": "echo", "say": n}, stall_s=30) for n in range(50)))

    assert [answer["echo"] for answer in answers] == list(range(50))


async def test_an_answer_that_is_an_error_leaves_the_child_alive(worker):
    pid = (await worker.ask({"do": "echo", "say": 1}, stall_s=30))["pid"]

    with pytest.raises(RefusedMedia, match="never"):
        await worker.ask({"do": "refuse"}, stall_s=30)

    assert worker.pid == pid


@pytest.mark.slow
@pytest.mark.parametrize(("order", "crashed", "says"), [("crash", True, "SIGSEGV"), ("raise", False, "not foreseen")])
async def test_a_child_that_dies_says_how_and_the_next_request_gets_another(worker, order, crashed, says):
    with pytest.raises(WorkerDied, match=says) as died:
        await worker.ask({"do": order}, stall_s=30)

    assert died.value.crashed is crashed
    assert (await worker.ask({"do": "echo", "say": 1}, stall_s=30))["echo"] == 1


@pytest.mark.slow
async def test_a_child_that_hangs_is_killed(worker):
    pid = (await worker.ask({"do": "echo", "say": 1}, stall_s=30))["pid"]

    with pytest.raises(TimeoutError):
        await worker.ask({"do": "sleep", "seconds": 100}, stall_s=0.3)

    assert gone(pid)


@pytest.mark.slow
async def test_cancelling_kills_the_child_and_frees_the_next_in_line(worker):
    pid = (await worker.ask({"do": "echo", "say": 1}, stall_s=30))["pid"]
    at_work = asyncio.Event()
    running = asyncio.create_task(
        worker.ask({"do": "sleep", "seconds": 100}, stall_s=200, on_message=lambda _: at_work.set())
    )
    waiting = asyncio.create_task(worker.ask({"do": "echo", "say": 2}, stall_s=30))
    await at_work.wait()

    running.cancel()

    assert (await waiting)["echo"] == 2
    assert gone(pid)
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.fixture
async def patient():
    """A worker whose child has two seconds to leave its work."""
    found = Worker(THIS, start_s=60, stop_s=2)
    yield found
    await found.close()


async def cancelled_at_work(worker, request):
    """The child, a call of which is cancelled after its first message."""
    at_work, heard = asyncio.Event(), []

    def hear(message):
        heard.append(message)
        at_work.set()

    running = asyncio.create_task(worker.ask(request, stall_s=200, on_message=hear))
    await at_work.wait()
    pid, count = worker.pid, len(heard)
    running.cancel()
    await asyncio.wait([running], timeout=0.2)
    assert running.cancelled()
    assert len(heard) == count
    return pid


async def test_a_child_that_leaves_cancelled_work_in_time_is_kept(patient):
    for number in range(3):
        pid = await cancelled_at_work(patient, {"do": "go on"})
        asked = time.monotonic()

        answer = await patient.ask({"do": "echo", "say": number}, stall_s=30)

        assert answer == {"pid": pid, "echo": number}
        assert time.monotonic() - asked < 1


@pytest.mark.slow
async def test_a_child_that_does_not_leave_cancelled_work_in_time_is_killed(patient):
    pid = await cancelled_at_work(patient, {"do": "sleep", "seconds": 100})

    assert (await patient.ask({"do": "echo", "say": 2}, stall_s=30))["echo"] == 2
    assert gone(pid)


async def test_what_is_asked_while_a_child_leaves_its_work_can_be_cancelled_too(patient):
    pid = await cancelled_at_work(patient, {"do": "sleep", "seconds": 0.5})
    waiting = asyncio.create_task(patient.ask({"do": "echo", "say": 1}, stall_s=30))
    await asyncio.sleep(0.1)
    waiting.cancel()

    assert await patient.ask({"do": "echo", "say": 2}, stall_s=30) == {"pid": pid, "echo": 2}
    assert waiting.cancelled()


@pytest.mark.slow
async def test_closing_kills_a_child_that_is_leaving_its_work():
    worker = Worker(THIS, start_s=60, stop_s=60)
    pid = await cancelled_at_work(worker, {"do": "sleep", "seconds": 100})
    began = time.monotonic()

    await worker.close()

    assert gone(pid)
    assert time.monotonic() - began < 5


@pytest.mark.slow
async def test_closing_ends_a_child_at_work_and_starts_no_other(worker):
    at_work = asyncio.Event()
    running = asyncio.create_task(
        worker.ask({"do": "sleep", "seconds": 100}, stall_s=200, on_message=lambda _: at_work.set())
    )
    await at_work.wait()
    pid = worker.pid

    await worker.close()
    await worker.close()

    assert gone(pid)
    with pytest.raises(WorkerDied):
        await running
    with pytest.raises(Unavailable, match="shut down"):
        await worker.ask({"do": "echo", "say": 1}, stall_s=30)


async def test_a_module_that_does_not_start_is_unavailable_and_says_why():
    worker = Worker("tests.unit.no_such_module")

    with pytest.raises(Unavailable, match="no_such_module"):
        await worker.ask({}, stall_s=30)
    await worker.close()


@pytest.mark.slow
async def test_ctrl_c_does_not_reach_the_child(worker):
    pid = (await worker.ask({"do": "echo", "say": 1}, stall_s=30))["pid"]

    os.kill(pid, signal.SIGINT)

    assert (await worker.ask({"do": "echo", "say": 2}, stall_s=30))["pid"] == pid
    assert os.getsid(pid) != os.getsid(0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_child_stands_back_behind_us(worker):
    await worker.ask({"do": "echo", "say": 1}, stall_s=30)

    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == min(ours + NICENESS, 19)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_childs_environment_is_a_short_list_and_its_limits_are_low(worker, monkeypatch):
    for name in ("ASSEMBLYAI_API_KEY", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "SMTP_PASSWORD", "ANYTHING_ELSE"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    itself = await worker.ask({"do": "describe yourself", "limits": ["AS", "NOFILE", "CORE", "FSIZE"]}, stall_s=30)

    # Python adds LC_CTYPE to an environment that says nothing about it.
    assert set(itself["environment"]) <= {*PASSED, "HF_HUB_OFFLINE", "LC_CTYPE"}
    assert itself["environment"]["OMP_NUM_THREADS"] == "3"
    assert itself["limits"] == {"AS": MEMORY, "NOFILE": 64, "CORE": 0, "FSIZE": FILE_SIZE}
    assert itself["status"]["NoNewPrivs"] == "1"
    assert itself["status"]["Seccomp"] == "2"
    assert int(itself["status"]["CapEff"], 16) & ~(1 << 2) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what is given up is Linux's")
def test_a_child_that_is_taken_over_gets_nowhere():
    program = (
        "import asyncio, json\n"
        "from agents.media.subprocess_worker import Worker\n"
        "from agents.media.sandbox import keep_private\n"
        "async def main():\n"
        "    keep_private()\n"
        f"    worker = Worker({THIS!r})\n"
        "    print(json.dumps(await worker.ask({'do': 'misbehave'}, stall_s=60)))\n"
        "    await worker.close()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)

    assert [name for name, failure in json.loads(done.stdout).items() if failure is None] == []


@pytest.mark.slow
async def test_the_child_holds_no_socket_of_ours(worker):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        files = (await worker.ask({"do": "list files"}, stall_s=30))["files"]
        number = os.fstat(listening.fileno()).st_ino

    assert [file for file in files if str(number) in file] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_uvloop_the_loop_of_production_does_all_of_it_too():
    async def story():
        worker = Worker(THIS)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.set_inheritable(True)
            files = (await worker.ask({"do": "list files"}, stall_s=30))["files"]
            number = os.fstat(listening.fileno()).st_ino
        with pytest.raises(WorkerDied, match="SIGSEGV"):
            await worker.ask({"do": "crash"}, stall_s=30)
        with pytest.raises(TimeoutError):
            await worker.ask({"do": "sleep", "seconds": 100}, stall_s=0.3)
        answer = await worker.ask({"do": "echo", "say": 1}, stall_s=30)
        await worker.close()
        return [file for file in files if str(number) in file], answer["echo"], gone(answer["pid"])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story()) == ([], 1, True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("order", ["echo", "sleep"])
def test_the_child_dies_with_its_parent_idle_or_at_work(order):
    program = (
        "import asyncio, sys\n"
        "from agents.media.subprocess_worker import Worker\n"
        "async def main():\n"
        f"    worker = Worker({THIS!r})\n"
        "    await worker.ask({'do': 'echo', 'say': 1}, stall_s=60)\n"
        "    print(worker.pid, flush=True)\n"
        f"    await worker.ask({{'do': {order!r}, 'say': 1, 'seconds': 100}}, stall_s=200)\n"
        "    await asyncio.sleep(100)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)

        parent.kill()

        until(lambda: gone(pid))


if __name__ == "__main__":
    begin()
    serve(work)
