"""Path and query parameters: what is accepted, and how the rest is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import Field
from yarl import URL

from schemas.errors import InvalidInput, NotFound
from tests.web.service import BOLT, ROOT, Worker, problem
from web import parameters
from web.parameters import Header, Parameters, job_name, read_parameters, tenant_name
from web.problems import InvalidRequest
from web.resources.jobs.listing import JobListParameters

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


def page_of(query):
    url = str(URL("/tenants/acme/jobs").with_query(query))
    return read_parameters(JobListParameters, make_mocked_request("GET", url, match_info={"tenant": "acme"}))


@pytest.mark.parametrize("text", ["0", "501", "-1", "1e3", "1.5", "١", "9" * 30, " 1", "x", "0x10", "+1"])  # noqa: RUF001
def test_a_number_out_of_its_range_is_refused_with_the_range(text):
    with pytest.raises(InvalidInput, match="limit: use a whole number from 1 to 500"):
        page_of({"limit": text})


def test_a_number_that_is_not_given_is_the_default():
    assert page_of({}).limit == 50
    assert page_of({"limit": ""}).limit == 50
    assert page_of({"limit": "", "cursor": "", "status": ""}).cursor is None
    assert page_of({"limit": "500"}).limit == 500


@pytest.mark.parametrize("text", ["", " ", "x" * 256, "a\x00", "a\n", "\u202ea", "\ud800"])
def test_a_name_that_no_job_can_have_is_answered_like_an_unknown_one(text):
    with pytest.raises(NotFound, match=r"^there is no such job$"):
        job_name(text)


@pytest.mark.parametrize("text", ["..", "a/b", "a b", "é", "-a", "%2e"])
def test_a_reference_may_be_any_printable_text(text):
    assert job_name(text) == text


@pytest.mark.parametrize(
    "text", ["", "..", "a/b", "a b", ".a", "a.", "a..b", "x" * 129, "a\x00", "é", "-a", "%2e", "a\n"]
)
def test_a_name_that_no_tenant_can_have_is_answered_like_an_unknown_one(text):
    with pytest.raises(NotFound, match=r"^there is no such tenant$"):
        tenant_name(text)


def test_of_a_repeated_parameter_the_first_counts():
    assert page_of([("limit", "7"), ("limit", "8")]).limit == 7


def test_unknown_parameters_are_refused_with_the_names_that_there_are():
    with pytest.raises(InvalidRequest) as refused:
        page_of([("limt", "7"), ("limt", "8"), ("tenant", "bolt")])

    assert [field.parameter for field in refused.value.fields] == ["limt", "tenant"]
    detail = refused.value.fields[0].detail
    assert detail.startswith("there is no such parameter here; there are: completed_from, completed_to, ")
    assert detail.endswith(", reference, reference_prefix, status")


class Conditional(Parameters):
    tenant: str
    version: Annotated[int | None, Header("If-Version")] = Field(None, ge=1)


def test_a_header_is_a_parameter_by_the_name_of_the_header_only():
    def read(query="", **headers):
        request = make_mocked_request("PUT", f"/{query}", headers, match_info={"tenant": "acme"})
        return read_parameters(Conditional, request)

    assert read(**{"if-version": "3"}).version == 3
    assert read().version is None
    with pytest.raises(InvalidRequest, match="If-Version: "):
        read(**{"If-Version": "0"})
    with pytest.raises(InvalidRequest, match="there is no such parameter here; there are: none"):
        read("?version=3")


def test_all_wrong_parameters_are_named():
    with pytest.raises(InvalidRequest) as refused:
        page_of({"limit": "0", "cursor": "x", "status": "done"})

    assert [field.parameter for field in refused.value.fields] == ["status", "limit", "cursor"]


async def test_parameters_that_are_asked_for_again_are_read_once_and_are_each_requests_own(monkeypatch):
    monkeypatch.setattr(parameters, "_recent", {})
    monkeypatch.setattr(parameters, "REMEMBERED", 3)
    read, validated = parameters._read, []
    monkeypatch.setattr(parameters, "_read", lambda model, request: validated.append(model) or read(model, request))
    async with Worker() as service:
        for tenant in ("acme", "bolt"):
            await service.created("j", tenant, reference="same")
        for _ in range(3):
            assert (await service.json("/jobs/j/status"))["tenant_id"] == "acme"
            assert (await service.json("/jobs/j/status", BOLT))["tenant_id"] == "bolt"
            assert (await service.json("/jobs/j/status?tenant=bolt", ROOT))["tenant_id"] == "bolt"
            await problem(await service.get("/jobs/j/status?tenant=bolt"), 404)
        assert len(validated) == 2  # without and with a tenant, whoever asks
        for wrong in ("?tenant=bolt&x=1", "?x=1"):
            for _ in range(2):
                await problem(await service.get(f"/jobs/j/status{wrong}"), 400)
        for number in range(9):
            await service.get(f"/jobs/j{number}/status")
        assert len(parameters._recent) == 3
