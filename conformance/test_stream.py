"""The Concierge's stream, `sse.md`, through a reader that shares nothing with the server."""

from __future__ import annotations

from uuid import uuid4

import pytest
from copass_core import CopassClient

from support import sse
from support.common import SANDBOXES, new_agent
from support.rest import Rest, eventually
from support.server import Server
from support.shapes import TERMINAL

OVERVIEW = "What sandboxes and agents do I have? Anything need attention?"


def chat(rest: Rest, sandbox_id: str, message: str, session_id: str | None = None) -> bytes:
    """One turn; the whole body as it came."""
    with rest.stream(_path(sandbox_id), {"message": message, "session_id": session_id}) as answer:
        assert answer.status_code == 200, answer.read()
        return b"".join(answer.iter_raw())


def turn(rest: Rest, sandbox_id: str, message: str, session_id: str | None = None) -> sse.Turn:
    """One turn that went well."""
    turn = sse.check_turn(sse.read([chat(rest, sandbox_id, message, session_id)]))
    assert turn.end.event == "agent_finish", turn.end
    return turn


def _path(sandbox_id: str) -> str:
    return f"{SANDBOXES}/{sandbox_id}/concierge/chat"


@pytest.mark.wire("concierge.chat")
async def test_the_documented_question(owner: CopassClient, rest: Rest, server: Server) -> None:
    """The first example of the public documentation, with its path (no `/api/v1`)."""
    path = f"/storage/sandboxes/{server.sandbox_id}/concierge/chat"
    with rest.stream(path, {"message": OVERVIEW}) as answer:
        assert answer.status_code == 200
        frames = sse.read(answer.iter_raw())
    turn = sse.check_turn(frames)
    assert turn.end.data["stop_reason"] == "end_turn"
    assert turn.session_id
    assert turn.text
    run = await owner.agents.get_run(server.sandbox_id, turn.run_id)
    assert run["output_text"] == turn.text
    assert run["provider_session_id"] == turn.session_id
    (sandboxes,) = turn.results_of("list_sandboxes")
    assert sandboxes["count"] == (await owner.sandboxes.list())["count"]


def test_the_head_of_a_stream(rest: Rest, shared_sandbox: str) -> None:
    with rest.stream(_path(shared_sandbox), {"message": OVERVIEW}) as answer:
        headers = answer.headers
        answer.read()
    assert headers["content-type"].split(";")[0] == "text/event-stream"
    assert headers["cache-control"] in ("no-store", "no-cache")
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers
    assert "content-length" not in headers


async def test_every_byte_may_come_alone_or_in_any_company(owner: CopassClient, rest: Rest, sandbox: str) -> None:
    """Splitting the body at every offset changes nothing, not even in the middle of a character."""
    await owner.agents.create(sandbox, **new_agent(slug="pruefer", name="Prüfer 🚀"))
    body = chat(rest, sandbox, "What agents do I have?")
    assert not body.isascii(), "the name of the agent should be in the stream as UTF-8"
    whole = sse.read([body])
    assert sse.read([body[offset : offset + 1] for offset in range(len(body))]) == whole
    for offset in range(len(body)):
        assert sse.read([body[:offset], body[offset:]]) == whole
    windows = body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert sse.read([windows[offset : offset + 1] for offset in range(len(windows))]) == whole


def test_lines_end_as_every_parser_expects(rest: Rest, shared_sandbox: str) -> None:
    body = chat(rest, shared_sandbox, OVERVIEW)
    assert b"\r" not in body.replace(b"\r\n", b"\n"), "no parser knows a bare CR"
    assert body.endswith((b"\n\n", b"\r\n\r\n"))


def test_the_row_is_final_when_the_last_frame_comes(rest: Rest, shared_sandbox: str) -> None:
    reader = sse.Reader()
    seen: dict[str, str] = {}
    with rest.stream(_path(shared_sandbox), {"message": OVERVIEW}) as answer:
        for piece in answer.iter_raw():
            for frame in reader.feed(piece):
                if frame.event in ("run_started", "agent_finish"):
                    run = rest.call("GET", f"{SANDBOXES}/{shared_sandbox}/agents/runs/{frame.data['run_id']}")
                    seen[frame.event] = run["status"]
    reader.end()
    assert seen.keys() == {"run_started", "agent_finish"}, "the run can be read from its first frame on"
    assert seen["agent_finish"] == "succeeded"


def test_a_conversation_goes_on(rest: Rest, shared_sandbox: str) -> None:
    first = turn(rest, shared_sandbox, "What agents do I have?")
    second = turn(rest, shared_sandbox, "And which sources?", first.session_id)
    assert second.session_id == first.session_id
    assert second.run_id != first.run_id
    assert turn(rest, shared_sandbox, "What agents do I have?").session_id != first.session_id


async def test_a_later_turn_knows_the_earlier_ones(
    owner: CopassClient, rest: Rest, server: Server, sandbox: str
) -> None:
    """Creates an agent over several turns, which only works when each knows what was said before."""
    if not server.own:
        pytest.skip("the words are those of the built-in planner")
    slug = f"agent-{uuid4().hex[:8]}"
    asked = turn(rest, sandbox, f"Create an agent with the slug {slug}")
    assert "system prompt" in asked.text
    given = turn(rest, sandbox, "You sort incoming questions.", asked.session_id)
    if "create_agent" not in {call.data["name"] for call in given.calls.values()}:
        turn(rest, sandbox, "yes", given.session_id)
    agent = await owner.agents.retrieve(sandbox, slug)
    assert agent["system_prompt"] == "You sort incoming questions."


@pytest.mark.wire("concierge.chat", error=404)
def test_a_session_is_its_owners_in_its_sandbox(
    rest: Rest, guest_rest: Rest, shared_sandbox: str, sandbox: str, foreign_sandbox: str
) -> None:
    foreign = turn(guest_rest, foreign_sandbox, "Hello").session_id
    elsewhere = turn(rest, sandbox, "Hello").session_id
    for session_id in (foreign, elsewhere, "sess_01J9Z0000000000000000000AA", "nonsense"):
        body = {"message": "Hello", "session_id": session_id}
        rest.refused("POST", _path(shared_sandbox), 404, body)


def test_a_refusal_says_why_in_its_first_300_characters(rest: Rest, shared_sandbox: str) -> None:
    """Clients show no more of it."""
    text = rest.send("POST", _path(shared_sandbox), {"message": ""}).text
    assert "validation_error" in text[:300] and "message" in text[:300]


async def test_an_agent_made_elsewhere_is_seen(owner: CopassClient, rest: Rest, sandbox: str) -> None:
    agent = await owner.agents.create(sandbox, **new_agent())
    overview = turn(rest, sandbox, "What agents do I have?")
    (listed,) = overview.results_of("list_agents")
    assert [row["slug"] for row in listed["agents"]] == [agent["slug"]]


def test_a_client_that_leaves_leaves_no_run_behind(rest: Rest, shared_sandbox: str) -> None:
    """Whether the turn was faster or not, its run ends."""
    reader = sse.Reader()
    with rest.stream(_path(shared_sandbox), {"message": OVERVIEW}) as answer:
        started = next(frame for piece in answer.iter_raw() for frame in reader.feed(piece))
    path = f"{SANDBOXES}/{shared_sandbox}/agents/runs/{started.data['run_id']}"
    status = eventually(lambda: rest.call("GET", path)["status"], lambda status: status in TERMINAL, within_s=2)
    assert status in ("cancelled", "succeeded")
