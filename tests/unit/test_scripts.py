"""Words of any script are written as a line: with spaces where the script has them, and in the script's direction."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from agents.asr.speech_windows import Window
from agents.asr.whisper import words_of
from agents.commands.jobs.transcript import page, plain
from agents.text.reconcile import reconcile
from schemas.rendering.segments import segments
from schemas.texts import joined
from schemas.words import Hypothesis, Word

pytestmark = pytest.mark.slow

LINES = {
    "您好,这里是客服": ["您好,", "这里", "是", "客", "服"],
    "2026年11月3日": ["2026", "年", "11", "月", "3", "日"],
    "我用 Python 写了30%的代码": ["我", "用", "Python", "写", "了", "30%", "的", "代码"],
    "お電話ありがとう。田中です": ["お", "電話", "ありがとう", "。", "田中", "です"],
    "OK。さようなら": ["OK", "。", "さようなら"],
    "สวัสดีครับ ABC": ["สวัสดี", "ครับ", "ABC"],
    "I met 王小明 there": ["I", "met", "王小明", "there"],
    "안녕 하세요": ["안녕", "하세요"],
    "صباح الخير يا محمد": ["صباح", "الخير", "يا", "محمد"],
    "שלום, מה שלומך?": ["שלום,", "מה", "שלומך?"],
    "नमस्ते, आप कैसे हैं?": ["नमस्ते,", "आप", "कैसे", "हैं?"],
    "room 12, 3 people": ["room", "12,", "3", "people"],
    "a b": ["", "a", "", "b"],
    "": [],
}


@pytest.mark.parametrize(("line", "words"), LINES.items(), ids=range(len(LINES)))
def test_words_are_joined_as_their_script_is_written(line, words):
    assert joined(words) == line


@pytest.mark.skipif(shutil.which("node") is None, reason="the console's modules run in a browser, or in node")
def test_the_console_joins_words_alike():
    module = Path(__file__).parents[2] / "web" / "static" / "transcript" / "turns.js"
    script = f"""
        import {{ separator }} from {json.dumps(module.as_uri())};
        const lines = {json.dumps([[word for word in words if word] for words in LINES.values()])};
        const written = (word, n, words) => (n ? separator(words[n - 1], word) : "") + word;
        console.log(JSON.stringify(lines.map((words) => words.map(written).join(""))));
    """
    result = subprocess.run(
        ["node", "--input-type=module", "--eval", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert json.loads(result.stdout) == list(LINES)


def heard(text, *words):
    return Hypothesis(text, tuple(Word(word, 400 * n, 400 * n + 300) for n, word in enumerate(words)), "zh")


def test_the_pages_join_agreed_and_disputed_words_alike():
    result = reconcile([heard("a", "请", "告诉", "我", "名字"), heard("b", "请", "告诉", "他", "名字")])
    [segment] = segments(result.words)

    assert result.text in ("请告诉我名字", "请告诉他名字")
    assert segment["text"] == result.text
    assert plain(result).splitlines()[0].replace("[", "").replace("]", "") == result.text
    paragraph = page(result, "call").split("<main>")[1]
    assert "告诉<mark" in paragraph
    assert "</mark>名字" in paragraph


def test_the_page_has_the_direction_of_the_words_not_of_the_label():
    words = tuple(Word(word, n, n, speaker="A") for n, word in enumerate(["صباح", "الخير"]))

    assert "<p dir=auto><time>0:00.0</time><bdi><b>A</b></bdi> صباح الخير</p>" in page(
        reconcile([Hypothesis("a", words, "ar")]), "call"
    )


def decoded(*tokens):
    words = [SimpleNamespace(word=token, start=n, end=n + 0.5, probability=0.9) for n, token in enumerate(tokens)]
    segment = SimpleNamespace(words=words, no_speech_prob=0.0, avg_logprob=-0.1)
    window = Window(None, ((0, 0),), 60_000)
    return [text for text, *_ in words_of([segment], window, spaced=False)]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("您", "好,", "这里"), ["您", "好,", "这里"]),
        (("ซ", "ั", "น"), ["ซั", "น"]),
        ((" Har", "ry", " Pot", "ter", "是"), ["Harry", "Potter", "是"]),
        (("20", "26", "年"), ["2026", "年"]),
        (("是\ufffd", "\ufffd", "的"), ["是", "的"]),
    ],
)
def test_whispers_parts_of_words_are_one_word_in_scripts_without_spaces(tokens, words):
    assert decoded(*tokens) == words


@pytest.mark.parametrize(("speech", "logprob", "count"), [(0.34, -1.4, 0), (0.34, -0.3, 1), (0.6, -1.4, 1)])
def test_improbable_words_are_dropped_where_the_detector_is_unsure(speech, logprob, count):
    """Of the first kind is the "Thank you for watching!" that tiny.en makes of music on hold."""
    word = SimpleNamespace(word=" you", start=0.0, end=0.5, probability=0.5)
    segment = SimpleNamespace(words=[word], no_speech_prob=0.57, avg_logprob=logprob)

    assert len(words_of([segment], Window(None, ((0, 0),), 9000, speech), spaced=True)) == count
