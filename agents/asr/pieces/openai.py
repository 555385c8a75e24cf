"""Transcription by any server with OpenAI's protocol: `POST /v1/audio/transcriptions`.

Two kinds of models. Whisper (`whisper-1`, and what servers of one's own run) gives words with times, if it is asked for
`verbose_json`. OpenAI's `gpt-*` models give a text, and some of them the probabilities of its tokens, from which those
of its words follow; no times, and none are made up: the reconciler takes them from the run's other recognizers.

No prompt is sent: Whisper repeats it where it hears nothing, and it would carry words from one piece into the next. The
vendor takes 25 MB and keeps no list of requests; see `recognizer` for what that costs.

https://developers.openai.com/api/docs/api-reference/audio/createTranscription
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from pydantic import BaseModel

from agents.asr.pieces.http_client import Account
from agents.asr.pieces.http_service import HTTPService
from agents.asr.pieces.parts import MOST, Number, Objects, Part, Span, Text, probability_of_log, read_json
from agents.asr.pieces.recognizer import Piece
from agents.asr.protocols import Request
from schemas.words import Word

URL: Final = "https://api.openai.com/v1"

#: Terms of a vocabulary that are sent, at most.
TERMS: Final = 100

#: The codes of the languages that Whisper calls by these names; servers of one's own answer with codes.
_NAMES: Final = dict(
    pair.split("=")
    for pair in (
        "english=en chinese=zh german=de spanish=es russian=ru korean=ko french=fr japanese=ja portuguese=pt "
        "turkish=tr polish=pl catalan=ca dutch=nl arabic=ar swedish=sv italian=it indonesian=id hindi=hi "
        "finnish=fi vietnamese=vi hebrew=he ukrainian=uk greek=el malay=ms czech=cs romanian=ro danish=da "
        "hungarian=hu tamil=ta norwegian=no thai=th urdu=ur croatian=hr bulgarian=bg lithuanian=lt latin=la "
        "maori=mi malayalam=ml welsh=cy slovak=sk telugu=te persian=fa latvian=lv bengali=bn serbian=sr "
        "azerbaijani=az slovenian=sl kannada=kn estonian=et macedonian=mk breton=br basque=eu icelandic=is "
        "armenian=hy nepali=ne mongolian=mn bosnian=bs kazakh=kk albanian=sq swahili=sw galician=gl marathi=mr "
        "punjabi=pa sinhala=si khmer=km shona=sn yoruba=yo somali=so afrikaans=af occitan=oc georgian=ka "
        "belarusian=be tajik=tg sindhi=sd gujarati=gu amharic=am yiddish=yi lao=lo uzbek=uz faroese=fo pashto=ps "
        "turkmen=tk nynorsk=nn maltese=mt sanskrit=sa luxembourgish=lb myanmar=my tibetan=bo tagalog=tl "
        "malagasy=mg assamese=as tatar=tt hawaiian=haw lingala=ln hausa=ha bashkir=ba javanese=jv sundanese=su "
        "cantonese=yue"
    ).split()
)


class HeardWord(BaseModel):
    """A word of Whisper's, without punctuation. Times are in seconds."""

    word: Text = ""
    start: Number = None
    end: Number = None
    #: Not OpenAI's: servers of one's own give it.
    probability: Number = None


class Segment(BaseModel):
    """Some words of Whisper's that it decoded together."""

    text: Text = ""
    start: Number = None
    end: Number = None
    avg_logprob: Number = None


class Token(BaseModel):
    """A part of the text, and the logarithm of its probability."""

    token: Text = ""
    logprob: Number = None


class Language(BaseModel):
    """A language that the model heard."""

    code: Text = ""


class Usage(BaseModel):
    """What is billed, if that is time."""

    seconds: Number = None


class Answer(BaseModel):
    """The answer to a request: `verbose_json` or `json`."""

    text: Text
    words: Annotated[list[HeardWord] | None, Objects] = None
    segments: Annotated[list[Segment], Objects] = []
    logprobs: Annotated[list[Token], Objects] = []
    language: Text = ""
    languages: Annotated[list[Language], Objects] = []
    usage: Usage | None = None


class Transcriptions(HTTPService):
    """OpenAI's call as a `Service`."""

    def __init__(self, name: str, key: str | None, model: str, base_url: str | None = None, **limits: float) -> None:
        """`base_url` ends in the API's version, as in `https://host/v1`; a server of one's own may need no key.
        `limits` are those of `HTTPClient`. Raises `SettingsError` if the key cannot be one.
        """
        variables = "OPENAI_TRANSCRIBE_API_KEY or OPENAI_API_KEY", "OPENAI_TRANSCRIBE_BASE_URL"
        account = Account(name, base_url or URL, key or "", "Authorization", "Bearer ", variables)
        super().__init__(account, model, **limits)

    def settings(self, request: Request) -> bytes:
        """See `Service`."""
        return repr((self._client.account.base_url, self._fields(request))).encode()

    async def ask(self, request: Request, piece: Piece) -> bytes:
        """See `Service`."""
        return await self.send_form("/audio/transcriptions", self._fields(request), piece)

    def read(self, answer: bytes, span: Span) -> Part:
        """See `Service`."""
        read = read_json(Answer, answer)
        language = read.language.strip().lower() or next((one.code for one in read.languages), "")
        billed_s = read.usage.seconds if read.usage else None
        return span.part(
            _words(read, span), _NAMES.get(language, language if len(language) in (2, 3) else ""), billed_s
        )

    async def check(self) -> None:
        """See `Checked`: reads the list of models."""
        await self._client.call("GET", "/models", "a look at its models")

    def _fields(self, request: Request) -> list[tuple[str, str]]:
        fields = [("model", self._model)]
        if request.language != "auto":
            fields.append(("language", request.language.partition("-")[0].lower()))
        if not self._model.startswith("gpt-"):
            granularities = [("timestamp_granularities[]", name) for name in ("word", "segment")]
            return [*fields, ("response_format", "verbose_json"), *granularities]
        fields.append(("response_format", "json"))
        if self._model.startswith("gpt-4o") and not self._model.endswith("-diarize"):
            fields.append(("include[]", "logprobs"))
        if self._model.startswith("gpt-transcribe"):
            fields += [("keywords[]", term) for term in request.vocabulary[:TERMS]]
        return fields


def _words(read: Answer, span: Span) -> list[Word]:
    """The words as precisely as the answer has them: with times of their own, those of segments, or without."""
    if read.words:
        return list(_timed(read.words, read, span))
    if any(segment.text.strip() for segment in read.segments):
        return [word for segment in read.segments for word in _spread(segment, span)]
    texts = read.text.split()[:MOST]
    return [Word(text, confidence=sure) for text, sure in zip(texts, _certainties(texts, read.logprobs), strict=True)]


def _timed(words: Sequence[HeardWord], read: Answer, span: Span) -> Iterator[Word]:
    """Whisper's words, with the punctuation of its text and the confidence of their segments."""
    written = _written([word.word for word in words], read.text)
    at = 0
    for word, text in zip(words, written, strict=True):
        middle = ((word.start or 0.0) + (word.end or 0.0)) / 2
        while at + 1 < len(read.segments) and middle > (read.segments[at].end or 0.0):
            at += 1
        sure = word.probability
        if sure is None and read.segments:
            sure = probability_of_log(read.segments[at].avg_logprob)
        yield span.word(text, word.start, word.end, sure)


def _written(words: Sequence[str], text: str) -> Sequence[str]:
    """The words as the text has them, with punctuation; as they are where the text does not have them in order."""
    written, at = [], 0
    for word in words:
        found = text.find(word.strip(), at) if word.strip() else -1
        if found < 0:
            return words
        start, end = found, found + len(word.strip())
        while start > at and not text[start - 1].isspace() and not text[start - 1].isalnum():
            start -= 1
        while end < len(text) and not text[end].isspace() and not text[end].isalnum():
            end += 1
        written.append(text[start:end])
        at = end
    return written


def _spread(segment: Segment, span: Span) -> Iterator[Word]:
    """A segment's words, over its time by their lengths: a segment has some seconds."""
    texts = segment.text.split()
    sure = probability_of_log(segment.avg_logprob)
    if segment.start is None or segment.end is None:
        yield from (Word(text, confidence=sure) for text in texts)
        return
    length_s = max(0.0, segment.end - segment.start)
    letters = sum(map(len, texts))
    before = 0
    for text in texts:
        begin_s = segment.start + length_s * before / letters
        before += len(text)
        yield span.word(text, begin_s, segment.start + length_s * before / letters, sure)


def _certainties(texts: Sequence[str], tokens: Sequence[Token]) -> list[float | None]:
    """The probability of each word, from those of its tokens; None for all if the tokens do not spell the words."""
    logs: list[float] = [0.0] * len(texts)
    number, spelled = 0, ""
    for token in tokens:
        for piece in _pieces(token.token):
            if piece.isspace():
                continue
            if number >= len(texts) or token.logprob is None:
                return [None] * len(texts)
            logs[number] += token.logprob
            spelled += piece
            if not texts[number].startswith(spelled):
                return [None] * len(texts)
            if spelled == texts[number]:
                number, spelled = number + 1, ""
    return [probability_of_log(log) for log in logs] if number == len(texts) and texts else [None] * len(texts)


def _pieces(token: str) -> Iterator[str]:
    """A token as words and the space between them."""
    start = 0
    for at in range(1, len(token) + 1):
        if at == len(token) or token[at].isspace() != token[start].isspace():
            yield token[start:at]
            start = at
