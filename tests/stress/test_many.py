"""Many tasks, in a row and at once, in a process of its own with a time limit; by hand with more: see many.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress


@pytest.mark.parametrize(
    "arguments", [("row", "10000", "200"), ("alive", "1000", "300")], ids=["in a row", "alive at once"]
)
def test_many_tasks_leave_memory_descriptors_threads_and_children_flat(arguments: tuple[str, ...]) -> None:
    script = str(Path(__file__).parent / "many.py")
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": flat\n") == (4 if arguments[0] == "row" else 3)
    assert done.stderr == ""
