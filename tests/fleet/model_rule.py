"""The rule by which recordings wait for a recognizer on this machine, as a program that knows no database."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Rule:
    """The rule, told once more. One is heard, three stand by with a slot, the others queue. When the model is free, the
    most urgent of those that stand by is heard, of equally urgent ones the one that got its slot first. A free slot
    goes to the most urgent in the queue, among these to the tenant that has the fewest slots, of each tenant to the
    oldest. What is more urgent than one that stands by takes its slot.
    """

    urgent: set[str] = field(default_factory=set)
    came: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    standby: list[str] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    running: str | None = None

    def come(self, names: list[str], *, urgent: bool = False) -> None:
        """These come, one after the other."""
        self.came += names
        self.urgent |= set(names) if urgent else set()
        self.queue += names
        self._settle()

    def end(self) -> None:
        """What is heard has ended."""
        self.running = None
        self._settle()

    def _settle(self) -> None:
        slots = 3 if self.running else 4
        while self.queue and len(self.standby) < slots:
            self._take()
        if self.running is None and self.standby:
            self.running = min(self.standby, key=lambda name: (name not in self.urgent, self.standby.index(name)))
            self.standby.remove(self.running)
            self.heard.append(self.running)
        while len(self.standby) < 3 and self.queue:
            self._take()
        while self.urgent.intersection(self.queue) and (usual := [n for n in self.standby if n not in self.urgent]):
            self._take()
            self.standby.remove(usual[-1])
            self.queue.append(usual[-1])

    def _take(self) -> None:
        held = Counter(name[0] for name in [*self.standby, *filter(None, [self.running])])
        self.queue.sort(key=lambda name: (name not in self.urgent, held[name[0]], self.came.index(name)))
        self.standby.append(self.queue.pop(0))
