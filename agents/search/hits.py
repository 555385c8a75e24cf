"""Which utterance of a passage is shown, where it matches, and what was said around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from agents.search.fusion import Ranked
from agents.text.chunks.tokens import spaced
from schemas.search.chunks import Chunk, ChunkKey, Utterance
from schemas.search.results import Hit, OtherReading
from sinks.ports.search.reads import SearchIndex, Term

#: From and to characters.
_Places = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Marked:
    """A passage with what matches in it."""

    chunk: Chunk
    #: By utterance.
    utterances: list[_Places]
    #: Of its alternatives, those that match.
    readings: list[tuple[int, OtherReading]]

    def best(self, speaker: str | None) -> tuple[int, int]:
        """The utterance in which the most matches, and how much; the first, if nothing does. Of one speaker's, where
        there is one: a passage has what others say, too.
        """
        texts = [utterance["text"] for utterance in self.chunk.utterances]
        found = zip(texts, self.utterances, strict=True)
        counts = [len({text[slice(*place)].lower() for place in places}) for text, places in found]
        for n, _ in self.readings:
            counts[n] += 1
        of = [n for n, one in enumerate(self.chunk.spoken) if speaker is None or one.speaker == speaker]
        place = max(of or range(len(counts)), key=lambda n: (counts[n], -n))
        return place, counts[place]


async def hits_of(
    index: SearchIndex, tenant: str, page: Sequence[Ranked], asked: Sequence[Term], around: int, speaker: str | None
) -> list[Hit]:
    """The hits of a page. Passages that were deleted since are left out, and those that were found by words which
    another than the speaker says.

    Raises:
        Unavailable: the database is away.
    """
    chunks = await index.chunks(tenant, with_neighbours(page) if around else [one.key for one in page])
    shown = [(one, chunks[one.key]) for one in page if one.key in chunks]
    marked = await _marked(index, tenant, [chunk for _, chunk in shown], asked)
    hits = []
    for (one, _), of in zip(shown, marked, strict=True):
        place, count = of.best(speaker)
        if count or speaker is None or one.found_by != ("text",):
            hits.append(_hit(one, of, place, chunks, around))
    return hits


def with_neighbours(page: Sequence[Ranked]) -> list[ChunkKey]:
    """The keys of passages and of those beside them."""
    keys = {(job, run, number + step) for job, run, number in (one.key for one in page) for step in (-1, 0, 1)}
    return sorted(key for key in keys if key[2] >= 0)


def widened(chunk: Chunk, chunks: dict[ChunkKey, Chunk], count: int) -> list[Utterance]:
    """The utterances of a passage, with so many of what was said before and after it."""
    before, _ = _around(chunk, 0, chunks, count)
    _, after = _around(chunk, len(chunk.utterances) - 1, chunks, count)
    return [*before, *chunk.spoken, *after]


async def _marked(index: SearchIndex, tenant: str, chunks: Sequence[Chunk], asked: Sequence[Term]) -> list[_Marked]:
    """All passages with what matches, by one question to the database."""
    texts = [
        (chunk.dictionary, spaced(text))
        for chunk in chunks
        for text in [*(u["text"] for u in chunk.utterances), *(str(heard) for _, _, heard in chunk.alternatives)]
    ]
    places = iter(await index.marked(tenant, asked, texts) if texts and asked else [[]] * len(texts))
    marked = []
    for chunk in chunks:
        utterances = [_unspaced(next(places), utterance["text"]) for utterance in chunk.utterances]
        readings = [(n, OtherReading(id, heard)) for n, id, heard in chunk.alternatives if next(places)]
        marked.append(_Marked(chunk, utterances, readings))
    return marked


def _unspaced(places: _Places, text: str) -> _Places:
    """Places of the text with spaces around characters of scripts without spaces, in the text without them."""
    searched = spaced(text)
    if searched == text:
        return places
    # Of both, the characters that are no spaces are the same.
    origin = [n for n, character in enumerate(text) if not character.isspace()]
    before = list(accumulate((not character.isspace() for character in searched), initial=0))
    return [(origin[before[begin]], origin[before[end] - 1] + 1) for begin, end in places]


def _hit(ranked: Ranked, marked: _Marked, place: int, chunks: dict[ChunkKey, Chunk], around: int) -> Hit:
    chunk = marked.chunk
    before, after = _around(chunk, place, chunks, around)
    return Hit(
        chunk=chunk,
        place=place,
        score=ranked.score,
        found_by=ranked.found_by,
        highlights=marked.utterances[place],
        readings=[reading for n, reading in marked.readings if n == place],
        before=before,
        after=after,
    )


def _around(
    chunk: Chunk, place: int, chunks: dict[ChunkKey, Chunk], count: int
) -> tuple[list[Utterance], list[Utterance]]:
    """So many utterances before and after one, also of the passages beside its own, without what these repeat."""
    if not count:
        return [], []
    job, run, number = chunk.key
    own = chunk.spoken
    earlier, later = chunks.get((job, run, number - 1)), chunks.get((job, run, number + 1))
    known = {id for utterance in own for id in utterance.word_ids}
    before = [*(_others(earlier, known) if earlier else []), *own[:place]]
    after = [*own[place + 1 :], *(_others(later, known) if later else [])]
    return before[-count:], after[:count]


def _others(chunk: Chunk, known: set[str]) -> list[Utterance]:
    return [utterance for utterance in chunk.spoken if not known & set(utterance.word_ids)]
