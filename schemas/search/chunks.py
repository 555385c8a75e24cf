"""The rows of the search index: passages (chunks) of transcripts, and the generations of their vectors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

#: Dictionaries of PostgreSQL 14 by language (ISO 639-1); "simple" is that of every other language.
DICTIONARIES: Final = {
    "ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "da": "danish", "nl": "dutch", "en": "english",
    "fi": "finnish", "fr": "french", "de": "german", "el": "greek", "hi": "hindi", "hu": "hungarian",
    "id": "indonesian", "ga": "irish", "it": "italian", "lt": "lithuanian", "ne": "nepali", "no": "norwegian",
    "nb": "norwegian", "nn": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "es": "spanish", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip

_SEVERAL_IDS = re.compile(r"(.*?)(\d+)\+(\d+)")


def dictionary(language: str | None) -> str:
    """The dictionary of a BCP 47 tag."""
    code = (language or "").replace("_", "-").partition("-")[0].lower()
    return DICTIONARIES.get(code, "simple")


def text_hash(text: str) -> str:
    """Names the vectors of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def packed(ids: Sequence[str]) -> list[str]:
    """Ids of words, where `w7+3` stands for w7, w8, w9 and w10: most of a passage's are such rows."""
    rows: list[str] = []
    first, number, count = "", 0, 0
    for id in ids:
        if first and id == f"w{number + count + 1}":
            count += 1
            continue
        rows += [f"{first}+{count}" if count else first] if first else []
        first, count = id, 0
        number = int(id[1:]) if id[:1] == "w" and id[1:].isdecimal() and id == f"w{int(id[1:])}" else -(10**9)
    return [*rows, f"{first}+{count}" if count else first] if first else rows


def unpacked(rows: Iterable[str]) -> list[str]:
    """The inverse of `packed`."""
    ids: list[str] = []
    for row in rows:
        if several := _SEVERAL_IDS.fullmatch(row):
            prefix, first, count = several.groups()
            ids += [f"{prefix}{number}" for number in range(int(first), int(first) + int(count) + 1)]
        else:
            ids.append(row)
    return ids


def pace_of(starts_ms: Sequence[int | None]) -> str:
    """The hundredths of a second between the beginnings of words, in order: `31 28`. A word whose time is not known
    begins with the one before.
    """
    known = next((at for at in starts_ms if at is not None), 0)
    steps = []
    for at in starts_ms[1:]:
        step = max(0, ((at if at is not None else known) - known) // 10)
        steps.append(str(step))
        known += 10 * step
    return " ".join(steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A part of a chunk that one speaker says without a long pause. The texts of a chunk's utterances, with a line
    break between two, are its text.
    """

    text: str
    speaker: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    #: By `packed`.
    words: list[str] = field(default_factory=list)
    #: By `pace_of`; empty in rows of earlier versions.
    pace: str = ""

    @property
    def word_ids(self) -> list[str]:
        """The ids of its words, in order."""
        return unpacked(self.words)

    def moment(self, character: int) -> int | None:
        """When the word at this character of the text begins, in ms; about, in a row of an earlier version, and in a
        text whose words are not those between spaces.
        """
        last = len(self.pace.split())
        if last and last + 1 == len(self.text.split()):
            return self._after(len(self.text[: character + 1].split()) - 1)
        return self._after(character * last // max(1, len(self.text)), character / max(1, len(self.text)))

    def moment_of(self, word_id: str) -> int | None:
        """The same of the word with this id; None if it is none of its words."""
        ids = self.word_ids
        return self._after(ids.index(word_id), ids.index(word_id) / len(ids)) if word_id in ids else None

    def _after(self, words: int, share: float = 0.0) -> int | None:
        """When the word behind so many others begins; where that is not known, it is this share of the whole."""
        if self.start_ms is None:
            return None
        if self.pace:
            return self.start_ms + 10 * sum(int(step) for step in self.pace.split()[:words])
        return self.start_ms + int(share * max(0, (self.end_ms or 0) - self.start_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage of a run's transcript, as it is found and read."""

    tenant_id: str
    job_id: str
    run: int
    #: Its place in the transcript, from 0.
    number: int
    transcript_version: int
    text: str
    #: The text as it is searched for: with spaces between the characters of scripts that have none between words.
    content: str
    #: What else was heard at disputed words, each with the words around it; likewise.
    heard: str
    #: PostgreSQL's, of the transcript's language.
    dictionary: str
    hash: str
    start_ms: int | None
    end_ms: int | None
    speakers: list[str]
    recognizers: list[str]
    #: By `dataclasses.asdict`.
    utterances: list[dict[str, Any]]
    #: [utterance, id of the word or null where the transcript has none, what else was heard]
    alternatives: list[list[Any]]
    #: When the job was created.
    created_at: datetime

    @property
    def key(self) -> ChunkKey:
        """Identifies it among those of a tenant."""
        return self.job_id, self.run, self.number

    @property
    def spoken(self) -> list[Utterance]:
        """Its utterances, in order."""
        return [Utterance(**utterance) for utterance in self.utterances]


#: A chunk of a tenant: job, run, number.
ChunkKey = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptIndex:
    """The chunks of a version of a run's transcript, which take the place of all earlier ones of the job."""

    tenant_id: str
    job_id: str
    run: int
    transcript_version: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """The vectors of one model. A change of the model makes another; the earlier serves until that is complete."""

    generation: int
    model: str
    dimensions: int
    state: Literal["building", "serving"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingWork:
    """A run of which some chunks may have no vector of a generation yet."""

    tenant_id: str
    job_id: str
    run: int
    generation: int
    transcript_version: int
    #: How often it was claimed; the claim's token.
    attempts: int
    error: str | None = None
