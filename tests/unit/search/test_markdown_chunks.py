"""How a Markdown document becomes chunks: by headings, and where a section is too long or too short for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.text.chunks.chunking import ChunkSizes
from agents.text.chunks.markdown import markdown_chunks

SMALL = ChunkSizes(tokens=20, overlap=8, least=5)

DOCUMENT = """Before any heading, there is a sentence of some length.

# The call

A caller asks about an order that is late.

## What was said

One two three four five six. Seven eight nine ten eleven. Twelve thirteen fourteen fifteen. Sixteen seventeen.

## Short

Yes.

# The end ##

```
# no heading, but code that is long enough for a chunk
```
"""


def test_sections_are_chunks_under_their_headings():
    chunks = markdown_chunks(DOCUMENT, SMALL)

    headings = [(), ("The call",), ("The call", "What was said"), ("The call", "Short"), ("The end",)]
    assert list(dict.fromkeys(chunk.headings for chunk in chunks)) == headings
    assert chunks[1].text == "# The call\n\nA caller asks about an order that is late.\n\n"


def test_a_long_section_is_divided_at_sentences_and_repeats_the_last_one():
    _, _, first, second, *_ = markdown_chunks(DOCUMENT, SMALL)

    assert first.text.startswith("## What was said\n\nOne two")
    assert second.text.startswith("One two three four five six.")
    assert second.start < first.end
    assert first.text.rstrip().endswith(".")


def test_a_short_section_is_joined_with_what_follows_and_code_has_no_headings():
    last = markdown_chunks(DOCUMENT, SMALL)[-1]

    assert "# The end ##" in last.text or "Yes." in last.text
    assert not any("no heading" in name for chunk in markdown_chunks(DOCUMENT, SMALL) for name in chunk.headings)


@pytest.mark.parametrize("text", ["", "\n", "#", "# \n## \n", "```\n# a", "x" * 500, "\u6f22" * 60])
def test_odd_documents_are_covered(text):
    covered(text, markdown_chunks(text, SMALL))


@given(st.text(alphabet="#a .\n`\u6f22", max_size=400))
def test_every_character_is_in_a_chunk_and_no_chunk_is_too_long(text):
    covered(text, markdown_chunks(text, SMALL))


def covered(text, chunks):
    end = 0
    for chunk in chunks:
        assert chunk.start <= end < chunk.end
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.tokens <= SMALL.tokens + 2
        end = chunk.end
    assert end == len(text)
