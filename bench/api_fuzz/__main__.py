"""`make fuzz-api`: schemathesis with all of its checks against a real fleet, with a tenant's and an operator's key;
then the times of answers about another tenant's things and about nothing's.

Ends with 1 if a check fails, a request is answered with 5xx, or times differ.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from bench.api_fuzz import run, timing
from bench.api_fuzz.site import site

#: Cases of a run with few examples for each operation come from the schemas' corners: so many of each operation.
CORNERS = 45


def arguments() -> argparse.Namespace:
    """What may be set."""
    parser = argparse.ArgumentParser("python -m bench.api_fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="about so many in all (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the cases (default %(default)s)")
    parser.add_argument("--timed", type=int, default=200, help="requests of each kind that are timed, of each route")
    return parser.parse_args()


async def main(wanted: argparse.Namespace) -> int:
    """All of it."""
    async with site(jobs=30, others=10) as fleet:
        slow = await timing.report(fleet, wanted.timed) if wanted.timed else []
        operations = await run.operations(fleet)
        examples = max(5, wanted.cases // (2 * operations) - CORNERS)
        failed, cases = 0, 0
        for caller in ("acme", "*"):
            report = await run.fuzz(fleet, caller, examples, wanted.seed)
            cases += report["test_cases"]["generated"]
            failed += len(report["failures"]) + len(report["errors"])
        faults = run.server_errors(fleet)
        print(f"{cases} cases, {failed} kinds of failures, 5xx by route: {faults or 'none'}; slow: {len(slow)}")
    return 1 if failed or faults or slow else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
