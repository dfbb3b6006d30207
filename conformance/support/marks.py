"""Which tests claim to cover what, read from the source: selecting tests on the command line changes nothing here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]
COVERING = ("sdk", "composite", "wire")
EXCUSES = {"skip", "xfail"}


@dataclass(frozen=True)
class Claim:
    """One `@pytest.mark.<kind>("name")`."""

    kind: str
    name: str
    file: str
    test: str
    error: int | None
    excused: bool
    """The test is skipped or expected to fail, so it proves nothing."""


@cache
def claims() -> list[Claim]:
    """All claims of all tests."""
    return [claim for path in sorted(FOLDER.glob("test_*.py")) for claim in _claims_of(path)]


def _claims_of(path: Path) -> Iterator[Claim]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield from _claims_of_test(node, path.name)


def _claims_of_test(test: ast.FunctionDef | ast.AsyncFunctionDef, file: str) -> Iterator[Claim]:
    nodes = [node for decorator in test.decorator_list for node in ast.walk(decorator)]
    excused = any(_mark(node) in EXCUSES for node in nodes)
    for node in nodes:
        if not isinstance(node, ast.Call) or (kind := _mark(node.func)) not in COVERING:
            continue
        (name,) = (ast.literal_eval(argument) for argument in node.args)
        error = next((ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == "error"), None)
        yield Claim(kind, name, file, test.name, error, excused)


def _mark(node: ast.AST) -> str | None:
    """The name after `pytest.mark.`."""
    match node:
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="pytest"), attr="mark"), attr=name):
            return name
    return None
