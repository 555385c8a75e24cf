"""Routes that write: bodies are validated, bounded and documented by their declaration alone."""

from __future__ import annotations

import io
from dataclasses import replace

import jsonschema
import pytest

from tests.web.notes import EXAMPLE, Notes
from tests.web.service import ACME, BOLT, ROOT, Worker, problem, raw_response

NOTES = "/tenants/acme/notes"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def service():
    async with Worker(resources=[Notes()]) as service:
        yield service


async def add(service, body=EXAMPLE, headers=ACME, path=NOTES):
    return await service.client.post(path, json=body, headers=headers)


async def change(service, body, headers=ACME, path=f"{NOTES}/1"):
    return await service.client.patch(path, json=body, headers=headers)


async def test_a_note_is_added_changed_and_deleted(service):
    added = await add(service)
    changed = await change(service, {"text": "done"})
    deleted = await service.client.delete(f"{NOTES}/1", headers=ROOT)

    assert (added.status, added.headers["Location"]) == (201, f"{NOTES}/1")
    assert await added.json() == EXAMPLE | {"id": 1}
    assert (changed.status, await changed.json()) == (200, EXAMPLE | {"id": 1, "text": "done"})
    assert (deleted.status, await deleted.read()) == (204, b"")
    await problem(await change(service, {"text": "again"}), 404)


async def test_access_is_checked_before_the_body_is_validated(service):
    assert (await add(service)).status == 201
    await problem(await add(service, {"wrong": 1}, headers={}), 401)
    foreign = await problem(await add(service, {"wrong": 1}, headers=BOLT), 404)
    unknown = await problem(await add(service, {"wrong": 1}, headers=BOLT, path="/tenants/nobody/notes"), 404)

    assert foreign == unknown
    assert "operator" in (await problem(await service.client.delete(f"{NOTES}/1", headers=ACME), 403))["detail"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/text"]),
        ({"text": ""}, ["#/text"]),
        ({"text": 7}, ["#/text"]),
        ({"text": None}, ["#/text"]),
        ({"text": "x" * 101, "tags": ["good", "too long"]}, ["#/text", "#/tags/1"]),
        ({"text": "x", "a/b~c": 1}, ["#/a~1b~0c"]),
        ([], ["#"]),
    ],
)
async def test_every_wrong_field_is_named(service, body, pointers):
    refused = await problem(await add(service, body), 400)

    assert [error["pointer"] for error in refused["errors"]] == pointers
    assert all(error["detail"] and set(error) == {"pointer", "detail"} for error in refused["errors"])
    assert pointers[0].removeprefix("#/").removeprefix("#") in refused["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"text": "\xff"}', b'{"text": "a"} {}', b"NaN", b"[" * 400])
async def test_a_body_that_is_not_json_is_refused(service, body):
    refused = await problem(await service.client.post(NOTES, data=body, headers=ACME | JSON), 400)

    assert [error["pointer"] for error in refused["errors"]] == ["#"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
async def test_another_media_type_is_refused_with_the_one_that_is_accepted(service, media_type):
    response = await service.client.post(NOTES, data=b'{"text": "a"}', headers=ACME | {"Content-Type": media_type})

    assert "application/json" in (await problem(response, 415))["detail"]
    assert response.headers["Accept"] == "application/json"


async def test_a_media_type_may_have_parameters_and_a_route_may_take_several(service):
    await add(service)
    plain = await service.client.patch(
        f"{NOTES}/1", data=b"{}", headers=ACME | {"Content-Type": "application/json; charset=utf-8"}
    )
    merge = await service.client.patch(
        f"{NOTES}/1", data=b"{}", headers=ACME | {"Content-Type": "application/merge-patch+json"}
    )

    assert (plain.status, merge.status) == (200, 200)


async def test_each_route_has_its_own_limit_of_a_body(service):
    async def chunks(size):
        for _ in range(size // 100):
            yield b" " * 100

    for data in (b" " * 501, chunks(1000)):
        refused = await service.client.post(NOTES, data=data, headers=ACME | JSON)
        await problem(refused, 413)
    await add(service)
    large = await service.client.patch(
        f"{NOTES}/1", data=io.BytesIO(b"{}" + b" " * ((2 << 20) - 2)), headers=ACME | JSON
    )
    larger = await service.client.patch(f"{NOTES}/1", data=io.BytesIO(b"{}" + b" " * (2 << 20)), headers=ACME | JSON)

    assert large.status == 200
    await problem(larger, 413)


async def test_a_body_that_does_not_arrive_in_time_is_answered_with_408(service):
    head = f"PATCH {NOTES}/1 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: acme-key\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"

    assert (await raw_response(service, head.encode())).startswith(b"HTTP/1.1 408")


async def test_a_path_parameter_is_named_like_any_other(service):
    refused = await problem(await change(service, {}, path=f"{NOTES}/x"), 400)

    assert refused["errors"] == [{"parameter": "id", "detail": "use a whole number from 1 to 999"}]


async def test_the_document_has_all_methods_of_a_path_with_bodies_and_examples(service):
    document = await service.json("/openapi.json")
    notes, note = document["paths"]["/tenants/{tenant}/notes"], document["paths"]["/tenants/{tenant}/notes/{id}"]

    assert set(note) == {"patch", "delete"}
    assert set(notes["post"]["responses"]) == {"201", "400", "401", "403", "404", "413", "415", "429", "503"}
    assert set(note["delete"]["responses"]) == {"204", "400", "401", "403", "404", "429", "503"}
    assert set(note["patch"]["requestBody"]["content"]) == {"application/merge-patch+json", "application/json"}
    assert "requestBody" not in note["delete"]
    names = {parameter["name"]: parameter["in"] for parameter in note["patch"]["parameters"]}
    assert names == {"tenant": "path", "id": "path"}
    body = notes["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == EXAMPLE
    jsonschema.Draft202012Validator(body["schema"] | {"components": document["components"]}).validate(EXAMPLE)


async def test_two_routes_cannot_share_a_method_and_path_or_an_operation_id():
    with pytest.raises(ValueError, match="is declared twice"):
        Worker(resources=[Notes(), Notes()])


def test_a_route_whose_path_has_an_undeclared_parameter_is_refused():
    with pytest.raises(ValueError, match="'other'"):
        replace(Notes().routes()[0], path="/tenants/{tenant}/notes/{other}")


async def test_examples_in_the_document_keep_their_schemas(service):
    document = await service.json("/openapi.json")
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    bodies = [operation["requestBody"] for operation in operations if "requestBody" in operation]
    responses = [response for operation in operations for response in operation["responses"].values()]
    contents = [content for part in bodies + responses for content in part.get("content", {}).values()]
    examples = [content for content in contents if "example" in content]

    assert len(examples) > 9
    for content in examples:
        whole = content["schema"] | {"components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(content["example"])
