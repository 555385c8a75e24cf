"""The fonts of a document: Noto Sans, for each script the file that has its characters, embedded as far as it is used.

Covered are Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian, Ethiopic, ten Indian scripts, Thai, Lao, Khmer,
Burmese, symbols and emoji (in outline), from the wheel `manimgx-fonts`, and Chinese, Japanese and Korean from
`manimgx-fonts-cjk`: re-uploads of Google's Noto fonts (SIL OFL 1.1), used as mere carriers. A character that none of
them has is shown as U+FFFD, and counted.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import uharfbuzz
from reportlab.lib.utils import asBytes
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.pdfdoc import PDFStream
from reportlab.pdfbase.ttfonts import SUBSETN, TTFont

from agents.reports import cjk
from schemas.texts import REPLACEMENT

#: The weights of text, and of headings and names.
_REGULAR, _BOLD = 400, 650

#: Scripts whose letters change their form or place with their neighbours; the others are set letter by letter.
_SHAPED: Final = (
    *("Arabic", "Hebrew", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada"),
    *("Malayalam", "Sinhala", "Thai", "Lao", "Khmer", "Myanmar"),
)
_PLAIN: Final = ("Armenian", "Georgian", "Ethiopic", "Symbols")
_EMOJI: Final = "NotoEmoji"

#: Codes by which ReportLab finds glyphs that are no character's own: the planes for private use. None is written.
_PRIVATE: Final = range(0xF0000, 0x10FFFE)

#: Entries of a section of a map, at most, as PDF has it.
_ENTRIES: Final = 100


class SearchableFont(TTFont):  # type: ignore[misc]  # ReportLab publishes no annotations
    """A font whose text can be copied from a document, and found in it: each glyph says which characters it is.

    ReportLab's own map (`makeToUnicodeCMap`) has one code point for a glyph, in four hexadecimal digits: of an emoji
    the fifth is taken for the next entry, and a glyph that HarfBuzz has chosen for several letters stands for none.
    """

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


@dataclass(frozen=True, eq=False)
class Font:
    """A font as ReportLab and HarfBuzz know it."""

    name: str
    reportlab: SearchableFont
    harfbuzz: uharfbuzz.Font
    shaped: bool

    def has(self, character: str) -> bool:
        """Whether it has a glyph for the character."""
        return ord(character) in self.reportlab.face.charToGlyph

    def character_of(self, glyph: int, meant: str) -> str:
        """A character by which ReportLab finds the glyph that stands for this text: that itself, where it has the
        glyph.
        """
        if len(meant) == 1 and self.reportlab.face.charToGlyph.get(ord(meant)) == glyph:
            return meant
        width = self.harfbuzz.get_glyph_h_advance(glyph) * 1000 / self.harfbuzz.face.upem
        code = self.reportlab.code_of(glyph, meant, width)
        return REPLACEMENT if code is None else chr(code)


def _folder() -> Path:
    """Where the font files are. Their package has no code of interest, and is not imported."""
    spec = find_spec("manimgx_fonts")
    if spec is None or spec.origin is None:
        raise ImportError("the package manimgx-fonts is not installed")
    return Path(spec.origin).parent


def _font(name: str, content: bytes, *, shaped: bool) -> Font:
    made = SearchableFont(name, io.BytesIO(content), shapable=False)
    # ReportLab keeps what it embeds by this name, which is the same for all weights.
    made.face.name = name.encode()
    pdfmetrics.registerFont(made)
    return Font(name, made, uharfbuzz.Font(uharfbuzz.Face(uharfbuzz.Blob(content))), shaped)


def _instance(content: bytes, weight: float) -> bytes:
    """A variable font at this weight, by HarfBuzz in 30 ms."""
    face, wanted = uharfbuzz.Face(uharfbuzz.Blob(content)), uharfbuzz.SubsetInput()
    wanted.keep_everything()
    wanted.pin_axis_location(face, "wght", weight)
    return bytes(uharfbuzz.subset(face, wanted).blob.data)


#: Fonts by name, as far as a document of this process has needed them.
_LOADED: dict[str, Font] = {}


def _loaded(file: str, *, shaped: bool, bold: bool) -> Font:
    name = f"{file}-Bold" if bold else file
    if name not in _LOADED:
        content = (_folder() / f"{file}[wght].ttf").read_bytes()
        _LOADED[name] = _font(name, _instance(content, _BOLD if bold else _REGULAR), shaped=shaped)
    return _LOADED[name]


@dataclass
class Fonts:
    """The fonts of one document, whose whole text is known before."""

    text: str
    #: BCP 47 tag of the language, which decides how characters look that Chinese, Japanese and Korean share.
    language: str | None = None
    #: Characters that no font has.
    missing: set[str] = field(default_factory=set)
    _chosen: dict[tuple[str, bool], Font | None] = field(default_factory=dict)
    _cjk: Font | None = None

    def __post_init__(self) -> None:
        if wanted := cjk.characters(self.text):
            content = cjk.subset(wanted, self.language)
            # Named by its content: ReportLab keeps fonts by their names, and each document has its own.
            self._cjk = _font(f"NotoSansCJK-{sha256(content).hexdigest()[:12]}", content, shaped=False)

    def close(self) -> None:
        """Forget what only this document needs."""
        if self._cjk is not None:
            self._cjk.reportlab.unregister()

    def runs(self, text: str, *, bold: bool = False) -> Iterator[tuple[Font, str]]:
        """The text in parts of one font each. Spaces, digits and punctuation stay in the font of what is before them,
        so that a line's parts are few.
        """
        font, run = self.latin(bold=bold), ""
        for character in text:
            is_own = _combines(character) or not (character.isalpha() or (font.name == _EMOJI and character == " "))
            wanted = font if is_own and font.has(character) else self._font_of(character, bold)
            shown = character
            if wanted is None:
                self.missing.add(character)
                wanted, shown = font, REPLACEMENT if font.has(REPLACEMENT) else "?"
            if wanted is not font and run:
                yield font, run
                run = ""
            font, run = wanted, run + shown
        if run:
            yield font, run

    def latin(self, *, bold: bool = False) -> Font:
        """The font of most scripts of Europe."""
        return _loaded("NotoSans", shaped=False, bold=bold)

    def _font_of(self, character: str, bold: bool) -> Font | None:
        if (character, bold) not in self._chosen:
            self._chosen[character, bold] = next((font for font in self._candidates(bold) if font.has(character)), None)
        return self._chosen[character, bold]

    def _candidates(self, bold: bool) -> Iterator[Font]:
        yield self.latin(bold=bold)
        if self._cjk is not None:
            yield self._cjk
        for script in (*_SHAPED, *_PLAIN):
            yield _loaded(f"NotoSans{script}", shaped=script in _SHAPED, bold=bold)
        yield _loaded(_EMOJI, shaped=False, bold=False)


def _combines(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
