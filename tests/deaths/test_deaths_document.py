"""docs/deaths.md has a line for each test of a death, and no line without one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import test_asked_ends
import test_crash_kinds
import test_damage
import test_foreign_ends
from deathbed import Death

DOCUMENT = Path(__file__).parents[2] / "docs" / "deaths.md"
ROWS: dict[str, Death] = {
    **test_asked_ends.ENDS,
    **test_crash_kinds.CRASHES,
    **test_damage.DAMAGE,
    **test_foreign_ends.EXITS,
}
OF_ROWS = {"test_end", "test_crash", "test_damage", "test_exit"}


def lines() -> list[list[str]]:
    """The cells of the tables, without their heads."""
    rows = [line.strip("|\n").split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def own_tests(module: ModuleType) -> set[str]:
    return {name.removeprefix("test_") for name in vars(module).keys() - OF_ROWS if name.startswith("test_")}


def test_each_line_has_a_test_and_each_test_a_line() -> None:
    modules = (test_asked_ends, test_crash_kinds, test_damage, test_foreign_ends)
    tests = Counter([*ROWS]) + Counter(name for module in modules for name in own_tests(module))
    assert Counter(row[0].strip("`") for row in lines()) == tests


def test_what_is_left_behind_is_what_the_test_expects() -> None:
    said = {row[0].strip("`"): row[3] for row in lines()}
    assert {name: said[name] for name in ROWS} == {name: row.damage or "-" for name, row in ROWS.items()}


def test_each_line_has_all_cells() -> None:
    assert {len(row) for row in lines()} == {5}


def test_a_line_that_loses_something_says_so() -> None:
    said = {row[0].strip("`"): row[4] for row in lines()}
    assert [name for name, row in ROWS.items() if (row.lost or row.damage) and not said[name]] == []
