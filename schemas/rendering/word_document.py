"""A transcript as a Word document (`.docx`), whose disputed words are highlighted."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby

from schemas.printable import printable
from schemas.rendering.markdown import clock
from schemas.rendering.segments import groups
from schemas.texts import joined, separator
from schemas.transcript_words import TranscriptWord


def docx(
    title: str,
    words: Sequence[TranscriptWord],
    *,
    speakers: bool = True,
    timestamps: bool = False,
    mark_disputed: bool = False,
) -> bytes:
    """A heading, and a paragraph for each segment. Takes a second for an hour of speech: not for an event loop."""
    # Imported here, because python-docx takes 0.3 s and 20 MB, and few workers are ever asked for such a document.
    from docx import Document
    from docx.enum.text import WD_COLOR_INDEX

    document = Document()
    document.core_properties.author = ""
    document.core_properties.comments = ""
    document.add_heading(printable(title), level=1)
    for group in groups(words):
        paragraph = document.add_paragraph()
        if timestamps:
            start_ms = next((word.start_ms for word in group if word.start_ms is not None), None)
            paragraph.add_run(f"{clock(start_ms)}  ").italic = True
        if speakers and group[0].speaker:
            paragraph.add_run(f"{printable(group[0].speaker)}: ").bold = True
        for text, disputed in _runs(group):
            run = paragraph.add_run(text)
            if disputed and mark_disputed:
                run.font.highlight_color = WD_COLOR_INDEX.YELLOW
    content = io.BytesIO()
    document.save(content)
    return content.getvalue()


def _runs(words: Sequence[TranscriptWord]) -> Iterator[tuple[str, bool]]:
    """Consecutive words that are all disputed, or all not, as text with the space before them."""
    before = ""
    for disputed, of_run in groupby(words, lambda word: word.disputed):
        texts = [word.text for word in of_run]
        yield separator(before, texts[0]) + printable(joined(texts)), disputed
        before = texts[-1]
