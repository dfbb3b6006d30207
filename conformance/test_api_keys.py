"""`client.api_keys`, `rest.md` 3."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from copass_core import CopassClient

from support.common import Connect
from support.errors import fields, refused
from support.rest import Rest
from support.shapes import API_KEY, CREATED_KEY, check

UNKNOWN = "ak_01J9Z0000000000000000000AA"


@pytest.mark.sdk("api_keys.create")
async def test_a_new_key_works(owner: CopassClient, connect: Connect) -> None:
    created = await owner.api_keys.create(name="conformance")
    check(created, CREATED_KEY)
    assert created["name"] == "conformance"
    assert created["key"].startswith(created["key_prefix"])
    assert 8 <= len(created["key_prefix"]) <= 12
    assert created["key_id"] == created["id"]
    assert created["expires_at"] is None
    profile = await connect(created["key"]).users.get_profile()
    assert profile["user_id"] == (await owner.users.get_profile())["user_id"]
    await owner.api_keys.revoke(created["id"])


@pytest.mark.sdk("api_keys.create")
async def test_a_key_may_expire(owner: CopassClient) -> None:
    created = await owner.api_keys.create(name="conformance", expires_in_days=30)
    await owner.api_keys.revoke(created["id"])
    check(created, CREATED_KEY)
    lifetime = datetime.fromisoformat(created["expires_at"]) - datetime.fromisoformat(created["created_at"])
    assert lifetime == timedelta(days=30)


@pytest.mark.sdk("api_keys.create", error=422)
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"name": ""}, "body.name"),
        ({"name": "a" * 129}, "body.name"),
        ({"expires_in_days": 0}, "body.expires_in_days"),
        ({"expires_in_days": 3651}, "body.expires_in_days"),
        ({"expires_in_days": -1}, "body.expires_in_days"),
    ],
)
async def test_create_names_the_wrong_field(owner: CopassClient, wrong: dict[str, Any], place: str) -> None:
    arguments: dict[str, Any] = {"name": "conformance", **wrong}
    assert fields(await refused(owner.api_keys.create(**arguments), 422)) == {place}


@pytest.mark.sdk("api_keys.list")
async def test_list_is_a_bare_array_without_secrets(owner: CopassClient) -> None:
    created = await owner.api_keys.create(name="conformance", expires_in_days=1)
    rows = {row["id"]: row for row in await owner.api_keys.list()}
    row = rows[created["id"]]
    for each in rows.values():
        check(each, API_KEY)
    assert (row["api_key_id"], row["label"], row["kind"]) == (created["id"], "conformance", "general")
    assert row["key_prefix"] == created["key_prefix"]
    assert row["expires_at"] == created["expires_at"]
    assert (row["is_expired"], row["revoked_at"]) == (False, None)
    assert created["key"] not in str(rows)
    await owner.api_keys.revoke(created["id"])
    assert created["id"] not in {row["id"] for row in await owner.api_keys.list()}


async def test_the_list_may_be_asked_for_more_or_less(owner: CopassClient, rest: Rest) -> None:
    revoked = await owner.api_keys.create(name="conformance")
    await owner.api_keys.revoke(revoked["id"])

    def ids(query: str) -> set[str]:
        rows = rest.call("GET", f"/api-keys?{query}")
        for row in rows:
            check(row, API_KEY)
        return {row["id"] for row in rows}

    assert revoked["id"] in ids("include_revoked=true")
    assert revoked["id"] in ids("include_revoked=true&kinds=agent_invoke&kinds=general")
    assert revoked["id"] not in ids("include_revoked=true&kinds=agent_invoke")
    assert revoked["id"] not in ids("kinds=general")


@pytest.mark.sdk("api_keys.revoke")
@pytest.mark.sdk("api_keys.list", error=401)
async def test_revoking_ends_a_key_at_once(owner: CopassClient, connect: Connect) -> None:
    created = await owner.api_keys.create(name="conformance")
    client = connect(created["key"])
    await client.api_keys.list()
    answer = await owner.api_keys.revoke(created["id"])
    await refused(client.api_keys.list(), 401)
    assert answer == {"revoked": True, "id": created["id"], "name": "conformance"}
    assert await owner.api_keys.revoke(created["id"]) == answer


@pytest.mark.sdk("api_keys.revoke", error=404)
async def test_a_foreign_key_looks_like_an_unknown_one(owner: CopassClient, guest: CopassClient) -> None:
    foreign = await guest.api_keys.create(name="conformance")
    for key_id in (foreign["id"], UNKNOWN, "nonsense"):
        await refused(owner.api_keys.revoke(key_id), 404)
    assert foreign["id"] in {row["id"] for row in await guest.api_keys.list()}
    await guest.api_keys.revoke(foreign["id"])
