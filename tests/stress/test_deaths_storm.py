"""A small storm of every kind of death, in a process of its own with a time limit; by hand with more: see deaths.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif("TASKCLONE_BUILD" not in os.environ, reason="needs the C test library: run by `make test`"),
]


def test_ends_and_crashes_of_every_kind_from_four_threads() -> None:
    script = str(Path(__file__).parent / "deaths.py")
    small_stack = ["sh", "-c", 'ulimit -s 512; exec "$@"', "sh"]
    done = subprocess.run(
        [*small_stack, sys.executable, script, "200", "200"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing else is left" in done.stdout
    assert done.stderr == ""
