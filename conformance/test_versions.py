"""The numbered states of an agent; routes of this server's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from copass_core import CopassClient

from support.common import MODEL_SETTINGS, agents_of, new_agent
from support.errors import fields
from support.people import Person
from support.rest import Rest
from support.shapes import AGENT, AGENT_VERSION, FIELD_CHANGE, check, check_list

PROMPTS = ["You answer questions.", "You answer briefly.", "You answer at length."]


@pytest.fixture
def path(rest: Rest, shared_sandbox: str) -> str:
    """An agent with three versions, which differ in their prompts; the third in its turns too."""
    base = agents_of(shared_sandbox)
    path = f"{base}/{rest.call('POST', base, new_agent(system_prompt=PROMPTS[0]))['slug']}"
    rest.call("PATCH", path, {"system_prompt": PROMPTS[1]})
    settings = {**MODEL_SETTINGS, "max_turns": 3}
    rest.call("PATCH", path, {"system_prompt": PROMPTS[2], "model_settings": settings})
    return path


@pytest.mark.wire("versions.list")
async def test_every_change_is_a_version(owner: CopassClient, rest: Rest, path: str) -> None:
    answer = rest.call("GET", f"{path}/versions")
    versions = check_list(answer, "versions", AGENT_VERSION, further=["agent_slug"])
    assert answer["agent_slug"] == path.rsplit("/", 1)[1]
    assert [version["version"] for version in versions] == [3, 2, 1], "newest first"
    assert versions[1]["changed"] == ["system_prompt"]
    assert set(versions[0]["changed"]) == {"system_prompt", "model_settings.max_turns"}
    me = (await owner.users.get_profile())["user_id"]
    assert {version["created_by"] for version in versions} == {me}


@pytest.mark.wire("versions.list")
def test_the_list_has_pages(rest: Rest, path: str) -> None:
    def numbers(query: str) -> list[int]:
        answer = rest.call("GET", f"{path}/versions?{query}")
        return [version["version"] for version in check_list(answer, "versions", AGENT_VERSION, ["agent_slug"])]

    assert numbers("limit=2") == [3, 2]
    assert numbers("limit=2&before=2") == [1]
    assert numbers("before=1") == []
    assert fields(rest.refused("GET", f"{path}/versions?before=first", 422)) == {"query.before"}


@pytest.mark.wire("versions.get")
def test_an_old_version_is_the_agent_as_it_was(rest: Rest, path: str) -> None:
    for number, prompt in enumerate(PROMPTS, 1):
        version = rest.call("GET", f"{path}/versions/{number}")
        check(version, AGENT_VERSION)
        check(version["agent"], AGENT)
        assert (version["version"], version["agent"]["version"]) == (number, number)
        assert version["agent"]["system_prompt"] == prompt
    assert version["agent"] == rest.call("GET", path)


@pytest.mark.wire("versions.get", error=404)
@pytest.mark.parametrize("number", ["4", "0", "first", "99999999999999999999"])
def test_an_unknown_version(rest: Rest, path: str, number: str) -> None:
    rest.refused("GET", f"{path}/versions/{number}", 404)


@pytest.mark.wire("versions.diff")
def test_what_differs_between_two_versions(rest: Rest, path: str) -> None:
    def changes(query: str) -> list[dict[str, Any]]:
        answer = rest.call("GET", f"{path}/versions/diff?{query}")
        found: list[dict[str, Any]] = answer["changes"]
        for change in found:
            check(change, FIELD_CHANGE)
        return found

    assert changes("from=1&to=2") == [{"field": "system_prompt", "before": PROMPTS[0], "after": PROMPTS[1]}]
    assert changes("from=2&to=1") == [{"field": "system_prompt", "before": PROMPTS[1], "after": PROMPTS[0]}]
    to_now = {change["field"]: (change["before"], change["after"]) for change in changes("from=1")}
    assert to_now == {"system_prompt": (PROMPTS[0], PROMPTS[2]), "model_settings.max_turns": (None, 3)}
    assert changes("from=2&to=2") == []


@pytest.mark.wire("versions.diff", error=422)
def test_a_difference_is_from_somewhere(rest: Rest, path: str) -> None:
    assert fields(rest.refused("GET", f"{path}/versions/diff", 422)) == {"query.from"}
    assert fields(rest.refused("GET", f"{path}/versions/diff?from=first", 422)) == {"query.from"}
    rest.refused("GET", f"{path}/versions/diff?from=1&to=9", 404)


@pytest.mark.wire("versions.roll_back")
def test_rolling_back_makes_a_new_version(rest: Rest, path: str) -> None:
    answer = rest.call("POST", f"{path}/rollback", {"to_version": 1})
    check(answer, AGENT)
    assert (answer["version"], answer["system_prompt"]) == (4, PROMPTS[0])
    assert answer["model_settings"].get("max_turns") is None
    newest, *rest_of_them = rest.call("GET", f"{path}/versions")["versions"]
    assert newest["rolled_back_to"] == 1
    assert [version["version"] for version in rest_of_them] == [3, 2, 1], "history stays"
    assert rest.call("GET", f"{path}/versions/diff?from=1&to=4")["changes"] == []


@pytest.mark.wire("versions.roll_back", error=404)
def test_rolling_back_needs_a_version(rest: Rest, path: str) -> None:
    rest.refused("POST", f"{path}/rollback", 404, {"to_version": 9})
    for body in ({}, {"to_version": "first"}):
        assert fields(rest.refused("POST", f"{path}/rollback", 422, body)) == {"body.to_version"}
    assert rest.call("GET", path)["version"] == 3


ROUTES: list[Callable[[Rest, str, int], Any]] = [
    lambda caller, path, status: caller.refused("GET", f"{path}/versions", status),
    lambda caller, path, status: caller.refused("GET", f"{path}/versions/1", status),
    lambda caller, path, status: caller.refused("GET", f"{path}/versions/diff?from=1", status),
    lambda caller, path, status: caller.refused("POST", f"{path}/rollback", status, {"to_version": 1}),
]


@pytest.mark.wire("versions.list", error=404)
@pytest.mark.wire("versions.get", error=404)
@pytest.mark.wire("versions.diff", error=404)
@pytest.mark.wire("versions.roll_back", error=404)
def test_history_is_the_sandboxs_own(
    rest: Rest, guest_rest: Rest, anonymous: Rest, shared_sandbox: str, path: str
) -> None:
    for route in ROUTES:
        route(guest_rest, path, 404)
        route(rest, f"{agents_of(shared_sandbox)}/nobody", 404)
        route(anonymous, path, 401)


@pytest.mark.wire("versions.roll_back", error=403)
async def test_a_viewer_reads_and_does_not_roll_back(
    owner: CopassClient, guest_rest: Rest, guest_person: Person, sandbox: str
) -> None:
    slug = (await owner.agents.create(sandbox, **new_agent()))["slug"]
    await owner.sandbox_connections.create(sandbox, role="viewer", user_id=guest_person.user_id)
    path = f"{agents_of(sandbox)}/{slug}"
    assert guest_rest.call("GET", f"{path}/versions")["count"] == 1
    guest_rest.refused("POST", f"{path}/rollback", 403, {"to_version": 1})
