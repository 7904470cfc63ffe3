"""docs/flags.md is what the table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskclone.flagdoc import main, render
from taskclone.flags import ROWS

DOCUMENT = Path(__file__).parents[2] / "docs" / "flags.md"


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(), "run: python -m taskclone.flags --write"


def test_every_flag_has_its_line_in_both_tables() -> None:
    _, text = render().split("## What is shared")  # the presets come before
    assert {member.name: text.count(f"\n| `{member.name}` |") for member in ROWS} == {m.name: 2 for m in ROWS}


def test_write_makes_what_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "flags.md"
    assert main(["--check", str(document)]) == 1
    assert main(["--write", str(document)]) == 0
    assert main(["--check", str(document)]) == 0
    document.write_text(document.read_text(encoding="utf-8").replace("0x100", "0x101"), encoding="utf-8")
    capsys.readouterr()
    assert main(["--check", str(document)]) == 1
    assert "is stale: run python -m taskclone.flags --write" in capsys.readouterr().out
