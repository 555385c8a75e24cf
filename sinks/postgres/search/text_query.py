"""The statement that finds passages by words. What people write is an argument; the parts are texts of this module.

A GIN index knows no order: what matches has to be read to be ranked, and a frequent word matches a fifth of all
passages. So passages are looked for in steps, from those that have all the words of a question to those that have any,
and each step reads a limited number.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from sinks.ports.search.reads import Term

#: Passages that a step reads, and that the last step does.
STEP, LAST = 300, 1000

#: Worth of a reading that was not chosen, beside 1 of a word of the transcript; for all of PostgreSQL's lower weights.
OTHER_READING: Final = 0.4

#: A term in a dictionary: dictionary, number of the term from 1, query.
TermQuery = tuple[str, int, str]


def steps(tenant: str, terms: Sequence[Term], queries: Sequence[TermQuery]) -> list[str]:
    """Queries of falling strictness, each over all dictionaries; none if nothing but stop words is asked for."""
    by_dictionary = [
        _steps(f"{_quoted(f'/{dictionary}/{tenant}')}", terms, {n: query for _, n, query in group if query})
        for dictionary, group in groupby(queries, key=lambda query: query[0])
    ]
    by_dictionary = [strictness for strictness in by_dictionary if strictness]
    longest = max(map(len, by_dictionary), default=0)
    every = [[strictness[min(n, len(strictness) - 1)] for strictness in by_dictionary] for n in range(longest)]
    return list(dict.fromkeys(" | ".join(step) for step in every))


def _steps(of_tenant: str, terms: Sequence[Term], queries: dict[int, str]) -> list[str]:
    """Those of one dictionary."""
    used = [(term, f"({queries[n]})") for n, term in enumerate(terms, 1) if n in queries]
    must = [query for term, query in used if term.use == "must"]
    may = [query for term, query in sorted(used, key=lambda one: -one[0].weight) if term.use == "may"]
    if not must and not may:
        return []
    fixed = [of_tenant, *must, *(f"!{query}" for term, query in used if term.use == "not")]
    rungs = [may, may[:3], may[:2]] if len(may) > 1 else []
    found = [" & ".join([*fixed, *rung]) for rung in rungs]
    anything = [f"({' | '.join(may)})"] if may else []
    return [f"({step})" for step in [*found, " & ".join([*fixed, *([] if must and not found else anything)])]]


def _quoted(lexeme: str) -> str:
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"


_FOUND: Final = "(SELECT c.ctid FROM chunks c WHERE c.lexemes @@ ${step}::text::tsquery AND {where} LIMIT {limit})"

#: Worth of weights D, C, B and A.
_WORTH: Final = f"'{{{OTHER_READING},{OTHER_READING},{OTHER_READING},1}}'"

# The last step's passages are counted, to tell whether there are more.
_RANKED: Final = """
WITH last AS MATERIALIZED (SELECT ARRAY{last} AS ids),
term AS MATERIALIZED (SELECT dictionary, weight, query::tsquery AS query
    FROM unnest(${dictionaries}::text[], ${weights}::float8[], ${queries}::text[]) AS t (dictionary, weight, query))
SELECT c.job_id, c.run, c.number, (SELECT cardinality(ids) FROM last) AS reached,
       (SELECT sum(t.weight * ts_rank({worth}, c.lexemes, t.query))
        FROM term t WHERE t.dictionary = c.dictionary) AS score
FROM chunks c
WHERE c.ctid = ANY(ARRAY({found}))
ORDER BY score DESC, c.created_at DESC, c.job_id, c.number LIMIT ${limit}"""


def statement(count: int, conditions: Sequence[str], first: int) -> str:
    """Finds and ranks. $1 is the tenant; from `first` on come the steps, then dictionaries, weights and queries of the
    terms to rank by, and the limit. `conditions` are on the alias c.
    """
    where = " AND ".join(["c.tenant_id = $1", *conditions])
    found = [_FOUND.format(step=first + n, where=where, limit=_limit(n, count)) for n in range(count)]
    names = ("dictionaries", "weights", "queries", "limit")
    places = dict(zip(names, range(first + count, first + count + 4), strict=True))
    every = " UNION ".join([*found[:-1], "SELECT unnest(ids) FROM last"])
    return _RANKED.format(last=found[-1], found=every, worth=_WORTH, **places)


def _limit(n: int, count: int) -> int:
    return LAST if n == count - 1 else STEP


def ranked(terms: Sequence[Term], queries: Sequence[TermQuery]) -> list[list[Any]]:
    """Dictionaries, weights and queries of the terms to rank by, as columns."""
    asked = [(dictionary, terms[n - 1], query) for dictionary, n, query in queries if query]
    rows = [(dictionary, term.weight, query) for dictionary, term, query in asked if term.use != "not"]
    return [[row[column] for row in rows] for column in range(3)]
