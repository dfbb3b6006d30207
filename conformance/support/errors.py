"""The contract's error body (`rest.md` 0.3)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from copass_core import CopassApiError

from support import shapes

# The machine words of statuses that have only one.
WORDS = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
    422: "validation_error",
    501: "not_implemented",
}

PROBLEM: shapes.Shape = {
    "loc": lambda loc: shapes.texts(loc) and loc != [],
    "msg": shapes.text,
    "type": shapes.text,
}


def check_body(body: Any, status: int, word: str | None = None) -> dict[str, Any]:
    """`{error, detail, request_id}`, where a 422 lists its problems; returns the body."""
    assert isinstance(body, dict), f"not the error body: {body!r}"
    shapes.check(body, {"error": shapes.text, "request_id": shapes.text})
    assert set(body) == {"error", "detail", "request_id"}
    expected = word or WORDS.get(status)
    assert expected is None or body["error"] == expected
    if body["error"] == "validation_error":
        assert isinstance(body["detail"], list) and body["detail"], "a 422 names its problems"
        for problem in body["detail"]:
            shapes.check(problem, PROBLEM)
    else:
        assert shapes.text(body["detail"]), "an error says what to do in a sentence"
    return body


async def refused(call: Awaitable[Any], status: int, word: str | None = None) -> dict[str, Any]:
    """Awaits a call that the server must refuse; returns the parsed body that the client kept."""
    with pytest.raises(CopassApiError) as caught:
        await call
    assert caught.value.status == status, caught.value.body
    return check_body(caught.value.body, status, word)


def fields(body: dict[str, Any]) -> set[str]:
    """The places that a 422 complains about, such as `body.name`."""
    return {".".join(problem["loc"]) for problem in body["detail"]}
