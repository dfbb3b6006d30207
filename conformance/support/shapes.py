"""The objects of the contract, field by field (`rest.md`), and a checker that names what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from typing import Any

Check = Callable[[Any], bool]
Shape = dict[str, Check]
_ABSENT = object()


def text(value: Any) -> bool:
    """A string that says something."""
    return isinstance(value, str) and value != ""


def any_text(value: Any) -> bool:
    return isinstance(value, str)


def integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


def obj(value: Any) -> bool:
    return isinstance(value, dict)


def anything(value: Any) -> bool:
    """Whatever it is, it is there."""
    return value is not _ABSENT


def texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def timestamp(value: Any) -> bool:
    """RFC 3339 in UTC: `Z` or `+00:00`, never without a zone."""
    if not isinstance(value, str) or "T" not in value:
        return False
    try:
        return datetime.fromisoformat(value).utcoffset() == timedelta(0)
    except ValueError:
        return False


def day(value: Any) -> bool:
    """YYYY-MM-DD."""
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def secret_key(value: Any) -> bool:
    """`olk_` and at least 32 characters of base62."""
    return isinstance(value, str) and value.startswith("olk_") and len(value) >= 36 and value[4:].isalnum()


def one_of(*values: Any) -> Check:
    return lambda value: value in values


def equal(expected: Any) -> Check:
    return lambda value: type(value) is type(expected) and value == expected


def maybe(check: Check) -> Check:
    """May be absent or null."""
    return lambda value: value is None or value is _ABSENT or check(value)


def check(value: Any, shape: Shape) -> None:
    """Every field of the shape is there and of its kind. Further fields are allowed."""
    assert isinstance(value, dict), f"expected an object, got {value!r}"
    for field, accept in shape.items():
        found = value.get(field, _ABSENT)
        assert found is not _ABSENT or accept(_ABSENT), f"'{field}' is missing in {value!r}"
        assert found is _ABSENT or accept(found), f"'{field}' is wrong: {found!r}"


def nested(shape: Shape) -> Check:
    """An object of that shape; what is wrong in it is named."""

    def accept(value: Any) -> bool:
        check(value, shape)
        return True

    return accept


def rows(shape: Shape) -> Check:
    """A list of objects of that shape."""

    def accept(value: Any) -> bool:
        assert isinstance(value, list), f"expected a list, got {value!r}"
        for row in value:
            check(row, shape)
        return True

    return accept


def check_list(value: Any, plural: str, shape: Shape, further: Iterable[str] = ()) -> list[dict[str, Any]]:
    """`{<plural>: [...], "count": n}` and, besides, only the named keys (`rest.md` 0.6, `tools.md` 6)."""
    check(value, {plural: lambda rows: isinstance(rows, list), "count": integer})
    assert set(value) == {plural, "count", *further}
    assert value["count"] == len(value[plural])
    rows: list[dict[str, Any]] = value[plural]
    for row in rows:
        check(row, shape)
    return rows


SANDBOX: Shape = {
    "sandbox_id": text,
    "user_id": text,
    "owner_id": text,
    "name": text,
    "tier": one_of("free", "pro", "enterprise"),
    "status": one_of("active", "suspended", "archived"),
    "storage_provider_type": one_of("platform_s3", "custom_s3"),
    "limits": lambda limits: (
        obj(limits)
        and all(integer(limits.get(key)) for key in ("max_data_sources", "max_projects", "max_storage_bytes"))
    ),
    "metadata": obj,
    "created_at": maybe(timestamp),
    "access": maybe(one_of("owner", "editor", "viewer")),
    "is_external": boolean,
}

STATUS: Shape = {"success": equal(True), "message": maybe(text), "status": text}

CONNECTION: Shape = {
    "connection_id": text,
    "sandbox_id": text,
    "user_id": text,
    "copass_id": maybe(text),
    "role": one_of("viewer", "editor"),
    "project_id": maybe(text),
    "label": maybe(text),
    "expires_at": maybe(timestamp),
    "revoked_at": maybe(timestamp),
    "created_by": text,
    "created_at": timestamp,
    "status": one_of("active", "revoked", "expired"),
}

SPAWNED_KEY: Shape = {
    "api_key_id": text,
    "plaintext_key": secret_key,
    "key_prefix": text,
    "expires_at": maybe(timestamp),
    "warning": maybe(text),
    "key": secret_key,
    "key_id": text,
}

SOURCE: Shape = {
    "data_source_id": text,
    "user_id": text,
    "sandbox_id": text,
    "provider": text,
    "name": text,
    "ingestion_mode": one_of("manual", "polling", "realtime", "batch", "user_mcp"),
    "status": one_of("active", "paused", "disconnected", "error", "archived"),
    "kind": one_of("durable", "ephemeral"),
    "external_account_id": maybe(text),
    "adapter_config": obj,
    "poll_interval_seconds": maybe(integer),
    "webhook_url": maybe(text),
    "last_sync_at": maybe(timestamp),
    "created_at": maybe(timestamp),
    "updated_at": maybe(timestamp),
}

PROFILE: Shape = {
    "user_id": text,
    "display_name": text,
    "sandbox_id": maybe(text),
    "project_id": maybe(text),
    "canonical_id": maybe(text),
    "is_user_root": boolean,
    "semantic_tags": texts,
    "was_created": boolean,
    "created_at": maybe(timestamp),
    "metadata": obj,
    "copass_id": maybe(text),
}

CREATED_KEY: Shape = {
    "id": text,
    "name": text,
    "key": secret_key,
    "key_prefix": text,
    "created_at": timestamp,
    "expires_at": maybe(timestamp),
    "jwt_expires_at": maybe(timestamp),
    "warning": text,
    "key_id": text,
}

API_KEY: Shape = {
    "id": text,
    "name": text,
    "key_prefix": text,
    "created_at": timestamp,
    "expires_at": maybe(timestamp),
    "jwt_expires_at": maybe(timestamp),
    "last_used_at": maybe(timestamp),
    "use_count": integer,
    "is_expired": boolean,
    "jwt_needs_refresh": boolean,
    "api_key_id": text,
    "label": text,
    "kind": one_of("general", "agent_invoke", "agent_delegate"),
    "agent_id": maybe(text),
    "revoked_at": maybe(timestamp),
}


CREATED_AGENT_KEY: Shape = {
    "api_key_id": text,
    "id": text,
    "key": secret_key,
    "plaintext_key": secret_key,
    "key_prefix": text,
    "kind": one_of("agent_invoke", "agent_delegate"),
    "label": text,
    "agent_id": text,
    "expires_at": maybe(timestamp),
    "warning": text,
}

MODEL_SETTINGS: Shape = {
    "backend": one_of("anthropic", "google", "hermes"),
    "model": text,
    "temperature": maybe(number),
    "max_tokens": maybe(integer),
    "max_turns": maybe(integer),
    "timeout_s": maybe(integer),
    "compute_provider": maybe(equal("e2b")),
}


AGENT: Shape = {
    "agent_id": text,
    "user_id": text,
    "sandbox_id": text,
    "slug": text,
    "name": text,
    "description": maybe(any_text),
    "system_prompt": text,
    "tool_allowlist": texts,
    "tool_sources": lambda value: value is None or texts(value),
    "model_settings": nested(MODEL_SETTINGS),
    "status": one_of("active", "archived"),
    "version": integer,
    "created_at": maybe(timestamp),
    "updated_at": maybe(timestamp),
    # Ours: what its owner should know.
    "warnings": texts,
    "allowlist_missing_entries": texts,
}

AGENT_VERSION: Shape = {
    "version": integer,
    "created_by": text,
    "created_at": timestamp,
    "changed": texts,
    "rolled_back_to": maybe(integer),
}

FIELD_CHANGE: Shape = {"field": text, "before": anything, "after": anything}

TOOL: Shape = {"name": text, "app_slug": text, "description": maybe(any_text)}

TERMINAL = ("succeeded", "failed", "timeout", "cancelled")

RUN: Shape = {
    "run_id": text,
    "user_id": text,
    "sandbox_id": text,
    "agent_id": text,
    "agent_version": integer,
    "trigger_id": maybe(text),
    "status": one_of("pending", "running", *TERMINAL),
    "input_event": maybe(obj),
    "output_text": maybe(any_text),
    "tokens_in": maybe(integer),
    "tokens_out": maybe(integer),
    "cost_microcents": maybe(integer),
    "duration_ms": maybe(integer),
    "error_message": maybe(text),
    "started_at": maybe(timestamp),
    "finished_at": maybe(timestamp),
    "provider_session_id": maybe(text),
}

TRACE: Shape = {
    "sources_resolved": texts,
    "sources_skipped": texts,
    "tool_names_advertised": texts,
    "allowlist_filtered_out": texts,
    "allowlist_missing_entries": texts,
    "duration_ms": integer,
}

STEP: Shape = {
    "step_id": text,
    "seq": integer,
    "kind": one_of("model", "tool"),
    "state": one_of("intended", "done", "failed", "unknown"),
    "name": maybe(text),
    "error": maybe(text),
    "started_at": maybe(timestamp),
    "finished_at": maybe(timestamp),
}

RUN_DETAIL: Shape = {**RUN, "tool_resolution_trace": maybe(nested(TRACE)), "steps": rows(STEP)}

_COUNTS: Shape = {
    "prompt_tokens": integer,
    "completion_tokens": integer,
    "total_tokens": integer,
    "cost_usd": number,
    "calls": integer,
}

USAGE: Shape = {
    "summary": nested(
        {
            "total_prompt_tokens": integer,
            "total_completion_tokens": integer,
            "total_tokens": integer,
            "total_cost_usd": number,
            "total_calls": integer,
        }
    ),
    "by_model": rows({"model": text, "provider": text, **_COUNTS}),
    "by_call_type": rows({"call_type": text, **_COUNTS}),
    "start_date": maybe(day),
    "end_date": maybe(day),
}

BALANCE: Shape = {
    "credits_purchased": integer,
    "credits_used": integer,
    "credits_remaining": integer,
    "currency": equal("USD_microcents"),
    "balance_credits": integer,
}

TRIGGER: Shape = {
    "trigger_id": text,
    "user_id": text,
    "sandbox_id": text,
    "agent_id": text,
    "data_source_id": text,
    "event_type_filter": text,
    "filter_config": maybe(obj),
    "status": one_of("active", "paused", "disabled"),
    "rate_limit_per_hour": maybe(integer),
    "last_fired_at": maybe(timestamp),
    "fire_count": integer,
    "created_at": maybe(timestamp),
    "updated_at": maybe(timestamp),
}

SESSION: Shape = {
    "access_token": text,
    "refresh_token": text,
    "token_type": equal("bearer"),
    "expires_in": lambda value: integer(value) and value > 0,
    "expires_at": maybe(integer),
    "user": lambda user: obj(user) and text(user.get("id")),
}

CONCIERGE_TEST: Shape = {
    "run_id": text,
    "status": one_of(*TERMINAL),
    "output_text": any_text,
    "tools_called": texts,
    "tokens_in": maybe(integer),
    "tokens_out": maybe(integer),
    "duration_ms": maybe(integer),
    "error_message": maybe(text),
}
