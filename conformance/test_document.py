"""What `/openapi.json` says of values is what the server does: words and bounds are accepted, what lies outside is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.common import MODEL_SETTINGS, agents_of, new_agent
from support.errors import fields
from support.rest import Rest

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(anonymous: Rest) -> Document:
    found: Document = anonymous.call("GET", "/openapi.json")
    return found


def resolved(document: Document, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, of one that is a reference or may be null."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return resolved(document, document["components"]["schemas"][name])
    for variant in schema.get("oneOf", []):
        if variant.get("type") != "null":
            return resolved(document, variant)
    return schema


def field(document: Document, schema: str, name: str) -> dict[str, Any]:
    return resolved(document, document["components"]["schemas"][schema]["properties"][name])


def values(schema: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    """Values at the bounds of a schema and beyond, and whether they lie within."""
    if "enum" in schema:
        yield from ((word, True) for word in schema["enum"])
        yield "no-such-word", False
    for bound, step in (("minimum", -1), ("maximum", 1)):
        if bound in schema:
            yield schema[bound], True
            yield schema[bound] + step, False


@pytest.fixture(scope="module")
def path(rest: Rest, shared_sandbox: str) -> str:
    base = agents_of(shared_sandbox)
    return f"{base}/{rest.call('POST', base, new_agent())['slug']}"


@pytest.mark.parametrize("name", ["backend", "temperature", "max_tokens", "max_turns", "timeout_s"])
def test_settings_of_a_model(rest: Rest, path: str, document: Document, name: str) -> None:
    tried = list(values(field(document, "ModelSettingsInput", name)))
    assert {fits for _, fits in tried} == {True, False}, "the document says no bounds"
    for value, fits in tried:
        answer = rest.send("PATCH", path, {"model_settings": {**MODEL_SETTINGS, name: value}})
        assert answer.status_code == (200 if fits else 422), f"{name} {value!r}: {answer.text}"


def test_the_status_of_an_agent(rest: Rest, path: str, document: Document) -> None:
    for word, fits in values(field(document, "UpdateAgentRequest", "status")):
        answer = rest.send("PATCH", path, {"status": word})
        assert answer.status_code == (200 if fits else 422), f"{word}: {answer.text}"
    rest.call("PATCH", path, {"status": "active"})


@pytest.mark.parametrize(
    ("route", "rest_of_path", "name"),
    [
        ("agents", "", "status"),
        ("agents/{slug}/runs", "/runs", "status"),
        ("agents/{slug}/runs", "/runs", "agent_version"),
        ("agents/{slug}/triggers", "/triggers", "status"),
        ("agents/{slug}/versions", "/versions", "before"),
        ("usage", "", "group_by"),
    ],
)
def test_queries(rest: Rest, path: str, document: Document, route: str, rest_of_path: str, name: str) -> None:
    operation = document["paths"][f"/storage/sandboxes/{{sandbox_id}}/{route}"]["get"]
    schema = next(parameter["schema"] for parameter in operation["parameters"] if parameter["name"] == name)
    schema = resolved(document, schema)
    tried = list(values(resolved(document, schema.get("items", schema))))
    assert {fits for _, fits in tried} == {True, False}, "the document says no bounds"
    base = path.rsplit("/", 1)[0]
    place = {"agents": base, "usage": f"{base.rsplit('/', 1)[0]}/usage"}.get(route, f"{path}{rest_of_path}")
    for value, fits in tried:
        answer = rest.send("GET", f"{place}?{name}={value}")
        assert answer.status_code == (200 if fits else 422), f"{name}={value}: {answer.text}"


def test_a_message_to_the_concierge(rest: Rest, shared_sandbox: str, document: Document) -> None:
    schema = field(document, "ConciergeTestRequest", "message")
    assert schema["minLength"] == 1
    for message in ("", "a" * (schema["maxLength"] + 1)):
        body = rest.refused("POST", f"/storage/sandboxes/{shared_sandbox}/concierge/test", 422, {"message": message})
        assert fields(body) == {"body.message"}


def test_the_slug_of_an_agent(rest: Rest, shared_sandbox: str, document: Document) -> None:
    schema = field(document, "CreateAgentRequest", "slug")
    assert schema["pattern"] == "^[a-z0-9-]+$"
    for slug in ("", "Not-One", "a_b", "a" * (schema["maxLength"] + 1)):
        body = rest.refused("POST", agents_of(shared_sandbox), 422, new_agent(slug=slug))
        assert fields(body) == {"body.slug"}
