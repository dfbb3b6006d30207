"""`client.sandbox_connections`, `rest.md` 6: what a grant gives, and that it ends at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from copass_core import CopassClient, RetryConfig

from support.common import Connect
from support.errors import fields, refused
from support.people import Person
from support.rest import Rest
from support.server import Server
from support.shapes import CONNECTION, SPAWNED_KEY, check

HANDLE = "/api/v1/users/me/handle"
UNKNOWN = "cn_01J9Z0000000000000000000AA"


def in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture
def handle(guest_rest: Rest) -> Iterator[str]:
    """A handle of the guest, without its `@`."""
    handle = f"c{uuid4().hex[:20]}"
    guest_rest.call("PUT", HANDLE, {"copass_id": handle})
    yield handle
    guest_rest.call("DELETE", HANDLE)


@pytest.mark.sdk("sandbox_connections.create")
async def test_grant_by_user_id(owner: CopassClient, guest: CopassClient, guest_person: Person, sandbox: str) -> None:
    await refused(guest.sandboxes.retrieve(sandbox), 404)
    end = in_days(7)
    grant = await owner.sandbox_connections.create(
        sandbox, role="viewer", user_id=guest_person.user_id, label="a colleague", expires_at=end
    )
    check(grant, CONNECTION)
    assert grant["sandbox_id"] == sandbox
    assert grant["user_id"] == guest_person.user_id
    assert grant["role"] == "viewer"
    assert grant["label"] == "a colleague"
    assert grant["status"] == "active"
    assert abs(at(grant["expires_at"]) - at(end)) < timedelta(seconds=1)
    assert grant["created_by"] == (await owner.sandboxes.retrieve(sandbox))["user_id"]
    seen = await guest.sandboxes.retrieve(sandbox)
    assert (seen["access"], seen["is_external"]) == ("viewer", True)
    assert sandbox in {row["sandbox_id"] for row in (await guest.sandboxes.list())["sandboxes"]}


@pytest.mark.sdk("sandbox_connections.create")
@pytest.mark.parametrize("sign", ["@", ""])
async def test_grant_by_handle(owner: CopassClient, guest_person: Person, sandbox: str, handle: str, sign: str) -> None:
    grant = await owner.sandbox_connections.create(sandbox, role="editor", copass_id=f"{sign}{handle}")
    check(grant, CONNECTION)
    assert grant["user_id"] == guest_person.user_id
    assert grant["copass_id"] == handle
    assert grant["label"] == f"@{handle}"


@pytest.mark.sdk("sandbox_connections.create")
@pytest.mark.sdk("sandbox_connections.create", error=404)
async def test_grant_of_one_project(owner: CopassClient, guest: CopassClient) -> None:
    """The guest shares the default project of the home that came with the profile."""
    home = await guest.users.create_profile(display_name="Guest")
    grantee = (await owner.users.get_profile())["user_id"]
    share = guest.sandbox_connections.create
    grant = await share(home["sandbox_id"], role="viewer", user_id=grantee, project_id=home["project_id"])
    check(grant, CONNECTION)
    assert grant["project_id"] == home["project_id"]
    unknown = "pj_01J9Z0000000000000000000AA"
    await refused(share(home["sandbox_id"], role="viewer", user_id=grantee, project_id=unknown), 404)
    await guest.sandboxes.destroy(home["sandbox_id"])
    await refused(owner.sandboxes.retrieve(home["sandbox_id"]), 404)


@pytest.mark.sdk("sandbox_connections.create", error=404)
async def test_an_unknown_handle(owner: CopassClient, sandbox: str) -> None:
    grant = owner.sandbox_connections.create(sandbox, role="viewer", copass_id=f"@n{uuid4().hex[:20]}")
    assert "Unknown copass_id" in (await refused(grant, 404))["detail"]


@pytest.mark.sdk("sandbox_connections.create", error=422)
@pytest.mark.parametrize(
    "people", [{}, {"user_id": "someone", "copass_id": "someone"}, {"user_id": "someone", "email": "a@example.com"}]
)
async def test_a_grant_is_for_exactly_one_person(owner: CopassClient, sandbox: str, people: dict[str, str]) -> None:
    await refused(owner.sandbox_connections.create(sandbox, role="viewer", **people), 422)


@pytest.mark.sdk("sandbox_connections.create", error=422)
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"role": "owner"}, "body.role"),
        ({"expires_at": in_days(-1)}, "body.expires_at"),
        ({"expires_at": "tomorrow"}, "body.expires_at"),
    ],
)
async def test_create_names_the_wrong_field(
    owner: CopassClient, guest_person: Person, sandbox: str, wrong: dict[str, Any], place: str
) -> None:
    arguments: dict[str, Any] = {"role": "viewer", "user_id": guest_person.user_id, **wrong}
    assert fields(await refused(owner.sandbox_connections.create(sandbox, **arguments), 422)) == {place}


@pytest.mark.sdk("sandbox_connections.create", error=501)
async def test_a_grant_by_email_is_not_offered_and_may_be_asked_for_again(
    connect: Connect, server: Server, sandbox: str
) -> None:
    """The client takes the 501 for an outage and sends the request three times; that must do no harm."""
    client = connect(server.api_key, retry=RetryConfig(max_attempts=3, backoff_base_ms=1))
    await refused(client.sandbox_connections.create(sandbox, role="viewer", email="a@example.com"), 501)
    assert await client.sandbox_connections.list(sandbox, include_revoked=True) == []


@pytest.mark.sdk("sandbox_connections.list")
async def test_list_is_a_bare_array_of_what_counts(owner: CopassClient, guest_person: Person, sandbox: str) -> None:
    assert await owner.sandbox_connections.list(sandbox) == []
    kept = await owner.sandbox_connections.create(sandbox, role="viewer", user_id=guest_person.user_id)
    ended = await owner.sandbox_connections.create(sandbox, role="editor", user_id=guest_person.user_id)
    await owner.sandbox_connections.revoke(sandbox, ended["connection_id"])

    rows = await owner.sandbox_connections.list(sandbox)
    assert [row["connection_id"] for row in rows] == [kept["connection_id"]]
    everything = await owner.sandbox_connections.list(sandbox, include_revoked=True)
    for row in everything:
        check(row, CONNECTION)
    assert {row["connection_id"]: row["status"] for row in everything} == {
        kept["connection_id"]: "active",
        ended["connection_id"]: "revoked",
    }


@pytest.mark.sdk("sandbox_connections.revoke")
@pytest.mark.sdk("sandbox_connections.spawn_api_key")
async def test_revoking_ends_the_grant_and_its_keys_at_once(
    owner: CopassClient, guest: CopassClient, guest_person: Person, connect: Connect, sandbox: str
) -> None:
    grant = await owner.sandbox_connections.create(sandbox, role="viewer", user_id=guest_person.user_id)
    connection_id = grant["connection_id"]
    spawned = await owner.sandbox_connections.spawn_api_key(sandbox, connection_id)
    bearer = connect(spawned["plaintext_key"])
    await guest.sandboxes.retrieve(sandbox)
    await bearer.sandboxes.retrieve(sandbox)

    answer = await owner.sandbox_connections.revoke(sandbox, connection_id)
    await refused(bearer.sandboxes.retrieve(sandbox), 401)
    await refused(guest.sandboxes.retrieve(sandbox), 404)
    assert answer["success"] is True
    assert answer["revoked"] is True
    assert answer["connection_id"] == connection_id
    assert answer["cascaded_keys"] == 1
    again = await owner.sandbox_connections.revoke(sandbox, connection_id)
    assert (again["revoked"], again["cascaded_keys"]) == (True, 0)


@pytest.mark.sdk("sandbox_connections.spawn_api_key")
async def test_a_spawned_key_is_the_grantee_in_this_sandbox_only(
    owner: CopassClient,
    guest_person: Person,
    connect: Connect,
    sandbox: str,
    shared_sandbox: str,
    foreign_sandbox: str,
) -> None:
    grant = await owner.sandbox_connections.create(sandbox, role="viewer", user_id=guest_person.user_id)
    spawned = await owner.sandbox_connections.spawn_api_key(sandbox, grant["connection_id"])
    check(spawned, SPAWNED_KEY)
    assert spawned["plaintext_key"].startswith(spawned["key_prefix"])
    assert spawned["key"] == spawned["plaintext_key"]
    assert spawned["key_id"] == spawned["api_key_id"]

    bearer = connect(spawned["plaintext_key"])
    seen = await bearer.sandboxes.retrieve(sandbox)
    assert (seen["access"], seen["is_external"]) == ("viewer", True)
    assert [row["sandbox_id"] for row in (await bearer.sandboxes.list())["sandboxes"]] == [sandbox]
    for other in (shared_sandbox, foreign_sandbox):
        await refused(bearer.sandboxes.retrieve(other), 404)
    await refused(bearer.sources.register(sandbox, provider="custom", name="not allowed"), 403)
    await refused(bearer.api_keys.create(name="not allowed"), 403)
    # It belongs to the grant: neither account lists it among its own keys.
    assert spawned["api_key_id"] not in {row["id"] for row in await owner.api_keys.list()}


@pytest.mark.sdk("sandbox_connections.spawn_api_key", error=409)
async def test_no_key_for_a_grant_that_ended(owner: CopassClient, guest_person: Person, sandbox: str) -> None:
    grant = await owner.sandbox_connections.create(sandbox, role="viewer", user_id=guest_person.user_id)
    await owner.sandbox_connections.revoke(sandbox, grant["connection_id"])
    await refused(owner.sandbox_connections.spawn_api_key(sandbox, grant["connection_id"]), 409)


# Each method of the resource, on a sandbox and a connection.
CALLS: dict[str, Callable[[CopassClient, str, str], Awaitable[Any]]] = {
    "create": lambda client, sandbox, _: client.sandbox_connections.create(sandbox, role="viewer", copass_id="nobody"),
    "list": lambda client, sandbox, _: client.sandbox_connections.list(sandbox),
    "revoke": lambda client, sandbox, connection: client.sandbox_connections.revoke(sandbox, connection),
    "spawn_api_key": lambda client, sandbox, connection: client.sandbox_connections.spawn_api_key(sandbox, connection),
}


@pytest.mark.parametrize("role", ["viewer", "editor"])
@pytest.mark.parametrize(
    "method",
    [
        pytest.param("create", marks=pytest.mark.sdk("sandbox_connections.create", error=403)),
        pytest.param("list", marks=pytest.mark.sdk("sandbox_connections.list", error=403)),
        pytest.param("revoke", marks=pytest.mark.sdk("sandbox_connections.revoke", error=403)),
        pytest.param("spawn_api_key", marks=pytest.mark.sdk("sandbox_connections.spawn_api_key", error=403)),
    ],
)
async def test_grants_are_the_owners(
    owner: CopassClient, guest: CopassClient, guest_person: Person, sandbox: str, method: str, role: str
) -> None:
    grant = await owner.sandbox_connections.create(sandbox, role=role, user_id=guest_person.user_id)
    await refused(CALLS[method](guest, sandbox, grant["connection_id"]), 403)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("create", marks=pytest.mark.sdk("sandbox_connections.create", error=404)),
        pytest.param("list", marks=pytest.mark.sdk("sandbox_connections.list", error=404)),
        pytest.param("revoke", marks=pytest.mark.sdk("sandbox_connections.revoke", error=404)),
        pytest.param("spawn_api_key", marks=pytest.mark.sdk("sandbox_connections.spawn_api_key", error=404)),
    ],
)
async def test_a_foreign_sandbox(owner: CopassClient, foreign_sandbox: str, method: str) -> None:
    await refused(CALLS[method](owner, foreign_sandbox, UNKNOWN), 404)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("revoke", marks=pytest.mark.sdk("sandbox_connections.revoke", error=404)),
        pytest.param("spawn_api_key", marks=pytest.mark.sdk("sandbox_connections.spawn_api_key", error=404)),
    ],
)
async def test_a_connection_of_another_sandbox(
    owner: CopassClient, guest_person: Person, sandbox: str, shared_sandbox: str, method: str
) -> None:
    grant = await owner.sandbox_connections.create(sandbox, role="viewer", user_id=guest_person.user_id)
    await refused(CALLS[method](owner, shared_sandbox, grant["connection_id"]), 404)
    await refused(CALLS[method](owner, sandbox, UNKNOWN), 404)


async def test_what_each_role_may_do(
    owner: CopassClient, guest: CopassClient, guest_person: Person, sandbox: str
) -> None:
    """`rest.md` 0.5: a viewer reads, an editor builds, neither destroys."""

    async def build() -> None:
        await guest.sources.register(sandbox, provider="custom", name="from the guest")

    async def attempt(role: str) -> None:
        grant = await owner.sandbox_connections.create(sandbox, role=role, user_id=guest_person.user_id)
        await guest.sources.list(sandbox)
        await guest.agents.list(sandbox)
        if role == "editor":
            await build()
        else:
            await refused(build(), 403)
        for destroy in (
            guest.sandboxes.update(sandbox, name="mine now"),
            guest.sandboxes.suspend(sandbox),
            guest.sandboxes.reactivate(sandbox),
            guest.sandboxes.archive(sandbox),
            guest.sandboxes.destroy(sandbox),
        ):
            await refused(destroy, 403)
        await owner.sandbox_connections.revoke(sandbox, grant["connection_id"])

    await attempt("viewer")
    await attempt("editor")
