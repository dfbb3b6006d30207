"""`client.users`, `rest.md` 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from copass_core import CopassClient

from support.common import Connect
from support.errors import fields, refused
from support.people import Person
from support.server import Server
from support.shapes import PROFILE, SANDBOX, check


@pytest.mark.sdk("users.create_profile")
@pytest.mark.sdk("users.get_profile")
@pytest.mark.sdk("users.get_profile", error=404)
async def test_the_first_call_makes_the_profile_and_a_home(connect: Connect, newcomer: Callable[[], Person]) -> None:
    person = newcomer()
    client = connect(person.access_token)
    await refused(client.users.get_profile(), 404)
    assert (await client.sandboxes.list())["count"] == 0

    profile = await client.users.create_profile(display_name="Ada Löve")
    check(profile, PROFILE)
    assert profile["was_created"] is True
    assert profile["user_id"] == person.user_id
    assert profile["display_name"] == "Ada Löve"
    assert profile["project_id"] is not None
    home = await client.sandboxes.retrieve(profile["sandbox_id"])
    check(home, SANDBOX)
    assert (home["access"], home["user_id"]) == ("owner", person.user_id)

    renamed = await client.users.create_profile(display_name="Ada")
    assert renamed == {**profile, "was_created": False, "display_name": "Ada"}
    assert await client.users.create_profile() == renamed
    assert await client.users.get_profile() == renamed
    assert (await client.sandboxes.list())["count"] == 1
    await client.sandboxes.destroy(profile["sandbox_id"])


@pytest.mark.sdk("users.create_profile", error=422)
@pytest.mark.parametrize("display_name", ["", "a" * 256, 7])
async def test_create_profile_refuses_a_wrong_name(guest: CopassClient, display_name: Any) -> None:
    assert fields(await refused(guest.users.create_profile(display_name=display_name), 422)) == {"body.display_name"}


@pytest.mark.sdk("users.get_profile")
async def test_get_profile_of_the_key(owner: CopassClient, server: Server) -> None:
    profile = await owner.users.get_profile()
    check(profile, PROFILE)
    assert profile["was_created"] is False
    assert profile["user_id"] == (await owner.sandboxes.retrieve(server.sandbox_id))["user_id"]


@pytest.mark.sdk("users.create_profile", error=401)
@pytest.mark.sdk("users.get_profile", error=401)
async def test_profiles_need_a_known_key(stranger: CopassClient) -> None:
    await refused(stranger.users.create_profile(display_name="Nobody"), 401)
    await refused(stranger.users.get_profile(), 401)
