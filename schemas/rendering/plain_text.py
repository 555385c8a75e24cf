"""A transcript as plain text: a paragraph for each segment, with its speaker and time."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.printable import printable
from schemas.rendering.markdown import clock
from schemas.rendering.segments import groups
from schemas.texts import joined
from schemas.transcript_words import TranscriptWord


def written(words: Sequence[TranscriptWord], *, mark_disputed: bool) -> str:
    """The words as a line of text; with `mark_disputed`, each run of disputed ones in brackets with a question mark:
    `the [quick brown?] fox`.
    """
    if not mark_disputed:
        return printable(joined(word.text for word in words))
    before = [False, *(word.disputed for word in words[:-1])]
    behind = [*(word.disputed for word in words[1:]), False]
    return printable(
        joined(
            ("[" if word.disputed and not was else "") + word.text + ("?]" if word.disputed and not is_next else "")
            for word, was, is_next in zip(words, before, behind, strict=True)
        )
    )


def plain_text(
    words: Sequence[TranscriptWord], *, speakers: bool = True, timestamps: bool = False, mark_disputed: bool = False
) -> str:
    """Paragraphs such as `[0:07] A: Hello.`, with an empty line between them."""
    paragraphs = []
    for group in groups(words):
        start_ms = next((word.start_ms for word in group if word.start_ms is not None), None)
        time = f"[{clock(start_ms)}] " if timestamps else ""
        speaker = f"{printable(group[0].speaker)}: " if speakers and group[0].speaker else ""
        paragraphs.append(time + speaker + written(group, mark_disputed=mark_disputed) + "\n")
    return "\n".join(paragraphs)
