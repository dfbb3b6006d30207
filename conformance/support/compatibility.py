"""The tables of docs/compatibility.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
WORKS = "works"
NOT_YET = "not yet"
PARTLY = "partly"

_ABBREVIATIONS = {"SB": "/api/v1/storage/sandboxes/{sandbox_id}", "Q": "/api/v1/query/sandboxes/{sandbox_id}"}


@dataclass(frozen=True)
class Row:
    """One line of a table: the cells by the name of their column, without back-quotes."""

    cells: dict[str, str]

    @property
    def name(self) -> str:
        return self.cells["Name"]

    @property
    def state(self) -> str:
        return self.cells["State"]

    @property
    def works(self) -> bool:
        return self.state == WORKS

    @property
    def tested_by(self) -> str:
        """The file with the row's tests."""
        return self.cells["Tested by"]

    @property
    def route(self) -> str:
        """`METHOD /whole/path`, abbreviations written out."""
        method, path = self.cells["Route"].split(" ", 1)
        head, slash, rest = path.partition("/")
        return f"{method} {_ABBREVIATIONS.get(head, head)}{slash}{rest}"

    @property
    def needs(self) -> list[str]:
        """What the row is built from; `group.*` stands for a whole resource."""
        return [need.strip() for need in self.cells["Needs"].split(",")]


def table(heading: str) -> list[Row]:
    """The first table under the heading."""
    section = _sections(DOCUMENT.read_text(encoding="utf-8")).get(heading)
    assert section is not None, f"{DOCUMENT} has no section '{heading}'"
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 2, f"the section '{heading}' of {DOCUMENT} has no table"
    columns, _, *rows = (_cells(line) for line in lines)
    assert all(len(row) == len(columns) for row in rows), f"the table '{heading}' has a row of another width"
    return [Row(dict(zip(columns, row, strict=True))) for row in rows]


def sdk_methods() -> list[Row]:
    return table("SDK methods")


def composites() -> list[Row]:
    return table("Composite methods")


def wire_routes() -> list[Row]:
    return table("Routes that no Python method calls")


def packages() -> list[Row]:
    return table("Other packages")


def matches(route: str, request: tuple[str, str]) -> bool:
    """Whether a request (method, path) is one of the route."""
    method, template = route.split(" ", 1)
    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
    return request[0] == method and re.fullmatch(pattern, request[1]) is not None


def anonymous(route: str) -> str:
    """The route with nameless parameters, so that two spellings of it compare equal."""
    return re.sub(r"\{\w+\}", "{}", route)


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {heading.strip(): body for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
