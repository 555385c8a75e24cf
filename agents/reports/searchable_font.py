"""A TrueType font whose text can be copied from a document, and found in it: each glyph says which characters it is.

ReportLab's own map (`makeToUnicodeCMap`) has one code point for a glyph, in four hexadecimal digits: of an emoji the
fifth is taken for the next entry, and a glyph that HarfBuzz has chosen for several letters stands for none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from reportlab.lib.utils import asBytes
from reportlab.pdfbase.pdfdoc import PDFStream
from reportlab.pdfbase.ttfonts import SUBSETN, TTFont

#: Codes by which ReportLab finds glyphs that are no character's own: the planes for private use. None is written.
_PRIVATE: Final = range(0xF0000, 0x10FFFE)

#: Entries of a section of a map, at most, as PDF has it.
_ENTRIES: Final = 100


class SearchableFont(TTFont):  # type: ignore[misc]  # ReportLab publishes no annotations
    """A font with what its private codes stand for."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        #: By private code: the characters that its glyph stands for, maybe none.
        self.meanings: dict[int, str] = {}
        self._codes: dict[tuple[int, str], int] = {}

    def code_of(self, glyph: int, text: str, width: float) -> int | None:
        """The code that draws this glyph and stands for this text; None if there are no more."""
        known = self._codes.get((glyph, text))
        if known is not None:
            return known
        code = _PRIVATE.start + len(self._codes)
        if code not in _PRIVATE:
            return None
        self._codes[glyph, text] = code
        self.meanings[code] = text
        self.face.charToGlyph[code], self.face.charWidths[code] = glyph, width
        return code

    def addObjects(self, doc: Any) -> None:  # noqa: N802 - ReportLab's name
        """Add the font's objects to a document, with maps of ours."""
        subsets = [[*subset] for subset in self.state[doc].subsets]
        super().addObjects(doc)
        for number, subset in enumerate(subsets):
            name = b"".join((SUBSETN(number), b"+", self.face.name, self.face.subfontNameX)).decode("pdfdoc")
            stream: PDFStream = doc.idToObject[f"toUnicodeCMap:{name}"]
            stream.content = asBytes(unicode_map(name, subset, self.meanings))


def unicode_map(name: str, subset: Sequence[int], meanings: Mapping[int, str]) -> str:
    """The map from a subset's bytes to text, as PDF has it (ToUnicode): characters in UTF-16, big endian."""
    entries = list(_entries(subset, meanings))
    parts = (entries[at : at + _ENTRIES] for at in range(0, len(entries), _ENTRIES))
    sections = [f"{len(part)} beginbfchar\n" + "\n".join(part) + "\nendbfchar" for part in parts]
    begin = f"""\
/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /{name} def
/CMapType 2 def
1 begincodespacerange
<00> <{len(subset) - 1:02X}>
endcodespacerange
"""
    end = "\nendcmap\nCMapName currentdict /CMap defineresource pop\nend\nend"
    return begin + "\n".join(sections) + end


def _entries(subset: Sequence[int], meanings: Mapping[int, str]) -> Iterator[str]:
    for byte, code in enumerate(subset):
        if code:  # 0 is of bytes that nothing is drawn by
            text = meanings[code] if code in meanings else chr(code)
            yield f"<{byte:02X}> <{text.encode('utf-16-be').hex().upper()}>"
