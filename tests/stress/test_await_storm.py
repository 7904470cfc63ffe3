"""Many ends and crashes of tasks that an event loop waits for: each of them ends its await.

Each in a process of its own with a watchdog.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif("TASKCLONE_BUILD" not in os.environ, reason="needs the C test library: run by `make test`"),
]

SCRIPT = Path(__file__).parent / "await_storm.py"


@pytest.mark.parametrize("kind", ["kill", "terminate", "crash"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_every_end_ends_the_await(loop: str, kind: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, loop, kind, "300"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["failures"] == []
    assert seen["after"] == seen["before"]
