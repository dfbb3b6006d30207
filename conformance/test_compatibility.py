"""docs/compatibility.md says what is so: complete, and with a test for everything it says works. Needs no server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatchcase
from importlib.metadata import version

import pytest
from copass_core import ApiKeyAuth, CopassClient

from support import compatibility, marks, sdk
from support.compatibility import NOT_YET, PARTLY, WORKS, Row

TABLES: dict[str, Callable[[], list[Row]]] = {
    "sdk": compatibility.sdk_methods,
    "composite": compatibility.composites,
    "wire": compatibility.wire_routes,
}
WORKING = [(kind, row) for kind, rows in TABLES.items() for row in rows() if row.works]


def test_the_version_is_the_one_of_the_contract() -> None:
    assert version("copass-core") == "1.4.9"


def test_every_method_of_the_client_has_its_row() -> None:
    client = CopassClient(auth=ApiKeyAuth("olk_none"), api_url="http://unused.invalid")
    rows = [row.name for row in compatibility.sdk_methods()]
    assert Counter(rows) == Counter(sdk.methods(client).keys())
    assert len(rows) == 84
    assert [row.cells["#"] for row in compatibility.sdk_methods()] == [str(number) for number in range(1, 85)]


async def test_every_row_has_the_route_that_the_client_calls() -> None:
    assert {row.name: row.route for row in compatibility.sdk_methods()} == await sdk.routes()


def test_every_helper_of_the_client_has_its_row() -> None:
    rows = [row.name for row in compatibility.composites()]
    assert Counter(rows) == Counter(sdk.composites())
    assert len(rows) == 12


@pytest.mark.parametrize("kind", TABLES)
def test_states_are_words_of_the_table(kind: str) -> None:
    assert {row.state for row in TABLES[kind]()} <= {WORKS, NOT_YET}


@pytest.mark.parametrize(("kind", "row"), WORKING, ids=lambda value: getattr(value, "name", value))
def test_what_works_is_tested_in_success_and_in_failure(kind: str, row: Row) -> None:
    found = [claim for claim in marks.claims() if (claim.kind, claim.name) == (kind, row.name)]
    assert not any(claim.excused for claim in found), "a test that is skipped or expected to fail shows nothing"
    assert {claim.file for claim in found} <= set(row.tested_by.split(", "))
    assert any(claim.error is None for claim in found), f"no test marked {kind}('{row.name}')"
    assert any(claim.error is not None for claim in found), f"no test marked {kind}('{row.name}', error=…)"


def test_every_claim_is_about_a_row() -> None:
    rows = {(kind, row.name) for kind, table in TABLES.items() for row in table()}
    assert {(claim.kind, claim.name) for claim in marks.claims()} <= rows


def test_success_is_claimed_only_of_what_works() -> None:
    claimed = {(claim.kind, claim.name) for claim in marks.claims() if claim.error is None}
    assert claimed <= {(kind, row.name) for kind, row in WORKING}


@pytest.mark.parametrize("row", [*compatibility.composites(), *compatibility.packages()], ids=lambda row: row.name)
def test_what_is_built_from_others_is_in_their_state(row: Row) -> None:
    states = {other.name: other.works for other in [*compatibility.sdk_methods(), *compatibility.wire_routes()]}
    needed: dict[str, bool] = {}
    for need in row.needs:
        matching = {name: works for name, works in states.items() if fnmatchcase(name, need)}
        assert matching, f"{row.name} needs {need}, which no table has"
        needed |= matching
    works = sum(needed.values())
    if row in compatibility.composites():
        assert row.works == all(needed.values())
    else:
        expected = WORKS if works == len(needed) else f"{PARTLY} ({works} of {len(needed)})" if works else NOT_YET
        assert row.state == expected
