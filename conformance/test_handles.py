"""The handle ("Copass ID") of an account, `rest.md` 2: no published client claims one, grants are given to it."""

from __future__ import annotations

from uuid import uuid4

import pytest
from copass_core import CopassClient

from support.rest import Rest

HANDLE = "/api/v1/users/me/handle"


def unique_handle() -> str:
    return f"c.{uuid4().hex[:12]}-{uuid4().hex[:12]}"


async def test_a_handle_is_claimed_changed_and_released(guest: CopassClient, guest_rest: Rest) -> None:
    await guest.users.create_profile(display_name="Guest")
    for sign in ("", "@"):
        handle = unique_handle()
        assert guest_rest.call("PUT", HANDLE, {"copass_id": f"{sign}{handle}"})["copass_id"] == handle
        assert guest_rest.call("GET", HANDLE)["copass_id"] == handle
        assert (await guest.users.get_profile())["copass_id"] == handle
    guest_rest.call("DELETE", HANDLE)
    assert (await guest.users.get_profile())["copass_id"] is None


def test_a_handle_has_one_holder(guest_rest: Rest, rest: Rest) -> None:
    handle = unique_handle()
    guest_rest.call("PUT", HANDLE, {"copass_id": handle})
    rest.refused("PUT", HANDLE, 409, {"copass_id": handle})
    guest_rest.call("DELETE", HANDLE)


@pytest.mark.parametrize("handle", ["ab", "a" * 31, "Alice", ".abc", "abc-", "a..b", "a b c", "ä12", ""])
def test_a_handle_has_a_form(guest_rest: Rest, handle: str) -> None:
    guest_rest.refused("PUT", HANDLE, 422, {"copass_id": handle})
