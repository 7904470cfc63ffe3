from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

import creator
from taskclone.cli import doctor as command
from taskclone.cli import main
from taskclone.doctor.examine import examine
from taskclone.doctor.finding import Finding, finding
from taskclone.report.findings import findings_table

RUN = [sys.executable, "-c", "from taskclone.cli import main; main()", "doctor"]
KEYS = ["topic", "name", "value", "state", "meaning", "needed"]


def test_the_table_shows_every_finding_on_a_line() -> None:
    done = subprocess.run(RUN, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    head = [cell.strip() for cell in lines[1].strip("┃").split("┃")]
    assert head == ["", "what", "here", "state", "what it means for taskclone"]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    for found in examine():
        (cells,) = [cells for cells in rows if cells[1] == found.name]
        assert cells[3] == found.state
        assert cells[4] == found.meaning
    assert lines[-1] == "nothing that is needed is missing"


def test_json_has_a_schema_that_stays() -> None:
    done = subprocess.run([*RUN, "--json"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert list(document) == ["schema", "ok", "findings"]
    assert (document["schema"], document["ok"]) == (1, True)
    for found in document["findings"]:
        assert list(found) == KEYS
        assert isinstance(found["needed"], bool)
        assert all(isinstance(found[key], str) for key in KEYS[:-1])
    names = [found["name"] for found in document["findings"]]
    for name in ("kernel", "clone3", "pidfd_open", "kcmp", "CLONE_VM", "/etc/subuid", "seccomp", "pids.max", "Python"):
        assert name in names


def run_with(monkeypatch: pytest.MonkeyPatch, findings: list[Finding], *options: str) -> Any:
    monkeypatch.setattr(command, "examine", lambda: findings)
    return CliRunner().invoke(main, ["doctor", *options])


BAD = finding("system", "kernel", "4.0 [old]", "missing", "too old", True)
GOOD = finding("flags", "CLONE_VM", "yes", "ok", "Memory is shared.")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_exit_status_says_that_something_needed_is_missing(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    done = run_with(monkeypatch, [BAD, GOOD], *options)
    assert done.exit_code == 1
    if options:
        assert json.loads(done.output)["ok"] is False
    else:
        assert "needed and missing: kernel" in done.output
        assert "4.0 [old]" in done.output, "brackets are no mark-up"
        assert "missing, needed" in done.output
    absent = finding("system calls", "kcmp", "EPERM", "missing", "not needed")
    assert run_with(monkeypatch, [absent, GOOD], *options).exit_code == 0


def test_a_topic_is_a_section() -> None:
    table = findings_table([BAD, GOOD, GOOD])
    assert [row.end_section for row in table.rows] == [True, False, True]
    assert table.row_count == 3


def test_without_rich_json_is_still_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = run_with(monkeypatch, [GOOD])
    assert done.exit_code == 1
    assert "rich" in done.output
    assert run_with(monkeypatch, [GOOD], "--json").exit_code == 0


def test_under_a_filter_that_leaves_no_threads_it_ends_with_1() -> None:
    tests = os.path.dirname(os.path.dirname(__file__))
    status, out, err = creator.run(
        f"import errno; sys.path.insert(0, {tests!r}); import seccomp; seccomp.refuse('clone3', errno.EPERM)\n"
        "from taskclone.cli import main; main(['doctor'])"
    )
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == "needed and missing: threads of libc"
