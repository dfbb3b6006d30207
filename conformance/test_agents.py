"""`client.agents`: create, list, retrieve; `rest.md` 12."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from copass_core import DEFAULT_MODEL_BY_BACKEND, CopassClient

from support.common import MODEL_SETTINGS, new_agent
from support.errors import fields, refused
from support.rest import Rest
from support.shapes import AGENT, check, check_list


@pytest.mark.sdk("agents.create")
async def test_create_echoes_what_was_given(owner: CopassClient, shared_sandbox: str) -> None:
    given = new_agent(
        name="Prüfer 🚀",
        description="Checks things.",
        system_prompt="Erste Zeile\nZweite Zeile",
        tool_allowlist=["search", "pd_slack_v2_slack_v2-add-reaction"],
        model_settings={
            "backend": "google",
            "model": "gemini-2.5-flash",
            "temperature": 0.5,
            "max_tokens": 1000,
            "max_turns": 7,
            "timeout_s": 90,
        },
    )
    agent = await owner.agents.create(shared_sandbox, **given)
    check(agent, AGENT)
    assert agent["sandbox_id"] == shared_sandbox
    assert agent["status"] == "active"
    assert agent["version"] == 1
    assert agent["tool_sources"] is None
    settings = given.pop("model_settings")
    assert settings.items() <= agent["model_settings"].items()
    assert {key: agent[key] for key in given} == given


@pytest.mark.sdk("agents.create")
@pytest.mark.parametrize(("backend", "model"), DEFAULT_MODEL_BY_BACKEND.items())
async def test_each_backend_has_a_default_model(
    owner: CopassClient, shared_sandbox: str, backend: str, model: str
) -> None:
    agent = await owner.agents.create(shared_sandbox, **new_agent(model_settings={"backend": backend}))
    check(agent, AGENT)
    assert (agent["model_settings"]["backend"], agent["model_settings"]["model"]) == (backend, model)
    # No public client sends it, so the server must know what goes with hermes (gaps.md G23).
    assert agent["model_settings"].get("compute_provider") == ("e2b" if backend == "hermes" else None)


async def test_settings_and_allowlist_may_be_left_out(rest: Rest, shared_sandbox: str) -> None:
    body = {key: value for key, value in new_agent().items() if key in ("slug", "name", "system_prompt")}
    agent = rest.call("POST", f"/storage/sandboxes/{shared_sandbox}/agents", body)
    check(agent, AGENT)
    assert agent["tool_allowlist"] == []
    assert MODEL_SETTINGS.items() <= agent["model_settings"].items()


@pytest.mark.sdk("agents.create", error=409)
async def test_a_slug_is_unique(owner: CopassClient, shared_sandbox: str, sandbox: str) -> None:
    given = new_agent()
    await owner.agents.create(shared_sandbox, **given)
    await refused(owner.agents.create(shared_sandbox, **given), 409, "conflict")
    await owner.agents.create(sandbox, **given)


@pytest.mark.sdk("agents.create", error=422)
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"slug": "Not A Slug"}, "body.slug"),
        ({"slug": ""}, "body.slug"),
        ({"slug": "runs"}, "body.slug"),
        ({"name": ""}, "body.name"),
        ({"system_prompt": ""}, "body.system_prompt"),
        ({"tool_allowlist": [""]}, "body.tool_allowlist"),
        ({"model_settings": {**MODEL_SETTINGS, "backend": "abacus"}}, "body.model_settings.backend"),
        ({"model_settings": {**MODEL_SETTINGS, "temperature": 2.5}}, "body.model_settings.temperature"),
        ({"model_settings": {**MODEL_SETTINGS, "max_turns": 0}}, "body.model_settings.max_turns"),
        ({"model_settings": {**MODEL_SETTINGS, "max_tokens": "many"}}, "body.model_settings.max_tokens"),
        ({"model_settings": []}, "body.model_settings"),
    ],
)
async def test_create_names_the_wrong_field(
    owner: CopassClient, shared_sandbox: str, wrong: dict[str, Any], place: str
) -> None:
    assert fields(await refused(owner.agents.create(shared_sandbox, **new_agent(**wrong)), 422)) == {place}


@pytest.mark.sdk("agents.create", error=400)
async def test_a_secret_in_a_prompt_is_refused_and_not_repeated(owner: CopassClient, shared_sandbox: str) -> None:
    secret = "ghp_" + uuid4().hex + "0123"
    given = new_agent(system_prompt=f"Use the token {secret}.")
    body = await refused(owner.agents.create(shared_sandbox, **given), 400, "secret_detected")
    assert secret not in str(body)
    await refused(owner.agents.retrieve(shared_sandbox, given["slug"]), 404)


@pytest.mark.sdk("agents.create", error=400)
async def test_settings_that_do_not_go_together(owner: CopassClient, shared_sandbox: str) -> None:
    given = new_agent(model_settings={**MODEL_SETTINGS, "compute_provider": "e2b"})
    await refused(owner.agents.create(shared_sandbox, **given), 400)


@pytest.mark.sdk("agents.list")
async def test_list_filters(owner: CopassClient, sandbox: str) -> None:
    agents = [await owner.agents.create(sandbox, **new_agent()) for _ in range(2)]

    async def rows(**query: str) -> list[dict[str, Any]]:
        return check_list(await owner.agents.list(sandbox, **query), "agents", AGENT)

    def by_slug(row: dict[str, Any]) -> str:
        return str(row["slug"])

    assert sorted(await rows(), key=by_slug) == sorted(agents, key=by_slug)
    assert len(await rows(status="active")) == 2
    assert await rows(status="archived") == []


@pytest.mark.sdk("agents.list", error=422)
async def test_list_refuses_an_unknown_status(owner: CopassClient, shared_sandbox: str) -> None:
    assert fields(await refused(owner.agents.list(shared_sandbox, status="asleep"), 422)) == {"query.status"}


@pytest.mark.sdk("agents.retrieve")
async def test_retrieve(owner: CopassClient, shared_sandbox: str) -> None:
    agent = await owner.agents.create(shared_sandbox, **new_agent())
    found = await owner.agents.retrieve(shared_sandbox, agent["slug"])
    check(found, AGENT)
    assert found == agent


@pytest.mark.sdk("agents.retrieve", error=404)
async def test_retrieve_finds_only_what_is_in_the_sandbox(
    owner: CopassClient, shared_sandbox: str, sandbox: str
) -> None:
    elsewhere = await owner.agents.create(sandbox, **new_agent())
    for slug in (elsewhere["slug"], "nobody", "Not%20A%20Slug"):
        await refused(owner.agents.retrieve(shared_sandbox, slug), 404)


@pytest.mark.sdk("agents.create", error=404)
@pytest.mark.sdk("agents.list", error=404)
@pytest.mark.sdk("agents.retrieve", error=404)
async def test_a_foreign_sandbox(owner: CopassClient, guest: CopassClient, foreign_sandbox: str) -> None:
    agent = await guest.agents.create(foreign_sandbox, **new_agent())
    await refused(owner.agents.create(foreign_sandbox, **new_agent()), 404)
    await refused(owner.agents.list(foreign_sandbox), 404)
    await refused(owner.agents.retrieve(foreign_sandbox, agent["slug"]), 404)
