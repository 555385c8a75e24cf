"""Which worker of the tests runs which files."""

from collections import deque
from types import SimpleNamespace

from tests.scheduling import FleetsApart, has_fleets

FLEETS = [f"tests/system/test_{name}.py" for name in ("adjudicator", "pacing", "poison", "track")]
OTHERS = [f"tests/unit/test_{name}.py" for name in ("audio", "offsets", "sizes")]


class Node:
    """A worker that keeps what it is sent."""

    def __init__(self, tests):
        self.tests, self.todo, self.ran, self.shutting_down = tests, deque(), [], False
        self.gateway = SimpleNamespace(id=id(self))

    def send_runtest_some(self, indices):
        self.todo.extend(indices)

    def shutdown(self):
        self.shutting_down = True

    def run(self, scheduler):
        """Run one test, as a worker does: only if it knows the next, or that there is none."""
        if len(self.todo) > 1 or (self.todo and self.shutting_down):
            self.ran.append(self.tests[self.todo[0]].partition("::")[0])
            scheduler.mark_test_complete(self, self.todo.popleft())


def ran(files, turns):
    """The files of the tests that each of four workers has run, where they have their turns in this order."""
    tests = [f"{file}::test_{n}" for file in files for n in range(3)]
    config = SimpleNamespace(getvalue=lambda _: ["4*popen"], option=SimpleNamespace(loadscopereorder=True))
    scheduler, nodes = FleetsApart(config), [Node(tests) for _ in range(4)]
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, tests)
    scheduler.schedule()
    for turn in turns * len(tests):
        nodes[turn].run(scheduler)
    assert scheduler.tests_finished
    return [list(dict.fromkeys(node.ran)) for node in nodes], sum(len(node.ran) for node in nodes)


def test_fleets_are_what_starts_some():
    assert all(map(has_fleets, FLEETS))
    assert not any(map(has_fleets, [*OTHERS, "tests/system/test_reader.py"]))


def test_fleets_run_in_two_workers_and_the_rest_in_the_others():
    (one, two, three, four), count = ran(FLEETS + OTHERS, [0, 1, 2, 3])

    assert sorted(one + two) == FLEETS
    assert sorted(three + four) == OTHERS
    assert count == 21


def test_who_has_nothing_left_helps_the_others():
    (_, _, three, four), count = ran(FLEETS + OTHERS, [0, 1, *[2, 3] * 6])
    (one, two, *_), _ = ran(FLEETS + OTHERS, [*[0, 1] * 6, 2, 3])

    assert set(three + four) > set(OTHERS)
    assert set(one + two) > set(FLEETS)
    assert count == 21
