"""The OpenAPI document, and that answers keep it."""

from __future__ import annotations

import jsonschema

from tests.web.service import (
    problem,
)


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


async def test_the_openapi_document_names_every_route_and_every_reference_in_it_leads_somewhere(worker):
    document = await worker.json("/openapi.json")
    routes = {r.resource.canonical for r in worker.app.router.routes()} - {"/", "/docs"}

    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {route for route in routes if not route.startswith("/static/")}
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    operations = [path["get"] for path in document["paths"].values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)


async def test_answers_keep_the_schemas_of_the_document(worker):
    await worker.created()
    await worker.created("other")
    await worker.finished()
    document = await worker.json("/openapi.json")
    examples = {
        "/jobs/{id}/status": "/jobs/j/status",
        "/jobs/{id}/transcript": "/jobs/j/transcript",
        "/jobs/{id}/transcript/raw": "/jobs/j/transcript/raw",
        "/tenants/{tenant}/jobs": "/tenants/acme/jobs?limit=1",
        "/tenants": "/tenants",
        "/healthz": "/healthz",
    }
    for route, path in examples.items():
        schema = document["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        whole = schema | {"components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(await worker.json(path))
        missing = await problem(await worker.get("/jobs/unknown/status"), 404)
    errors = document["paths"]["/jobs/{id}/status"]["get"]["responses"]["404"]["content"]["application/problem+json"]
    jsonschema.Draft202012Validator(errors["schema"] | {"components": document["components"]}).validate(missing)
