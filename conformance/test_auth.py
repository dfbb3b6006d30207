"""Login, `rest.md` 1: routes that only the TypeScript client and the CLI call."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any

import pytest

from support.common import SANDBOXES, Connect
from support.errors import refused
from support.people import DEV_CODE, Person, claims, unique_email
from support.rest import Rest, error_of
from support.shapes import SESSION, check

OTP = "/auth/v1/otp"
VERIFY = "/auth/v1/verify"
REFRESH = "/auth/v1/token?grant_type=refresh_token"


@pytest.mark.wire("auth.otp")
def test_a_code_is_sent_to_whom_it_may_concern(anonymous: Rest) -> None:
    """Known or not, the answer is the same; the `apikey` header of the client's library may be anything."""
    answer = anonymous.send("POST", OTP, {"email": unique_email()}, headers={"apikey": "anything"})
    assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.wire("auth.otp", error=422)
@pytest.mark.parametrize("body", [{"email": "nobody"}, {"email": 7}, {}])
def test_a_code_needs_an_address(anonymous: Rest, body: dict[str, Any]) -> None:
    anonymous.refused("POST", OTP, 422, body)


@pytest.mark.wire("auth.verify")
async def test_a_login_is_a_session(newcomer: Callable[[], Person], anonymous: Rest, connect: Connect) -> None:
    email = newcomer().email
    body = {"email": email.upper(), "token": DEV_CODE, "type": "email"}
    session = anonymous.call("POST", VERIFY, body, headers={"apikey": "anything"})
    check(session, SESSION)
    assert session["user"]["email"] == email
    assert claims(session["access_token"])["sub"] == session["user"]["id"]
    assert abs(session["expires_at"] - (time() + session["expires_in"])) < 5
    assert (await connect(session["access_token"]).sandboxes.list())["count"] == 0


@pytest.mark.wire("auth.verify", error=401)
def test_a_wrong_code(anonymous: Rest) -> None:
    anonymous.refused("POST", VERIFY, 401, {"email": unique_email(), "token": "123456", "type": "email"})


@pytest.mark.wire("auth.verify", error=422)
def test_a_code_of_another_kind(anonymous: Rest) -> None:
    anonymous.refused("POST", VERIFY, 422, {"email": unique_email(), "token": DEV_CODE, "type": "sms"})


@pytest.mark.wire("auth.token")
async def test_a_refresh_token_is_good_once(newcomer: Callable[[], Person], anonymous: Rest, connect: Connect) -> None:
    person = newcomer()
    session = anonymous.call("POST", REFRESH, {"refresh_token": person.refresh_token})
    check(session, SESSION)
    assert session["user"]["id"] == person.user_id
    assert session["refresh_token"] != person.refresh_token
    await connect(session["access_token"]).sandboxes.list()


@pytest.mark.wire("auth.token", error=401)
def test_a_refresh_token_that_comes_back_ends_the_login(newcomer: Callable[[], Person], anonymous: Rest) -> None:
    first = newcomer().refresh_token
    second = anonymous.call("POST", REFRESH, {"refresh_token": first})["refresh_token"]
    anonymous.refused("POST", REFRESH, 401, {"refresh_token": first})
    anonymous.refused("POST", REFRESH, 401, {"refresh_token": second})


@pytest.mark.wire("auth.token", error=401)
def test_an_unknown_refresh_token(anonymous: Rest) -> None:
    anonymous.refused("POST", REFRESH, 401, {"refresh_token": "unknown"})


@pytest.mark.wire("auth.token", error=422)
def test_another_way_to_get_a_token(anonymous: Rest) -> None:
    anonymous.refused("POST", "/auth/v1/token?grant_type=password", 422, {"refresh_token": "unknown"})


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Bearer",
        "Bearer olk_" + "0" * 43,
        "Bearer olk_",
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
        "Basic dXNlcjpwYXNz",
        "nonsense",
        "Bearer " + "a" * 9000,
    ],
)
def test_a_credential_that_is_none(anonymous: Rest, header: str | None) -> None:
    answer = anonymous.send("GET", SANDBOXES, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    error_of(answer)


async def test_a_changed_token_is_refused(guest_person: Person, connect: Connect) -> None:
    head, payload, signature = guest_person.access_token.split(".")
    changed = ("B" if signature[0] == "A" else "A") + signature[1:]
    await refused(connect(f"{head}.{payload}.{changed}").sandboxes.list(), 401)
