"""`client.agents.list_runs` and `get_run`, `rest.md` 12.B. The runs are turns of the Concierge."""

from __future__ import annotations

from typing import Any

import pytest
from copass_core import CopassClient

from support.common import new_agent
from support.errors import fields, refused
from support.rest import Rest
from support.shapes import RUN, TERMINAL, TRACE, check, check_list

UNKNOWN = "rn_01J9Z0000000000000000000AA"


def run_of(rest: Rest, sandbox_id: str) -> str:
    """The id of a new, finished run in the sandbox."""
    turn = rest.call("POST", f"/storage/sandboxes/{sandbox_id}/concierge/test", {"message": "What agents do I have?"})
    return str(turn["run_id"])


@pytest.mark.sdk("agents.list_runs")
async def test_a_new_agent_has_no_runs(owner: CopassClient, shared_sandbox: str) -> None:
    """Rows can be looked at when agents can be run: `agents.test_fire` is not served yet."""
    agent = await owner.agents.create(shared_sandbox, **new_agent())
    for limit in (None, 1, 1000):
        answer = await owner.agents.list_runs(shared_sandbox, agent["slug"], limit=limit)
        assert check_list(answer, "runs", RUN, further=["agent_slug"]) == []
        assert answer["agent_slug"] == agent["slug"]


@pytest.mark.sdk("agents.list_runs", error=404)
async def test_runs_of_an_unknown_agent(
    owner: CopassClient, shared_sandbox: str, sandbox: str, foreign_sandbox: str
) -> None:
    elsewhere = await owner.agents.create(sandbox, **new_agent())
    await refused(owner.agents.list_runs(shared_sandbox, elsewhere["slug"]), 404)
    await refused(owner.agents.list_runs(foreign_sandbox, "nobody"), 404)


@pytest.mark.sdk("agents.list_runs", error=422)
async def test_a_limit_is_a_number(owner: CopassClient, shared_sandbox: str) -> None:
    agent = await owner.agents.create(shared_sandbox, **new_agent())
    limit: Any = "many"
    body = await refused(owner.agents.list_runs(shared_sandbox, agent["slug"], limit=limit), 422)
    assert fields(body) == {"query.limit"}


@pytest.mark.sdk("agents.get_run")
async def test_a_run_with_its_trace(owner: CopassClient, rest: Rest, shared_sandbox: str) -> None:
    run_id = run_of(rest, shared_sandbox)
    run = await owner.agents.get_run(shared_sandbox, run_id)
    check(run, RUN)
    assert run["run_id"] == run_id
    assert run["sandbox_id"] == shared_sandbox
    assert run["status"] in TERMINAL
    assert run["started_at"] <= run["finished_at"]
    check(run["tool_resolution_trace"], TRACE)
    assert "list_agents" in run["tool_resolution_trace"]["tool_names_advertised"]


@pytest.mark.sdk("agents.get_run", error=404)
async def test_runs_of_elsewhere(
    owner: CopassClient, rest: Rest, guest_rest: Rest, shared_sandbox: str, sandbox: str, foreign_sandbox: str
) -> None:
    foreign = run_of(guest_rest, foreign_sandbox)
    for sandbox_id, run_id in (
        (foreign_sandbox, foreign),
        (shared_sandbox, foreign),
        (shared_sandbox, run_of(rest, sandbox)),
        (shared_sandbox, UNKNOWN),
        (shared_sandbox, "nonsense"),
    ):
        await refused(owner.agents.get_run(sandbox_id, run_id), 404)
