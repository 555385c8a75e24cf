"""Templates of mails: what they may show, and what they cannot do."""

from __future__ import annotations

import pytest

from agents.reports.rendering import Renderer
from agents.reports.templates import DEFAULTS, check, rendered
from schemas.errors import InvalidInput

VALUES = {
    "title": "A <call>",
    "language": "en",
    "facts": [{"name": "Length", "value": "1:00"}],
    "speakers": [],
    "about": ["No summary."],
    "sections": [
        {"heading": "Action items", "items": [{"time": "0:05", "text": "call <back>", "disputed": True, "link": None}]}
    ],
    "quality": [],
    "notes": [],
    "tenant_id": "t",
    "job_id": "j",
    "reference": "",
    "filename": "call.wav",
    "run": 1,
    "version": 1,
    "attached": True,
    "link": "",
}


def test_the_default_templates_say_what_the_report_does():
    parts = rendered({}, VALUES)

    assert parts["subject"] == "A <call>"
    assert "0:05  call <back> (rests on disputed words)" in parts["text"]
    assert "call &lt;back&gt;" in parts["html"]
    for part, source in DEFAULTS.items():
        check(part, source)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ titel }}", "there is no titel"),
        ("{% for x in y %}{% endfor %}", "there is no y"),
        ("{{ title", "is no template"),
        ("{% include 'x' %}{{ config }}", "there is no config"),
        ("(" * 9 + "{{ " + "(" * 900 + "1" + ")" * 900 + " }}", "nested too deeply|is no template"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused_when_it_is_set(source, reason):
    with pytest.raises(InvalidInput, match=reason):
        check("text", source)


def test_a_template_may_name_what_it_makes_itself():
    check("html", "{% set n = 2 %}{% for fact in facts %}{{ loop.index }} {{ fact.name }} {{ n }}{% endfor %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ title.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__ }}",
        "{{ facts.append(1) }}",
        "{{ range(10**9) | list }}",
        "{% include '/etc/passwd' %}",
        "{{ about[99] }}",
        "{{ 1 // 0 }}",
        "{{ title * 10**6 }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source):
    with pytest.raises(InvalidInput):
        rendered({"text": source}, VALUES)


def test_a_subject_is_one_line():
    parts = rendered({"subject": "a\r\nBcc: x@y.example\n\n{{ title }}" + "z" * 500}, VALUES)

    assert parts["subject"].startswith("a Bcc: x@y.example A <call>")
    assert len(parts["subject"]) == 200
    assert parts["subject"].isprintable()


@pytest.mark.slow
async def test_a_template_that_comes_to_no_end_is_ended(monkeypatch):
    renderer = Renderer()
    try:
        assert (await renderer.mail({}, VALUES))["subject"] == "A <call>"
        with pytest.raises(InvalidInput):
            await renderer.mail({"text": "{{ 'x' * 10**10 }}"}, VALUES)
        monkeypatch.setattr("agents.reports.rendering.MAIL_S", 1.0)
        endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        with pytest.raises(InvalidInput, match="not rendered within"):
            await renderer.mail({"text": endless}, VALUES)
    finally:
        await renderer.close()
