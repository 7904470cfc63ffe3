"""The table of other projects' cases names tests that are there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from upstream import CASES

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_held_or_has_a_reason_not_to_be(case: str) -> None:
    where = CASES[case]
    if where.startswith("- "):
        assert len(where) > 10
        return
    file, _, name = where.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
