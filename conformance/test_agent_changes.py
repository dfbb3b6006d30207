"""`client.agents`: update, archive, update_model_settings, update_tool_sources; `rest.md` 12.4 to 12.7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from copass_core import DEFAULT_MODEL_BY_BACKEND, CopassClient

from support.common import MODEL_SETTINGS, agents_of, new_agent
from support.errors import fields, refused
from support.people import Person
from support.rest import Rest
from support.shapes import AGENT, check, check_list

Agent = dict[str, Any]


@pytest.fixture
async def agent(owner: CopassClient, shared_sandbox: str) -> Agent:
    made: Agent = await owner.agents.create(shared_sandbox, **new_agent(description="Answers."))
    return made


def of_agent(answer: Agent) -> Agent:
    """The answer of a change, which is the agent."""
    check(answer, AGENT)
    return answer


@pytest.mark.sdk("agents.update")
async def test_update_changes_what_is_named(owner: CopassClient, shared_sandbox: str, agent: Agent) -> None:
    given: dict[str, Any] = {
        "name": "Prüfer 🚀",
        "description": "Checks things.",
        "system_prompt": "Erste Zeile\nZweite Zeile",
        "tool_allowlist": ["search"],
        "model_settings": {"backend": "google", "model": "gemini-2.5-flash", "temperature": 0.5},
    }
    changed = of_agent(await owner.agents.update(shared_sandbox, agent["slug"], **given))
    settings = given.pop("model_settings")
    assert settings.items() <= changed["model_settings"].items()
    assert {key: changed[key] for key in given} == given
    assert changed["version"] == 2
    assert (changed["agent_id"], changed["created_at"]) == (agent["agent_id"], agent["created_at"])
    assert changed["updated_at"] > agent["updated_at"]
    assert changed == await owner.agents.retrieve(shared_sandbox, agent["slug"])


@pytest.mark.sdk("agents.update")
@pytest.mark.parametrize(
    "given",
    [
        {"name": "Other"},
        {"description": "Other."},
        {"system_prompt": "You do otherwise."},
        {"tool_allowlist": ["search", "discover"]},
        {"model_settings": {**MODEL_SETTINGS, "max_turns": 3}},
        {"status": "archived"},
    ],
    ids=lambda given: next(iter(given)),
)
async def test_what_is_not_named_stays(
    owner: CopassClient, shared_sandbox: str, agent: Agent, given: dict[str, Any]
) -> None:
    changed = of_agent(await owner.agents.update(shared_sandbox, agent["slug"], **given))
    notes = {"warnings", "allowlist_missing_entries"}
    differing = {field for field in agent.keys() - notes if changed[field] != agent[field]}
    assert differing == {*given, "version", "updated_at"}
    assert changed["version"] == 2


@pytest.mark.sdk("agents.update")
async def test_settings_are_replaced_as_a_whole(owner: CopassClient, shared_sandbox: str, agent: Agent) -> None:
    slug = agent["slug"]
    await owner.agents.update(shared_sandbox, slug, model_settings={**MODEL_SETTINGS, "temperature": 1, "max_turns": 3})
    changed = await owner.agents.update(shared_sandbox, slug, model_settings={**MODEL_SETTINGS, "max_turns": 4})
    assert changed["model_settings"].get("temperature") is None
    assert changed["model_settings"]["max_turns"] == 4


@pytest.mark.sdk("agents.update")
async def test_an_update_of_nothing_makes_no_version(owner: CopassClient, shared_sandbox: str, agent: Agent) -> None:
    assert of_agent(await owner.agents.update(shared_sandbox, agent["slug"])) == agent


async def test_a_slug_never_changes(rest: Rest, shared_sandbox: str, agent: Agent) -> None:
    answer = rest.call("PATCH", f"{agents_of(shared_sandbox)}/{agent['slug']}", {"slug": "other", "name": "Other"})
    assert (answer["slug"], answer["name"]) == (agent["slug"], "Other")


@pytest.mark.sdk("agents.update")
async def test_allowlist_entries_that_match_no_tool_are_named(
    owner: CopassClient, shared_sandbox: str, agent: Agent
) -> None:
    answer = await owner.agents.update(shared_sandbox, agent["slug"], tool_allowlist=["pd_nobody_has-this"])
    check(answer, AGENT)
    assert answer["allowlist_missing_entries"] == ["pd_nobody_has-this"]
    assert any("pd_nobody_has-this" in warning for warning in answer["warnings"])


@pytest.mark.sdk("agents.update", error=422)
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"name": ""}, "body.name"),
        ({"system_prompt": ""}, "body.system_prompt"),
        ({"tool_allowlist": [""]}, "body.tool_allowlist"),
        ({"status": "asleep"}, "body.status"),
        ({"model_settings": {**MODEL_SETTINGS, "backend": "abacus"}}, "body.model_settings.backend"),
        ({"model_settings": {**MODEL_SETTINGS, "max_tokens": 0}}, "body.model_settings.max_tokens"),
        ({"model_settings": []}, "body.model_settings"),
    ],
)
async def test_update_names_the_wrong_field(
    owner: CopassClient, shared_sandbox: str, agent: Agent, wrong: dict[str, Any], place: str
) -> None:
    body = await refused(owner.agents.update(shared_sandbox, agent["slug"], **wrong), 422)
    assert fields(body) == {place}
    assert await owner.agents.retrieve(shared_sandbox, agent["slug"]) == agent


@pytest.mark.sdk("agents.update", error=400)
async def test_a_secret_in_a_new_prompt_is_refused(owner: CopassClient, shared_sandbox: str, agent: Agent) -> None:
    secret = "ghp_" + uuid4().hex + "0123"
    call = owner.agents.update(shared_sandbox, agent["slug"], system_prompt=f"Use the token {secret}.")
    assert secret not in str(await refused(call, 400, "secret_detected"))


@pytest.mark.sdk("agents.archive")
async def test_an_archived_agent_is_kept_and_may_come_back(owner: CopassClient, rest: Rest, sandbox: str) -> None:
    agent = await owner.agents.create(sandbox, **new_agent())
    slug = agent["slug"]
    for _ in range(2):
        assert await owner.agents.archive(sandbox, slug) is None
    archived = await owner.agents.retrieve(sandbox, slug)
    check(archived, AGENT)
    assert archived["status"] == "archived"
    assert check_list(await owner.agents.list(sandbox, status="archived"), "agents", AGENT) == [archived]
    assert check_list(await owner.agents.list(sandbox, status="active"), "agents", AGENT) == []
    assert check_list(await owner.agents.list(sandbox), "agents", AGENT) == [archived]
    taken = rest.refused("POST", agents_of(sandbox), 409, new_agent(slug=slug))
    assert "active" in taken["detail"] or "update" in taken["detail"], "it says how to get the slug back"
    back = of_agent(await owner.agents.update(sandbox, slug, status="active"))
    assert (back["status"], back["version"]) == ("active", archived["version"] + 1)


@pytest.mark.sdk("agents.update_model_settings")
async def test_settings_are_merged(owner: CopassClient, shared_sandbox: str, agent: Agent) -> None:
    steps: list[dict[str, Any]] = [
        {"temperature": 0.3},
        {"max_tokens": 500, "max_turns": 7},
        {"timeout_s": 90},
        {"model": "claude-haiku-4-5"},
    ]
    expected: dict[str, Any] = dict(MODEL_SETTINGS)
    for number, step in enumerate(steps):
        changed = of_agent(await owner.agents.update_model_settings(shared_sandbox, agent["slug"], **step))
        expected |= step
        assert expected.items() <= changed["model_settings"].items()
        assert changed["version"] == number + 2
    assert changed == await owner.agents.retrieve(shared_sandbox, agent["slug"])


@pytest.mark.sdk("agents.update_model_settings")
async def test_the_backend_may_change_to_and_fro(owner: CopassClient, shared_sandbox: str, agent: Agent) -> None:
    """No public client sends `compute_provider`, so it comes and goes with hermes (gaps.md G23)."""
    for backend in ("hermes", "google", "anthropic"):
        model = DEFAULT_MODEL_BY_BACKEND[backend]
        changed = of_agent(
            await owner.agents.update_model_settings(shared_sandbox, agent["slug"], backend=backend, model=model)
        )
        settings = changed["model_settings"]
        assert (settings["backend"], settings["model"]) == (backend, model)
        assert settings.get("compute_provider") == ("e2b" if backend == "hermes" else None)


@pytest.mark.sdk("agents.update_model_settings", error=422)
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"backend": "abacus"}, "body.backend"),
        ({"model": ""}, "body.model"),
        ({"temperature": 2.1}, "body.temperature"),
        ({"max_tokens": 0}, "body.max_tokens"),
        ({"max_turns": 0}, "body.max_turns"),
        ({"timeout_s": 0}, "body.timeout_s"),
        ({"max_turns": "many"}, "body.max_turns"),
    ],
)
async def test_settings_name_the_wrong_field(
    owner: CopassClient, shared_sandbox: str, agent: Agent, wrong: dict[str, Any], place: str
) -> None:
    body = await refused(owner.agents.update_model_settings(shared_sandbox, agent["slug"], **wrong), 422)
    assert fields(body) == {place}


async def test_merged_settings_must_go_together(rest: Rest, shared_sandbox: str, agent: Agent) -> None:
    path = f"{agents_of(shared_sandbox)}/{agent['slug']}/model-settings"
    rest.refused("PATCH", path, 400, {"compute_provider": "e2b"})
    answer = rest.call("PATCH", path, {"backend": "hermes", "compute_provider": "e2b"})
    assert answer["model_settings"]["compute_provider"] == "e2b"


@pytest.mark.sdk("agents.update_tool_sources")
async def test_tool_sources_are_a_list_none_or_the_default(
    owner: CopassClient, shared_sandbox: str, agent: Agent
) -> None:
    """Any name is taken: one that the server does not know is a skipped source of each run."""
    for version, sources in enumerate((["copass_retrieval", "user_mcp", "unheard-of"], [], ["pipedream"], None), 2):
        changed = of_agent(await owner.agents.update_tool_sources(shared_sandbox, agent["slug"], sources))
        assert (changed["tool_sources"], changed["version"]) == (sources, version)
        assert changed == await owner.agents.retrieve(shared_sandbox, agent["slug"])


@pytest.mark.sdk("agents.update_tool_sources", error=422)
async def test_tool_sources_have_names(owner: CopassClient, shared_sandbox: str, agent: Agent) -> None:
    wrong: Any
    for wrong in ([""], [1], [None]):
        body = await refused(owner.agents.update_tool_sources(shared_sandbox, agent["slug"], wrong), 422)
        assert {place.removesuffix(".0") for place in fields(body)} == {"body.tool_sources"}


async def test_absent_tool_sources_are_not_the_default(rest: Rest, shared_sandbox: str, agent: Agent) -> None:
    path = f"{agents_of(shared_sandbox)}/{agent['slug']}/tool-sources"
    body: dict[str, Any]
    for body in ({}, {"sources": []}):
        assert fields(rest.refused("PATCH", path, 422, body)) == {"body.tool_sources"}


Change = Callable[[CopassClient, str, str], Any]

CHANGES: list[tuple[str, Change]] = [
    ("update", lambda client, sandbox_id, slug: client.agents.update(sandbox_id, slug, name="Other")),
    ("archive", lambda client, sandbox_id, slug: client.agents.archive(sandbox_id, slug)),
    ("settings", lambda client, sandbox_id, slug: client.agents.update_model_settings(sandbox_id, slug, max_turns=3)),
    ("sources", lambda client, sandbox_id, slug: client.agents.update_tool_sources(sandbox_id, slug, [])),
]


@pytest.mark.sdk("agents.update", error=404)
@pytest.mark.sdk("agents.archive", error=404)
@pytest.mark.sdk("agents.update_model_settings", error=404)
@pytest.mark.sdk("agents.update_tool_sources", error=404)
async def test_only_what_is_there_can_be_changed(
    owner: CopassClient, guest: CopassClient, shared_sandbox: str, sandbox: str, foreign_sandbox: str
) -> None:
    elsewhere = await owner.agents.create(sandbox, **new_agent())
    foreign = await guest.agents.create(foreign_sandbox, **new_agent())
    for _, change in CHANGES:
        for sandbox_id, slug in (
            (shared_sandbox, elsewhere["slug"]),
            (shared_sandbox, "nobody"),
            (foreign_sandbox, foreign["slug"]),
        ):
            await refused(change(owner, sandbox_id, slug), 404)
    assert await guest.agents.retrieve(foreign_sandbox, foreign["slug"]) == foreign


@pytest.mark.sdk("agents.update", error=403)
@pytest.mark.sdk("agents.archive", error=403)
@pytest.mark.sdk("agents.update_model_settings", error=403)
@pytest.mark.sdk("agents.update_tool_sources", error=403)
async def test_who_may_change_an_agent(
    owner: CopassClient, guest: CopassClient, guest_person: Person, sandbox: str
) -> None:
    """`rest.md` 0.5: an editor builds and does not archive, by no way; a viewer changes nothing."""
    slug = (await owner.agents.create(sandbox, **new_agent()))["slug"]
    grant = await owner.sandbox_connections.create(sandbox, role="viewer", user_id=guest_person.user_id)
    for _, change in CHANGES:
        await refused(change(guest, sandbox, slug), 403)
    await owner.sandbox_connections.revoke(sandbox, grant["connection_id"])
    await owner.sandbox_connections.create(sandbox, role="editor", user_id=guest_person.user_id)
    for name, change in CHANGES:
        if name != "archive":
            await change(guest, sandbox, slug)
    await refused(guest.agents.archive(sandbox, slug), 403)
    await refused(guest.agents.update(sandbox, slug, status="archived"), 403)
    assert (await owner.agents.retrieve(sandbox, slug))["status"] == "active"


async def test_a_suspended_sandbox_is_not_changed(owner: CopassClient, sandbox: str) -> None:
    slug = (await owner.agents.create(sandbox, **new_agent()))["slug"]
    await owner.sandboxes.suspend(sandbox)
    for name, change in CHANGES:
        if name != "archive":
            await refused(change(owner, sandbox, slug), 409, "sandbox_not_active")
    check(await owner.agents.retrieve(sandbox, slug), AGENT)
