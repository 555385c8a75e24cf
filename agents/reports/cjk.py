"""Chinese, Japanese and Korean characters as a TrueType font of just those that a document has.

The font file holds cubic outlines of variable weight (CFF2, 65,000 glyphs), which ReportLab cannot embed: those that
are needed are drawn anew with quadratic curves, in a tenth of a second for a thousand.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import uharfbuzz

from schemas.texts import is_unspaced

#: By language, the font of the collection whose forms it uses; Japanese for all others.
_FORMS: Final = {"ja": 0, "ko": 1, "zh": 2, "zh-tw": 3, "zh-hant": 3, "zh-hk": 4, "yue": 4}

#: The weight of text.
_WEIGHT: Final = 400.0

#: Units of a curve's greatest deviation, of 1000 in the height of a line: less than is seen in print.
_TOLERANCE: Final = 1.0

_HANGUL: Final = (range(0x1100, 0x1200), range(0x3130, 0x3190), range(0xAC00, 0xD7B0))
_OTHER: Final = (range(0x0E00, 0x1100), range(0x1780, 0x1A00), range(0xA9E0, 0xAA80))


def characters(text: str) -> list[str]:
    """The characters of these scripts in a text, in order of their numbers."""
    return sorted(character for character in set(text) if _is_cjk(character))


def _is_cjk(character: str) -> bool:
    code = ord(character)
    return any(code in part for part in _HANGUL) or (
        is_unspaced(character) and not any(code in part for part in _OTHER)
    )


def _collection() -> Path:
    spec = find_spec("manimgx_fonts_cjk")
    if spec is None or spec.origin is None:
        raise ImportError("the package manimgx-fonts-cjk is not installed")
    return Path(spec.origin).parent / "NotoSansCJK-VF.otf.ttc"


def _form(language: str | None) -> int:
    tag = (language or "").lower()
    return _FORMS.get(tag, _FORMS.get(tag.partition("-")[0], 0))


def subset(wanted: list[str], language: str | None) -> bytes:
    """A TrueType font with these characters, as far as the collection has them."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.cu2quPen import Cu2QuPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    blob = uharfbuzz.Blob.from_file_path(str(_collection()))
    face = uharfbuzz.Face(blob, _form(language))
    font = uharfbuzz.Font(face)
    font.set_variations({"wght": _WEIGHT})
    found = {ord(one): glyph for one in wanted if (glyph := font.get_nominal_glyph(ord(one)))}
    glyphs, metrics = {}, {}
    for name, number in ((".notdef", 0), *((f"u{code:X}", glyph) for code, glyph in found.items())):
        pen = TTGlyphPen(None)
        font.draw_glyph_with_pen(number, Cu2QuPen(pen, _TOLERANCE, reverse_direction=True))
        glyphs[name] = pen.glyph()
        metrics[name] = (font.get_glyph_h_advance(number), 0)
    builder = FontBuilder(face.upem, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({code: f"u{code:X}" for code in found})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(
        {
            name: (width, glyphs[name].xMin if glyphs[name].numberOfContours else 0)
            for name, (width, _) in metrics.items()
        }
    )
    builder.setupHorizontalHeader(ascent=880, descent=-120)
    builder.setupNameTable({"familyName": "Noto Sans CJK", "styleName": "Regular", "psName": "NotoSansCJK-Regular"})
    builder.setupOS2(sTypoAscender=880, sTypoDescender=-120, usWinAscent=1000, usWinDescent=200)
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = 0
    builder.font.recalcTimestamp = False
    content = io.BytesIO()
    builder.save(content)
    return content.getvalue()
