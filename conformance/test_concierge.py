"""The Concierge's single turns, `rest.md` 15.1, and what both of its routes refuse."""

from __future__ import annotations

from typing import Any

import pytest
from copass_core import CopassClient

from support.common import SANDBOXES
from support.errors import fields
from support.people import Person
from support.rest import Rest
from support.server import Server
from support.shapes import CONCIERGE_TEST, check

LONGEST = 4000


@pytest.mark.wire("concierge.test")
async def test_the_documented_question(owner: CopassClient, rest: Rest, server: Server) -> None:
    """The second example of the public documentation, with its path (no `/api/v1`)."""
    path = f"/storage/sandboxes/{server.sandbox_id}/concierge/test"
    turn = rest.call("POST", path, {"message": "What sandboxes do I have?"})
    check(turn, CONCIERGE_TEST)
    assert turn["status"] == "succeeded"
    assert turn["error_message"] is None
    run = await owner.agents.get_run(server.sandbox_id, turn["run_id"])
    assert (run["status"], run["output_text"]) == ("succeeded", turn["output_text"])
    sandbox = await owner.sandboxes.retrieve(server.sandbox_id)
    assert sandbox["name"] in turn["output_text"] or server.sandbox_id in turn["output_text"]


@pytest.mark.parametrize(
    "route",
    [
        pytest.param("test", marks=pytest.mark.wire("concierge.test", error=422)),
        pytest.param("chat", marks=pytest.mark.wire("concierge.chat", error=422)),
    ],
)
@pytest.mark.parametrize(
    "body", [{"message": ""}, {"message": "a" * (LONGEST + 1)}, {"message": None}, {"message": ["a"]}, {}]
)
def test_a_message_has_1_to_4000_characters(rest: Rest, shared_sandbox: str, route: str, body: dict[str, Any]) -> None:
    answer = rest.refused("POST", f"{SANDBOXES}/{shared_sandbox}/concierge/{route}", 422, body)
    assert fields(answer) == {"body.message"}


def test_the_longest_message_is_taken_and_counted_in_characters(rest: Rest, shared_sandbox: str) -> None:
    message = "Hello " + "ä" * (LONGEST - 6)
    turn = rest.call("POST", f"{SANDBOXES}/{shared_sandbox}/concierge/test", {"message": message})
    check(turn, CONCIERGE_TEST)


@pytest.mark.parametrize("route", ["test", "chat"])
def test_who_may_not_ask(rest: Rest, anonymous: Rest, foreign_sandbox: str, shared_sandbox: str, route: str) -> None:
    body = {"message": "Hello"}
    rest.refused("POST", f"{SANDBOXES}/{foreign_sandbox}/concierge/{route}", 404, body)
    rest.refused("POST", f"{SANDBOXES}/sb_01J9Z0000000000000000000AA/concierge/{route}", 404, body)
    anonymous.refused("POST", f"{SANDBOXES}/{shared_sandbox}/concierge/{route}", 401, body)


@pytest.mark.parametrize("route", ["test", "chat"])
async def test_a_suspended_sandbox_runs_nothing(owner: CopassClient, rest: Rest, sandbox: str, route: str) -> None:
    await owner.sandboxes.suspend(sandbox)
    answer = rest.refused("POST", f"{SANDBOXES}/{sandbox}/concierge/{route}", 409, {"message": "Hello"})
    assert answer["error"] == "sandbox_not_active"


async def test_a_viewers_concierge_has_no_tool_that_changes(
    owner: CopassClient, guest: CopassClient, guest_person: Person, guest_rest: Rest, rest: Rest, sandbox: str
) -> None:
    """Decided before the model sees the catalogue, so the trace of the run shows it."""

    async def advertised(asker: Rest, client: CopassClient) -> set[str]:
        turn = asker.call("POST", f"{SANDBOXES}/{sandbox}/concierge/test", {"message": "What agents do I have?"})
        run = await client.agents.get_run(sandbox, turn["run_id"])
        return set(run["tool_resolution_trace"]["tool_names_advertised"])

    async def as_guest(role: str) -> set[str]:
        grant = await owner.sandbox_connections.create(sandbox, role=role, user_id=guest_person.user_id)
        names = await advertised(guest_rest, guest)
        await owner.sandbox_connections.revoke(sandbox, grant["connection_id"])
        return names

    whole = await advertised(rest, owner)
    viewer = await as_guest("viewer")
    assert "create_agent" in whole
    assert {name for name in viewer if not name.startswith(("list_", "get_"))} == set()
    assert viewer < whole
    assert await as_guest("editor") == whole
