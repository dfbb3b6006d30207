"""Accounts made for a run by logging in."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from support.rest import Rest

# Accepted by `copass dev` on loopback only.
DEV_CODE = "000000"


@dataclass(frozen=True)
class Person:
    """A logged-in account."""

    email: str
    user_id: str
    access_token: str
    refresh_token: str

    @classmethod
    def of(cls, email: str, session: dict[str, Any]) -> Person:
        return cls(email, session["user"]["id"], session["access_token"], session["refresh_token"])


class CodeRefused(Exception):
    """The server does not accept the code of `copass dev`."""


def unique_email() -> str:
    return f"conformance-{uuid4().hex}@example.com"


def log_in(rest: Rest, email: str | None = None) -> Person:
    """Logs in with the code of `copass dev`; the first login of an address makes the account."""
    email = email or unique_email()
    answer = rest.send("POST", "/auth/v1/verify", {"email": email, "token": DEV_CODE, "type": "email"})
    if answer.status_code == 401:
        raise CodeRefused(f"the server at {answer.url} does not accept the code {DEV_CODE}")
    assert answer.status_code == 200, answer.text
    return Person.of(email, answer.json())


def claims(token: str) -> dict[str, Any]:
    """The claims of a JWT, unverified."""
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found
