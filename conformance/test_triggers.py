"""`client.agents.triggers`: list, and what can be said of retrieve before triggers can be made; `rest.md` 13."""

from __future__ import annotations

import pytest
from copass_core import CopassClient

from support.common import new_agent
from support.errors import fields, refused
from support.shapes import TRIGGER, check_list

UNKNOWN = "tr_01J9Z0000000000000000000AA"


@pytest.mark.sdk("agents.triggers.list")
async def test_a_new_agent_has_no_triggers(owner: CopassClient, shared_sandbox: str) -> None:
    """Rows can be looked at when triggers can be made: `agents.triggers.create` is not served yet."""
    agent = await owner.agents.create(shared_sandbox, **new_agent())
    for status in (None, "active", "paused", "disabled"):
        answer = await owner.agents.triggers.list(shared_sandbox, agent["slug"], status=status)
        assert check_list(answer, "triggers", TRIGGER, further=["agent_slug"]) == []
        assert answer["agent_slug"] == agent["slug"]


@pytest.mark.sdk("agents.triggers.list", error=404)
async def test_triggers_of_an_unknown_agent(
    owner: CopassClient, shared_sandbox: str, sandbox: str, foreign_sandbox: str
) -> None:
    elsewhere = await owner.agents.create(sandbox, **new_agent())
    await refused(owner.agents.triggers.list(shared_sandbox, elsewhere["slug"]), 404)
    await refused(owner.agents.triggers.list(foreign_sandbox, "nobody"), 404)


@pytest.mark.sdk("agents.triggers.list", error=422)
async def test_list_refuses_an_unknown_status(owner: CopassClient, shared_sandbox: str) -> None:
    agent = await owner.agents.create(shared_sandbox, **new_agent())
    body = await refused(owner.agents.triggers.list(shared_sandbox, agent["slug"], status="asleep"), 422)
    assert fields(body) == {"query.status"}


@pytest.mark.sdk("agents.triggers.retrieve", error=404)
async def test_an_unknown_trigger(owner: CopassClient, shared_sandbox: str, foreign_sandbox: str) -> None:
    agent = await owner.agents.create(shared_sandbox, **new_agent())
    for sandbox_id, slug, trigger_id in (
        (shared_sandbox, agent["slug"], UNKNOWN),
        (shared_sandbox, agent["slug"], "nonsense"),
        (shared_sandbox, "nobody", UNKNOWN),
        (foreign_sandbox, agent["slug"], UNKNOWN),
    ):
        await refused(owner.agents.triggers.retrieve(sandbox_id, slug, trigger_id), 404)
