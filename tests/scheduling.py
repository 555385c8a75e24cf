"""Which worker of pytest-xdist runs which tests, and in which order."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parents[1]

#: Roughly, the seconds of a test with a fleet, of another one with servers, and of any other.
FLEET_S, SERVERS_S, TEST_S = 30.0, 1.5, 0.05
#: Files that take longer than their number of tests tells.
SECONDS = {
    "tests/system/test_reconcile_corpora.py": 55.0,
    "tests/unit/test_one_token_languages.py": 20.0,
    "tests/unit/test_reconcile.py": 20.0,
    "tests/unit/test_one_token.py": 12.0,
}


@cache
def has_fleets(file: str) -> bool:
    """Whether the tests of this file start fleets of real processes."""
    return "tests.system.harness import" in (ROOT / file).read_text()


class FleetsApart(LoadFileScheduling):
    """A file runs in one worker, with its servers and fixtures. The first two workers begin with fleets, the others
    have them only when nothing else is left: a fleet computes for about half of its time (36 s with 19 of CPU, 32 with
    16, 31 with 10), so those of two workers and the tests of a third share two cores; with more, they time each other
    out. All of it took four workers 13:46 minutes and three 13:18; with four, single tests took up to 1.6 times more.
    """

    def _assign_work_unit(self, node):
        """What takes longest comes first, so that all workers end together."""
        fleets = node in self.nodes[:2]
        first = max(self.workqueue, key=lambda file: (has_fleets(file) == fleets, self._seconds(file)))
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

    def _seconds(self, file):
        each = FLEET_S if has_fleets(file) else SERVERS_S if file.startswith("tests/system/") else TEST_S
        return SECONDS.get(file, each * len(self.workqueue[file]))

    def _reschedule(self, node):
        """A worker has one test in advance, not two: a fleet that waits for another might run elsewhere."""
        if not self.workqueue or self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)
