"""Injects random faults by a seed (kills, stops, network failures), and measures the time to recovery."""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import asyncpg

from tests.system.checker import Verdict
from tests.system.harness import Observers, Site, Worker
from tests.system.observers import OUTAGES, with_retries

Action = Callable[[], Awaitable[None]]

#: Switches of a slow provider: it accepts a request later, whatever it has answered, and lists it later.
LATE = {"late": True, "late_s": 2.0, "late_answer": ["slow", "cut", "504"], "listed_s": 1.0}

#: Seconds that a worker may take to end after SIGTERM: ten, and some for a machine with many processes ending at once.
STOP_S = 15.0


@dataclass(frozen=True)
class Fault:
    """One injected fault."""

    kind: str
    target: str
    at: float
    #: The job of an upload published right after it, whose end is the end of the recovery.
    probe: str | None


@dataclass
class FaultInjector:
    """Injects faults into a site and records them. Each is repaired seconds later; `clear` waits for the repairs."""

    here: Site
    observers: Observers
    chance: random.Random
    faults: list[Fault] = field(default_factory=list)
    #: Unexpected events: workers that ended by themselves, or did not end after SIGTERM.
    complaints: list[str] = field(default_factory=list)
    _repairs: set[asyncio.Task[None]] = field(default_factory=set)
    #: Workers that are down or frozen by a fault.
    _down: set[str] = field(default_factory=set)
    _broken: set[str] = field(default_factory=set)

    def pick(self, role: str = "") -> Worker | None:
        """A random running worker, of this role if one is given."""
        running = [
            w for w in self.here.workers.values() if w.alive and w.name not in self._down and role in [*w.argv[1:], ""]
        ]
        return self.chance.choice(running) if running else None

    async def kill(self, role: str = "") -> None:
        """`kill -9` a worker; it is started again within three seconds."""
        if (worker := self.pick(role)) is not None:
            self._down.add(worker.name)
            await worker.kill()
            self._later(partial(self._start, worker), self.chance.uniform(0, 3))
            await self._happened("kill -9", worker.argv[1], probe=True)

    async def stop(self, role: str = "") -> None:
        """SIGTERM a worker; it must end with 0."""
        if (worker := self.pick(role)) is not None:
            self._down.add(worker.name)
            began = time.monotonic()
            worker.signal(signal.SIGTERM)
            await self._happened("SIGTERM", worker.argv[1])
            try:
                status = await worker.ended(60)
            except AssertionError as exc:
                self.complaints.append(str(exc))
                await worker.kill()
            else:
                if status != 0 or time.monotonic() - began > STOP_S:
                    self.complaints.append(f"{worker.name} ended with {status} after {time.monotonic() - began:.1f} s")
            self._later(partial(self._start, worker), 0)

    async def freeze(self, role: str = "", seconds: float | None = None) -> None:
        """SIGSTOP a worker for 5 to 30 seconds."""
        if (worker := self.pick(role)) is not None:
            self._down.add(worker.name)
            worker.signal(signal.SIGSTOP)
            self._later(partial(self._thaw, worker), seconds or self.chance.uniform(5, 30))
            await self._happened("SIGSTOP", worker.argv[1], probe=True)

    async def kill_postgres(self) -> None:
        """`kill -9` PostgreSQL; it is started again within five seconds."""
        if self._breaks("postgres"):
            self.here.postgres.kill()
            self._later(self._start_postgres, self.chance.uniform(0, 5))
            await self._happened("kill -9", "postgres", probe=True)

    async def terminate_sessions(self) -> None:
        """`pg_terminate_backend` for every session of the fleet."""
        if "postgres" in self._broken:
            return
        try:
            connection = await asyncpg.connect(self.here.postgres.dsn, timeout=5)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('concord', 'relay')"
            )
            await connection.close()
        except OUTAGES:
            return
        await self._happened("pg_terminate_backend", "postgres", probe=True)

    async def kill_broker(self, node: int | None = None) -> None:
        """`kill -9` one Kafka node, if all nodes run; it is started again within ten seconds."""
        nodes = len(self.here.kafka.ports)
        if self._breaks("kafka"):
            node = node or self.chance.randint(1, nodes)
            self.here.kafka.kill_node(node)
            self._later(partial(self._start_broker, node), self.chance.uniform(0, 10 if nodes > 1 else 2))
            await self._happened("kill -9", "broker", probe=True)

    async def kill_provider(self) -> None:
        """`kill -9` the recognizers' server; it is started again within two seconds."""
        if self._breaks("provider"):
            self.here.provider.kill()
            self._later(self._start_provider, self.chance.uniform(0, 2))
            await self._happened("kill -9", "provider", probe=True)

    async def switch_provider(self, what: str) -> None:
        """Make the recognizers' server misbehave for up to three seconds."""
        if self._breaks("provider"):
            switches = LATE if what == "late" else {what: True}
            await with_retries(lambda: self.here.provider.switch(**switches))
            self._later(self._reset_provider, self.chance.uniform(1, 3))
            await self._happened("provider", what, probe=True)

    async def network(self, proxy: str, what: str) -> None:
        """Disturb the connection to a server for up to twelve seconds."""
        if proxy not in self.here.proxies or not self._breaks(f"network of {proxy}"):
            return
        connection = self.here.proxies[proxy]
        seconds = self.chance.uniform(3, 12)
        match what:
            case "cut":
                connection.cut()
                seconds = 0
            case "delay":
                connection.delay_s = self.chance.uniform(0.05, 0.5)
            case _:
                setattr(connection, what, True)
        self._later(partial(self._heal, proxy), seconds)
        await self._happened("network", f"{what} {proxy.partition('-')[0]}", probe=True)

    async def scale(self, role: str, copies: int) -> None:
        """Start or stop workers until `copies` workers of a role run."""
        running = [
            w for w in self.here.workers.values() if w.alive and w.name not in self._down and w.argv[1:] == [role]
        ]
        for _ in range(copies - len(running)):
            await self.here.worker(role).start()
        for worker in running[copies:]:
            self._down.add(worker.name)
            worker.signal(signal.SIGTERM)
            if await worker.ended(60) != 0:
                self.complaints.append(f"{worker.name} ended with {worker.state}")
        await self._happened("scale", f"{role} to {copies}")

    async def clear(self) -> None:
        """Wait until all faults are repaired and all workers run."""
        while self._repairs:
            await asyncio.gather(*self._repairs)
        for worker in self.here.workers.values():
            if not worker.alive and worker.name not in self._down:
                self.complaints.append(f"{worker.name} {worker.state} by itself")
                await worker.start()

    def _breaks(self, what: str) -> bool:
        """Mark a server as broken; False if it is broken already."""
        intact = what not in self._broken
        self._broken.add(what)
        return intact

    async def _happened(self, kind: str, target: str, *, probe: bool = False) -> None:
        """Record a fault. The probe may have to wait for the repair, which has been scheduled before."""
        at = time.monotonic()
        job = await self.observers.publisher.upload() if probe else None
        self.faults.append(Fault(kind, target, at, job))

    def _later(self, repair: Action, seconds: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await repair()

        task = asyncio.create_task(wait())
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)

    async def _start(self, worker: Worker) -> None:
        await worker.start()
        self._down.discard(worker.name)

    async def _thaw(self, worker: Worker) -> None:
        worker.signal(signal.SIGCONT)
        self._down.discard(worker.name)

    async def _start_postgres(self) -> None:
        await self.here.postgres.start()
        self._broken.discard("postgres")

    async def _start_broker(self, node: int) -> None:
        await self.here.kafka.start_node(node)
        await asyncio.sleep(5)  # until it is in sync again, the other nodes are needed
        self._broken.discard("kafka")

    async def _start_provider(self) -> None:
        await self.here.provider.start()
        self._broken.discard("provider")

    async def _reset_provider(self) -> None:
        await with_retries(self.here.provider.switch)
        self._broken.discard("provider")

    async def _heal(self, proxy: str) -> None:
        self.here.proxies[proxy].heal()
        self._broken.discard(f"network of {proxy}")

    def table(self, verdict: Verdict, seed: int, seconds: float) -> str:
        """A table of the run: uploads, faults, violations and recovery times."""
        uploads, ends = (
            len(self.observers.publisher.uploads),
            sum(map(len, self.observers.downstreams[0].seen.values())),
        )
        kills = sum(fault.kind == "kill -9" for fault in self.faults)
        lines = [f"{uploads} uploads, {len(self.faults)} faults ({kills} kills) in {seconds:.0f} s, seed {seed}"]
        lines.append(
            f"terminal events {ends}; " + ", ".join(f"{name} {count}" for name, count in verdict.counts.items())
        )
        lines.append(f"{'fault':34} {'n':>3}   recovered after, s: p50    max")
        for (kind, target), count in sorted(Counter((f.kind, f.target) for f in self.faults).items()):
            times = [
                s for f in self.faults if (f.kind, f.target) == (kind, target) and (s := self.recovery(f)) is not None
            ]
            figures = f"{statistics.median(times):22.1f} {max(times):6.1f}" if times else ""
            lines.append(f"{kind + ' ' + target:34} {count:3} {figures}")
        times = [s for f in self.faults if f.kind == "kill -9" and (s := self.recovery(f)) is not None]
        if times:
            lines.append(f"{'all kills':34} {len(times):3} {statistics.median(times):22.1f} {max(times):6.1f}")
        return "\n".join(lines)

    def recovery(self, fault: Fault) -> float | None:
        """Seconds from the fault to the end of the upload that was published right after it."""
        seen = self.observers.downstreams[0].seen.get((fault.probe or "", 1))
        return seen[0].at - fault.at if seen else None
