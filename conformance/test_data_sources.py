"""The helpers above `client.sources` and `client.context_window` that need no other route (`gaps.md` 2.2)."""

from __future__ import annotations

import pytest
from copass_core import BaseDataSource, ChatMessage, ContextWindow, CopassClient, ensure_data_source

from support.errors import refused
from support.shapes import SOURCE, check

UNKNOWN = "ds_01J9Z0000000000000000000AA"


@pytest.mark.composite("ensure_data_source")
async def test_ensure_data_source_registers_once(owner: CopassClient, sandbox: str) -> None:
    one = await ensure_data_source(owner, sandbox, provider="slack", name="team", adapter_config={"a": 1})
    check(one, SOURCE)
    two = await ensure_data_source(owner, sandbox, provider="slack", name="team")
    assert two == one
    other = await ensure_data_source(owner, sandbox, provider="slack", name="Team")
    assert other["data_source_id"] != one["data_source_id"]
    fresh = await ensure_data_source(owner, sandbox, provider="slack", name="team", reuse_existing=False)
    assert fresh["data_source_id"] not in {one["data_source_id"], other["data_source_id"]}


@pytest.mark.composite("ensure_data_source", error=404)
async def test_ensure_data_source_in_a_foreign_sandbox(owner: CopassClient, foreign_sandbox: str) -> None:
    await refused(ensure_data_source(owner, foreign_sandbox, provider="slack", name="team"), 404)


@pytest.mark.composite("BaseDataSource.describe")
async def test_a_driver_describes_its_source(owner: CopassClient, shared_sandbox: str) -> None:
    source = await owner.sources.register(shared_sandbox, provider="filesystem", name="folder")
    driver = BaseDataSource(
        client=owner, sandbox_id=shared_sandbox, data_source_id=source["data_source_id"], project_id=None
    )
    assert await driver.describe() == source


@pytest.mark.composite("BaseDataSource.describe", error=404)
async def test_a_driver_of_an_unknown_source(owner: CopassClient, shared_sandbox: str) -> None:
    driver = BaseDataSource(client=owner, sandbox_id=shared_sandbox, data_source_id=UNKNOWN)
    await refused(driver.describe(), 404)


@pytest.mark.composite("ContextWindowResource.create")
async def test_a_window_is_an_ephemeral_source(owner: CopassClient, shared_sandbox: str) -> None:
    window = await owner.context_window.create(sandbox_id=shared_sandbox, participants=["User", "Assistant"])
    assert isinstance(window, ContextWindow)
    assert window.get_turns() == []
    source = await window.describe()
    check(source, SOURCE)
    assert (source["provider"], source["ingestion_mode"], source["kind"]) == ("custom", "manual", "ephemeral")
    assert source["name"].startswith("window-")


@pytest.mark.composite("ContextWindowResource.create", error=404)
async def test_a_window_in_a_foreign_sandbox(owner: CopassClient, foreign_sandbox: str) -> None:
    await refused(owner.context_window.create(sandbox_id=foreign_sandbox, name="window"), 404)


@pytest.mark.composite("ContextWindowResource.attach")
async def test_a_window_is_found_again(owner: CopassClient, shared_sandbox: str) -> None:
    window = await owner.context_window.create(sandbox_id=shared_sandbox, name="thread")
    turns = [ChatMessage(role="user", content="Hello")]
    again = await owner.context_window.attach(
        sandbox_id=shared_sandbox, data_source_id=window.data_source_id, initial_turns=turns
    )
    assert again.data_source_id == window.data_source_id
    assert again.get_turns() == turns


@pytest.mark.composite("ContextWindowResource.attach", error=404)
async def test_an_unknown_window(owner: CopassClient, shared_sandbox: str) -> None:
    await refused(owner.context_window.attach(sandbox_id=shared_sandbox, data_source_id=UNKNOWN), 404)
