"""`client.sources`: register, list, retrieve; `rest.md` 8."""

from __future__ import annotations

from typing import Any

import pytest
from copass_core import CopassClient

from support.errors import fields, refused
from support.shapes import SOURCE, check, check_list

UNKNOWN = "ds_01J9Z0000000000000000000AA"


@pytest.mark.sdk("sources.register")
async def test_register_fills_in_the_defaults(owner: CopassClient, shared_sandbox: str) -> None:
    source = await owner.sources.register(shared_sandbox, provider="custom", name="plain")
    check(source, SOURCE)
    assert source["sandbox_id"] == shared_sandbox
    assert source["provider"] == "custom"
    assert source["name"] == "plain"
    assert source["ingestion_mode"] == "manual"
    assert source["kind"] == "durable"
    assert source["status"] == "active"
    assert source["adapter_config"] == {}
    for field in ("external_account_id", "poll_interval_seconds", "webhook_url", "webhook_signing_secret"):
        assert source.get(field) is None


@pytest.mark.sdk("sources.register")
async def test_register_echoes_what_was_given(owner: CopassClient, shared_sandbox: str) -> None:
    given: dict[str, Any] = {
        "provider": "github",
        "name": "Änderungen 🚀",
        "ingestion_mode": "polling",
        "kind": "ephemeral",
        "external_account_id": "account-7",
        "adapter_config": {"repositories": ["a/b"], "nested": {"deep": None}},
        "poll_interval_seconds": 60,
    }
    source = await owner.sources.register(shared_sandbox, **given)
    check(source, SOURCE)
    assert {key: source[key] for key in given} == given


@pytest.mark.sdk("sources.register")
async def test_names_are_not_unique(owner: CopassClient, shared_sandbox: str) -> None:
    one = await owner.sources.register(shared_sandbox, provider="custom", name="twin")
    two = await owner.sources.register(shared_sandbox, provider="custom", name="twin")
    assert one["data_source_id"] != two["data_source_id"]


@pytest.mark.sdk("sources.register", error=422)
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"name": ""}, "body.name"),
        ({"name": "a" * 256}, "body.name"),
        ({"provider": ""}, "body.provider"),
        ({"ingestion_mode": "sometimes"}, "body.ingestion_mode"),
        ({"kind": "trigger"}, "body.kind"),
        ({"poll_interval_seconds": 59}, "body.poll_interval_seconds"),
        ({"poll_interval_seconds": "60"}, "body.poll_interval_seconds"),
        ({"adapter_config": []}, "body.adapter_config"),
    ],
)
async def test_register_names_the_wrong_field(
    owner: CopassClient, shared_sandbox: str, wrong: dict[str, Any], place: str
) -> None:
    arguments: dict[str, Any] = {"provider": "custom", "name": "wrong", **wrong}
    assert fields(await refused(owner.sources.register(shared_sandbox, **arguments), 422)) == {place}


@pytest.mark.sdk("sources.register", error=400)
async def test_a_token_must_not_come_in_this_way(owner: CopassClient, shared_sandbox: str) -> None:
    register = owner.sources.register(
        shared_sandbox, provider="user_mcp", name="mcp", adapter_config={"token": "in clear"}
    )
    await refused(register, 400)


@pytest.mark.sdk("sources.register", error=409)
async def test_the_tier_limits_the_number(owner: CopassClient, sandbox: str) -> None:
    limit = (await owner.sandboxes.retrieve(sandbox))["limits"]["max_data_sources"]
    for number in range(limit):
        await owner.sources.register(sandbox, provider="custom", name=f"source {number}")
    await refused(owner.sources.register(sandbox, provider="custom", name="one more"), 409, "tier_limit")
    assert (await owner.sources.list(sandbox))["count"] == limit


@pytest.mark.sdk("sources.register", error=501)
async def test_realtime_is_refused_until_webhooks_are_served(owner: CopassClient, sandbox: str) -> None:
    """Not in the contract: when this fails, realtime works; then test its URL and secret (8.1) and drop the note in
    docs/compatibility.md."""
    await refused(owner.sources.register(sandbox, provider="github", name="events", ingestion_mode="realtime"), 501)
    assert (await owner.sources.list(sandbox))["count"] == 0


@pytest.mark.sdk("sources.list")
async def test_list_filters(owner: CopassClient, sandbox: str) -> None:
    github = await owner.sources.register(sandbox, provider="github", name="one")
    custom = await owner.sources.register(sandbox, provider="custom", name="two", ingestion_mode="batch")

    async def ids(**query: str) -> set[str]:
        rows = check_list(await owner.sources.list(sandbox, **query), "sources", SOURCE)
        assert all(row.get("webhook_signing_secret") is None for row in rows)
        return {row["data_source_id"] for row in rows}

    assert await ids() == {github["data_source_id"], custom["data_source_id"]}
    assert await ids(provider="github") == {github["data_source_id"]}
    assert await ids(provider="git") == set()
    assert await ids(status="active", provider="custom") == {custom["data_source_id"]}
    assert await ids(status="paused") == set()


@pytest.mark.sdk("sources.list", error=422)
async def test_list_refuses_an_unknown_status(owner: CopassClient, shared_sandbox: str) -> None:
    assert fields(await refused(owner.sources.list(shared_sandbox, status="asleep"), 422)) == {"query.status"}


@pytest.mark.sdk("sources.retrieve")
async def test_retrieve(owner: CopassClient, shared_sandbox: str) -> None:
    source = await owner.sources.register(shared_sandbox, provider="custom", name="wanted", adapter_config={"a": 1})
    found = await owner.sources.retrieve(shared_sandbox, source["data_source_id"])
    check(found, SOURCE)
    assert found == source


@pytest.mark.sdk("sources.retrieve", error=404)
async def test_retrieve_finds_only_what_is_in_the_sandbox(
    owner: CopassClient, shared_sandbox: str, sandbox: str
) -> None:
    elsewhere = await owner.sources.register(sandbox, provider="custom", name="elsewhere")
    for source_id in (elsewhere["data_source_id"], UNKNOWN, "nonsense"):
        await refused(owner.sources.retrieve(shared_sandbox, source_id), 404)


@pytest.mark.sdk("sources.register", error=404)
@pytest.mark.sdk("sources.list", error=404)
@pytest.mark.sdk("sources.retrieve", error=404)
async def test_a_foreign_sandbox(owner: CopassClient, guest: CopassClient, foreign_sandbox: str) -> None:
    source = await guest.sources.register(foreign_sandbox, provider="custom", name="private")
    await refused(owner.sources.register(foreign_sandbox, provider="custom", name="intruder"), 404)
    await refused(owner.sources.list(foreign_sandbox), 404)
    await refused(owner.sources.retrieve(foreign_sandbox, source["data_source_id"]), 404)
