"""Has a recognizer of one language wait until the recording's language is known, and leaves it out of other languages.

An English-only model writes English whatever is spoken. Its words are left out of a German transcript anyway
(`agents.text.spoken_language`), so it is neither paid nor computed for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from agents.asr.protocols import ANY, Languages
from agents.runtime.stage import belonging
from agents.stages.asr_requests.request_event import RequestEvent
from agents.text.calibration.calibrate import shipped
from agents.text.spoken_language import primary, surely_another
from schemas.jobs.outcome import Outcome
from schemas.jobs.rows import ProviderRequest
from schemas.words import Hypothesis, adapter
from sinks.ports.blobs import Store
from sinks.ports.providers.requests import Requests

#: Seconds until a request that waits is looked at again, the first time and at most; in between, half of the time that
#: it has waited. The stage that reconciles makes the look due when another recognizer has answered, but not if that
#: commits after the rows are read here and before the look is committed: then the look comes by itself, not much later.
FIRST_LOOK_S, LOOK_S = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class LanguageGate:
    """Decides whether a recognizer may start, by the languages that it and the others of the run hear."""

    database: Requests
    store: Store
    #: By recognizer; one that is not listed hears any language.
    languages: Mapping[str, Languages] = field(default_factory=dict)
    #: Seconds of the run's deadline for a recording without length. Half of it may be spent here, so that the run has
    #: this recognizer's words at least if the others do not answer.
    deadline_s: float = 3600.0

    async def outcome(self, event: RequestEvent) -> Outcome | None:
        """The outcome of a request that waits for the recording's language or is left out; None if it may start.

        A request that has started is not stopped. Raises `Unavailable`.
        """
        asked, heard = event.data.language, self.languages.get(event.data.provider, ANY)
        if heard.one is None or (asked != "auto" and heard.hears(primary(asked))):
            return None
        rows = await self.database.requests(*event.run)
        row = next((row for row in rows if row.provider == event.data.provider), None)
        if row is None or row.state != "waiting" or row.admitted_at is not None:
            return None
        if asked != "auto":
            return _left_out(event, row, heard.one, asked)
        tellers = [other for other in rows if self.languages.get(other.provider, ANY).one is None]
        if any(other.language and primary(other.language) == heard.one for other in tellers):
            return None
        if pending := [other for other in tellers if not other.ended]:
            return self._wait(event, pending)
        another = await self._another(tellers, heard.one)
        return _left_out(event, row, heard.one, another) if another else None

    def _wait(self, event: RequestEvent, pending: Sequence[ProviderRequest]) -> Outcome | None:
        """Look again later; None if that was done for long enough. What others wait for their slots does not count."""
        queued = all(other.queued_at and not other.admitted_at for other in pending)
        left_s = (self.deadline_s + (event.data.duration_ms or 0) / 2000) / 2 - event.data.held_s
        if left_s <= 0 and not queued:
            return None
        seconds = LOOK_S if queued else min(LOOK_S, left_s, max(FIRST_LOOK_S, event.data.held_s / 2))
        return event.held(seconds, counted=not queued)

    async def _another(self, tellers: Sequence[ProviderRequest], one: str) -> str | None:
        """The recording's language if the others' hypotheses are certainly in another language than `one`."""
        uris = [row.hypothesis_uri for row in tellers if row.hypothesis_uri and row.language]
        documents = await asyncio.gather(*map(self.store.get, uris))

        def decide() -> str | None:  # in a thread: the first call reads the words of English from a file
            hypotheses = [cast("Hypothesis", adapter(Hypothesis).validate_json(document)) for document in documents]
            return surely_another(hypotheses, one, shipped().knowledge.frequency)

        return await asyncio.to_thread(decide) if documents else None


def _left_out(event: RequestEvent, row: ProviderRequest, one: str, language: str) -> Outcome:
    """The request ends without a hypothesis, and without having failed; the transcript gets a note."""
    reason = f"left out: it hears {one} only; the recording is in {language}"
    change = event.change(row.token, state="done", error=reason)
    return Outcome(**belonging(event.envelope), request=change, error=reason)
