"""The words of a transcript as people read, cite and correct them: each has an id that stays while the word does."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.words import Reconciliation, Word


@dataclass(frozen=True, slots=True)
class TranscriptWord:
    """One word of one version of a transcript."""

    #: Unique within the run: `w7` is the word of the run's decision 7; words that an edit adds have ids of their own.
    id: str
    text: str
    start_ms: int | None = None
    end_ms: int | None = None
    speaker: str | None = None
    #: Calibrated probability that the word is right, 0 to 1; 1 for a word that a person has written or chosen.
    confidence: float | None = None
    #: Whether the recognizers did not agree on it, and nobody has decided since.
    disputed: bool = False

    @property
    def word(self) -> Word:
        """The same without its id, for functions over words."""
        return Word(self.text, self.start_ms, self.end_ms, self.confidence, self.speaker)


def words_of(reconciliation: Reconciliation) -> list[TranscriptWord]:
    """The words that a run has decided, in order."""
    return [
        TranscriptWord(
            id=f"w{index}",
            text=decision.chosen.text,
            start_ms=decision.chosen.start_ms,
            end_ms=decision.chosen.end_ms,
            speaker=decision.speaker,
            confidence=decision.chosen.probability,
            disputed=bool(decision.others),
        )
        for index, decision in enumerate(reconciliation.decisions)
        if decision.chosen.text is not None
    ]
