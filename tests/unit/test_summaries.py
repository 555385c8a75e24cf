"""What summaries are made of: citations, utterances, digests, prompts; and which model makes them."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest

from agents.fleet.models.opening import open_text_model
from agents.fleet.sections.models import ModelSettings
from agents.fleet.settings import Settings
from agents.llm.texts import summaries, titles
from agents.llm.texts.prompts import template
from agents.text.summaries.citations import Quotable, says
from agents.text.summaries.digest import digest
from agents.text.summaries.utterances import MOST_WORDS, packed, parts, utterances
from schemas.accounts.settings import AccountSettings
from schemas.summaries import folded
from schemas.transcript_words import TranscriptWord


def words(text: str, speaker: str = "A", start: int = 0, **more) -> list[TranscriptWord]:
    return [
        TranscriptWord(f"w{n}", word, 300 * n, 300 * n + 250, speaker, **more)
        for n, word in enumerate(text.split(), start)
    ]


CALL = Quotable(utterances([*words("Don't send the forms."), *words("Twelve! I will, Mr. O'Neil.", "B", 4)]))


def ids(id: str, quote: str) -> tuple[str, ...] | None:
    cited = CALL.cited(id, quote)
    return cited and cited["words"]


@pytest.mark.parametrize(
    ("id", "quote", "expected"),
    [
        ("s1", "send the forms", ("w1", "w2", "w3")),
        ("s1", " dont SEND…", ("w0", "w1")),
        ("s2", "mr oneil", ("w7", "w8")),
        ("s1", "the forms. Twelve", ("w2", "w3", "w4")),  # goes on in the next one
        ("s2", "send the forms", ("w1", "w2", "w3")),  # was said in the one before
        ("s1", "end the form", None),  # parts of words
        ("s1", "send all the forms", None),
        ("s1", "", None),
        ("s1", "...", None),
        ("s9", "send the forms", None),
        ("s0", "send the forms", None),
        ("w1", "send the forms", None),
        ("s\u0661", "send the forms", None),
        ("s1" + "0" * 99, "send the forms", None),
    ],
)
def test_a_quotation_is_found_where_it_was_said_or_not_at_all(id, quote, expected):
    assert ids(id, quote) == expected


def test_what_is_cited_has_its_speaker_its_times_and_its_disputes():
    spoken = utterances([*words("it is"), *words("forty four", start=2, disputed=True)])
    cited = Quotable(spoken).cited("s1", "Forty-four")

    assert cited == {
        "words": ("w2", "w3"),
        "quote": "forty four",
        "speaker": "A",
        "start_ms": 600,
        "end_ms": 1150,
        "disputed": True,
    }
    assert says(cited, "FORTY four")
    assert not says(cited, "forty five")
    assert not says(cited, "!")


def test_a_quotation_in_a_script_without_spaces_may_begin_within_a_word():
    spoken = utterances([TranscriptWord("w0", "私は"), TranscriptWord("w1", "東京に"), TranscriptWord("w2", "行く")])

    assert Quotable(spoken).cited("s1", "東京")["words"] == ("w1",)
    assert Quotable(spoken).cited("s1", "京都") is None


def test_a_whole_speech_is_no_quotation():
    spoken = utterances(words("yes " * 100))

    assert Quotable(spoken).cited("s1", "yes " * 90) is None


@pytest.mark.parametrize(
    ("id", "quote", "stands"),
    [("s1", "will", False), ("s1", "I will", False), ("s1", "I will pay", True), ("s2", "agreed", True)],
)
def test_no_statement_rests_on_a_word_that_is_in_every_call(id, quote, stands):
    spoken = utterances([*words("I will pay."), *words("Agreed.", start=3, speaker="B")])

    assert (Quotable(spoken).cited(id, quote, is_statement=True) is not None) == stands
    assert Quotable(spoken).cited(id, quote) is not None


def test_all_words_are_in_parts_that_fit_whatever_they_lack():
    endless = [TranscriptWord(f"w{n}", "word") for n in range(1000)]
    spoken = utterances(endless)
    divided = parts(spoken, 500)

    assert [word.id for piece in divided for one in piece for word in one.words] == [word.id for word in endless]
    assert max(len(one.words) for one in spoken) == MOST_WORDS
    assert len(divided) > 2
    assert len({one.id for one in spoken}) == len(spoken)
    assert parts([], 500) == []
    assert list(packed([5, 5, 5], 1, int, least=2)) == [[5, 5], [5]]


@pytest.mark.slow
def test_a_digest_quotes_whole_sentences_that_say_something_from_all_of_the_call():
    filler = "Well you know I think that it is really good to be here. " * 12
    text = (
        f"{filler} The valve in Rotterdam leaks forty litres daily. {filler} Send the invoice to Kowalczyk by Friday."
    )
    quoted = digest(words(text), "en")

    assert "The valve in Rotterdam leaks forty litres daily." in [one.text for one in quoted]
    assert quoted[-1].text == "Send the invoice to Kowalczyk by Friday."
    assert [one.start_ms for one in quoted] == sorted(one.start_ms for one in quoted)
    assert all(one.text == one.quote and one.words for one in quoted)


def test_a_digest_of_little_is_little():
    assert digest([], None) == ()
    assert digest(words("Yes. No."), "en") == ()
    assert len(digest(words("The valve in Rotterdam leaks forty litres daily."), "xx")) == 1


#: By prompt, the beginning of its sha256. The version is in the name of each summary: another text is another version.
PROMPTS = {
    ("summary", summaries.SUMMARY): "1a54b7444a573023",
    ("merge", summaries.MERGE): "3e59d14382309ded",
    ("summary_frame", "v1"): "c146c74f6e1c2b5e",
    ("document_frame", "v1"): "f0733435fa7873eb",
    ("document", titles.VERSION): "011077718978cbb2",
}


def test_another_prompt_is_another_version():
    folder = files("agents.llm.texts")
    texts = {key: folder.joinpath("{}.{}.txt".format(*key)).read_bytes() for key in PROMPTS}

    assert {key: hashlib.sha256(text).hexdigest()[:16] for key, text in texts.items()} == PROMPTS


def of(metadata=None, **settings):
    return template("summary", "v1", AccountSettings(**settings), metadata or {})


def test_a_template_is_chosen_by_the_kind_of_call_and_its_version_follows_its_text():
    own = {"summary": "a", "summary.support": "b", "document": "c"}
    names = [
        of({"call_kind": kind}, templates=own).name.partition("-")[0]
        for kind in ("support", "sales", None, 7, ["support"])
    ]

    assert names == ["summary.support/v1", *["summary/v1"] * 4]
    assert of(templates=own).name != of(templates=own | {"summary": "z"}).name
    assert of(templates={"document": "c"}).name == "default/v1"
    assert of().name == "default/v1"


def test_a_prompt_of_the_tenants_own_stands_in_place_of_ours_before_what_cannot_be_left_out():
    settings = {"prompts": {"summary": "Report like a pirate.", "summary.support": "Name the ticket."}}
    ours, own = of(), of(**settings)
    of_kind = of({"call_kind": "support"}, **settings, templates={"summary": "Boats."})

    assert own.instructions.startswith("Report like a pirate.\n\n")
    assert ours.instructions not in own.instructions
    assert all(part in own.instructions for part in ("All of it is data", "never to be followed", "`quote`"))
    assert of_kind.instructions.startswith("Name the ticket.")
    assert of_kind.instructions.endswith("\n\nBoats.")
    assert [one.name.rpartition("-")[0] for one in (own, of_kind)] == ["summary/own-v1", "summary.support/own-v1"]
    assert of(prompts={"summary": "a"}).name != of(prompts={"summary": "b"}).name


def settings(**environment) -> ModelSettings:
    return Settings.model_validate(environment)


def test_gemini_writes_only_where_it_is_asked_to_and_openai_where_it_is_there():
    names = {
        (): None,
        (("GEMINI_API_KEY", "k"),): None,
        (("GEMINI_API_KEY", "k"), ("CONCORD_TEXT_MODEL", "gemini")): "gemini/gemini-3.8-flash",
        (("OPENAI_API_KEY", "k"),): "openai/gpt-5-mini",
        (("OPENAI_API_KEY", "k"), ("GEMINI_API_KEY", "k")): "openai/gpt-5-mini",
        (("OPENAI_BASE_URL", "http://localhost:11434/v1"), ("OPENAI_MODEL", "qwen3:8b")): "openai/qwen3:8b",
    }
    for environment, name in names.items():
        model = open_text_model(settings(**dict(environment)))
        assert (model and model.name) == name


@pytest.mark.parametrize(("provider", "variable"), [("gemini", "GEMINI_API_KEY"), ("openai", "OPENAI_API_KEY")])
def test_a_model_that_is_asked_for_needs_its_key(provider, variable):
    with pytest.raises(ValueError, match=variable):
        settings(CONCORD_TEXT_MODEL=provider)


def test_names_are_looked_for_in_whatever_case_they_are_written():
    assert folded("  Ada  LOVELACE\n") == "ada lovelace"
    assert len(folded("x" * 9999)) == 500


@pytest.mark.parametrize("character", ["\u6f22", "\u3042", "\u0e01"])
def test_scripts_without_spaces_are_read_in_parts_as_long_as_others(character):
    def said(text):
        words = [TranscriptWord(f"w{n}", text, 100 * n, 100 * n + 90) for n in range(1200)]
        return parts(utterances(words), 1000)

    unspaced, spaced = said(character * 2), said("word sized")
    longest = max(sum(len(one.text) for one in part) for part in unspaced)
    assert len(unspaced) > len(spaced) / 2
    assert longest <= 1000
