"""`client.sandboxes`, `rest.md` 5."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from copass_core import CopassApiError, CopassClient

from support.common import MakeSandbox
from support.errors import fields, refused
from support.server import Server
from support.shapes import SANDBOX, STATUS, check, check_list

UNKNOWN = "sb_01J9Z0000000000000000000AA"


@pytest.mark.sdk("sandboxes.create")
async def test_create_echoes_what_was_given(owner: CopassClient) -> None:
    name = f"conformance {uuid4().hex} – ä"
    sandbox = await owner.sandboxes.create(name=name, owner_id="key/1", tier="pro", metadata={"a": {"b": [1, None]}})
    try:
        check(sandbox, SANDBOX)
        assert sandbox["name"] == name
        assert sandbox["owner_id"] == "key/1"
        assert sandbox["tier"] == "pro"
        assert sandbox["metadata"] == {"a": {"b": [1, None]}}
        assert sandbox["status"] == "active"
        assert sandbox["access"] == "owner"
        assert sandbox["is_external"] is False
        assert await owner.sandboxes.retrieve(sandbox["sandbox_id"]) == sandbox
    finally:
        await owner.sandboxes.destroy(sandbox["sandbox_id"])


@pytest.mark.sdk("sandboxes.create")
async def test_create_fills_in_the_defaults(owner: CopassClient) -> None:
    sandbox = await owner.sandboxes.create(name=f"conformance {uuid4().hex}", owner_id="conformance")
    await owner.sandboxes.destroy(sandbox["sandbox_id"])
    check(sandbox, SANDBOX)
    assert sandbox["tier"] == "free"
    assert sandbox["metadata"] == {}


@pytest.mark.sdk("sandboxes.create", error=409)
async def test_a_name_is_unique_with_its_owner_id(owner: CopassClient, make_sandbox: MakeSandbox) -> None:
    name = f"conformance {uuid4().hex}"
    make_sandbox(name=name, owner_id="one")
    make_sandbox(name=name, owner_id="two")
    await refused(owner.sandboxes.create(name=name, owner_id="one"), 409, "conflict")


@pytest.mark.sdk("sandboxes.create", error=422)
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"name": ""}, "body.name"),
        ({"name": "a" * 256}, "body.name"),
        ({"name": 7}, "body.name"),
        ({"owner_id": ""}, "body.owner_id"),
        ({"tier": "gold"}, "body.tier"),
        ({"metadata": ["list"]}, "body.metadata"),
    ],
)
async def test_create_names_the_wrong_field(owner: CopassClient, wrong: dict[str, Any], place: str) -> None:
    arguments: dict[str, Any] = {"name": "conformance", "owner_id": "conformance", **wrong}
    body = await refused(owner.sandboxes.create(**arguments), 422)
    assert fields(body) == {place}


@pytest.mark.sdk("sandboxes.list")
async def test_list_filters(owner: CopassClient, make_sandbox: MakeSandbox, server: Server) -> None:
    owner_id = uuid4().hex
    active, suspended = make_sandbox(owner_id=owner_id), make_sandbox(owner_id=owner_id)
    await owner.sandboxes.suspend(suspended)

    async def ids(**query: Any) -> set[str]:
        rows = check_list(await owner.sandboxes.list(**query), "sandboxes", SANDBOX)
        return {row["sandbox_id"] for row in rows}

    assert await ids() >= {active, suspended, server.sandbox_id}
    assert await ids(owner_id=owner_id) == {active, suspended}
    assert await ids(owner_id=owner_id, status="suspended") == {suspended}
    assert await ids(owner_id=owner_id, status="archived") == set()


@pytest.mark.sdk("sandboxes.list")
async def test_list_shows_nothing_of_others(owner: CopassClient, guest: CopassClient, foreign_sandbox: str) -> None:
    async def ids(client: CopassClient) -> set[str]:
        return {row["sandbox_id"] for row in (await client.sandboxes.list())["sandboxes"]}

    assert foreign_sandbox in await ids(guest)
    assert foreign_sandbox not in await ids(owner)


@pytest.mark.sdk("sandboxes.list", error=401)
async def test_list_needs_a_known_key(stranger: CopassClient) -> None:
    await refused(stranger.sandboxes.list(), 401)


@pytest.mark.sdk("sandboxes.list", error=422)
async def test_list_refuses_an_unknown_status(owner: CopassClient) -> None:
    status: Any = "asleep"
    body = await refused(owner.sandboxes.list(status=status), 422)
    assert fields(body) == {"query.status"}


@pytest.mark.sdk("sandboxes.retrieve")
async def test_retrieve(owner: CopassClient, server: Server) -> None:
    sandbox = await owner.sandboxes.retrieve(server.sandbox_id)
    check(sandbox, SANDBOX)
    assert sandbox["sandbox_id"] == server.sandbox_id


@pytest.mark.sdk("sandboxes.update")
async def test_update_changes_only_what_is_named(owner: CopassClient, make_sandbox: MakeSandbox) -> None:
    sandbox_id = make_sandbox(metadata={"old": 1, "kept": 2})
    before = await owner.sandboxes.retrieve(sandbox_id)
    name = f"conformance {uuid4().hex}"
    renamed = await owner.sandboxes.update(sandbox_id, name=name)
    check(renamed, SANDBOX)
    assert renamed == {**before, "name": name}
    replaced = await owner.sandboxes.update(sandbox_id, metadata={"new": 3})
    assert replaced == {**renamed, "metadata": {"new": 3}}
    assert await owner.sandboxes.update(sandbox_id) == replaced
    assert await owner.sandboxes.retrieve(sandbox_id) == replaced


@pytest.mark.sdk("sandboxes.update", error=422)
async def test_update_refuses_an_empty_name(owner: CopassClient, sandbox: str) -> None:
    assert fields(await refused(owner.sandboxes.update(sandbox, name=""), 422)) == {"body.name"}


@pytest.mark.sdk("sandboxes.update", error=409)
async def test_update_refuses_a_name_in_use(owner: CopassClient, make_sandbox: MakeSandbox) -> None:
    name = f"conformance {uuid4().hex}"
    make_sandbox(name=name)
    await refused(owner.sandboxes.update(make_sandbox(), name=name), 409, "conflict")


@pytest.mark.sdk("sandboxes.suspend")
@pytest.mark.sdk("sandboxes.reactivate")
async def test_a_suspended_sandbox_is_read_only(owner: CopassClient, sandbox: str) -> None:
    for _ in range(2):
        answer = await owner.sandboxes.suspend(sandbox)
        check(answer, STATUS)
        assert (answer["sandbox_id"], answer["status"]) == (sandbox, "suspended")
    assert (await owner.sandboxes.retrieve(sandbox))["status"] == "suspended"
    assert (await owner.sources.list(sandbox))["count"] == 0
    await refused(owner.sources.register(sandbox, provider="custom", name="late"), 409, "sandbox_not_active")
    for _ in range(2):
        answer = await owner.sandboxes.reactivate(sandbox)
        check(answer, STATUS)
        assert (answer["sandbox_id"], answer["status"]) == (sandbox, "active")
    await owner.sources.register(sandbox, provider="custom", name="in time")


@pytest.mark.sdk("sandboxes.archive")
async def test_an_archived_sandbox_comes_back(owner: CopassClient, sandbox: str) -> None:
    for _ in range(2):
        answer = await owner.sandboxes.archive(sandbox)
        check(answer, STATUS)
        assert (answer["sandbox_id"], answer["status"]) == (sandbox, "archived")
    await refused(owner.sources.register(sandbox, provider="custom", name="late"), 409, "sandbox_not_active")
    await owner.sandboxes.reactivate(sandbox)
    assert (await owner.sandboxes.retrieve(sandbox))["status"] == "active"


@pytest.mark.sdk("sandboxes.destroy")
async def test_destroy_leaves_nothing(owner: CopassClient, sandbox: str) -> None:
    source = await owner.sources.register(sandbox, provider="custom", name="doomed")
    answer = await owner.sandboxes.destroy(sandbox)
    check(answer, {key: STATUS[key] for key in ("success", "message")})
    assert (answer["sandbox_id"], answer["deleted"]) == (sandbox, True)
    await refused(owner.sandboxes.retrieve(sandbox), 404)
    await refused(owner.sources.retrieve(sandbox, source["data_source_id"]), 404)
    assert sandbox not in {row["sandbox_id"] for row in (await owner.sandboxes.list())["sandboxes"]}


async def test_destroying_twice_is_destroying_once(owner: CopassClient, sandbox: str) -> None:
    """`rest.md` 5: all lifecycle calls are idempotent; the client repeats a DELETE when its answer got lost."""
    first = await owner.sandboxes.destroy(sandbox)
    assert await owner.sandboxes.destroy(sandbox) == first


@pytest.mark.parametrize("whose", ["foreign", "unknown", "malformed"])
@pytest.mark.parametrize(
    "method",
    [
        pytest.param("retrieve", marks=pytest.mark.sdk("sandboxes.retrieve", error=404)),
        pytest.param("update", marks=pytest.mark.sdk("sandboxes.update", error=404)),
        pytest.param("suspend", marks=pytest.mark.sdk("sandboxes.suspend", error=404)),
        pytest.param("reactivate", marks=pytest.mark.sdk("sandboxes.reactivate", error=404)),
        pytest.param("archive", marks=pytest.mark.sdk("sandboxes.archive", error=404)),
        pytest.param("destroy", marks=pytest.mark.sdk("sandboxes.destroy", error=404)),
    ],
)
async def test_a_foreign_sandbox_looks_like_an_unknown_one(
    owner: CopassClient, foreign_sandbox: str, method: str, whose: str
) -> None:
    sandbox_id = {"foreign": foreign_sandbox, "unknown": UNKNOWN, "malformed": "nonsense"}[whose]
    body = await refused(getattr(owner.sandboxes, method)(sandbox_id), 404)
    unknown = await refused(getattr(owner.sandboxes, method)(UNKNOWN), 404)
    assert body["detail"] == unknown["detail"]
