"""Many ends and crashes at random moments, and many plain waits: nothing hangs, nothing is left behind.

Each in a process of its own with a watchdog.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif("TASKCLONE_BUILD" not in os.environ, reason="needs the C test library: run by `make test`"),
]

HERE = Path(__file__).parent


def test_ends_and_crashes_from_two_threads() -> None:
    """200 ends and 200 crashes, shared and in place; then the process exits 0 within 2 s."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "storm.py"), "200", "200"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as storm:
        watchdog = subprocess.Popen(["sh", "-c", f"sleep 120; kill -9 {storm.pid}"], start_new_session=True)
        try:
            assert storm.stdout is not None
            assert storm.stderr is not None
            line = storm.stdout.readline()
            printed = time.monotonic()
            errors = storm.stderr.read()
            code = storm.wait()
            took = time.monotonic() - printed
        finally:
            os.killpg(watchdog.pid, 9)
            watchdog.wait()
    assert line, errors
    seen = json.loads(line)
    assert seen["failures"] == []
    assert seen["after"] == seen["before"]
    assert seen["stats"]["malloc_deaths"] == 0
    # Crashes, and ends that the kernel carried out, leave their thread state; clean ends do not.
    assert 200 <= seen["stats"]["abandoned_states"] <= 400
    assert seen["stats"]["abandoned_states"] == seen["stats"]["retired_hosts"]
    assert code == 0, errors
    assert took < 5


WAITS = """
import os, signal
from taskclone import SHARED, clone
def body(): pass
for _ in range(10_000):
    task = clone(body, flags=SHARED, exit_signal=signal.SIGCHLD)
    pid, status = os.wait()
    assert (pid, status) == (task.pid, 0), (pid, status, task)
    assert task.wait().code == 0
try:
    os.wait()
except ChildProcessError:
    print("none stolen, none left")
"""


def test_ten_thousand_plain_waits() -> None:
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "none stolen, none left\n"), done.stderr
