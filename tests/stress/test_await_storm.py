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


# Killed where it sleeps and nowhere else: in the middle of Python's own bookkeeping nothing is promised.
KILLED_WHILE_IT_AWAITS = """
import os, select, signal, time
from taskclone import SHARED, clone
def until_it_sleeps(pid):
    while "nanosleep" not in open(f"/proc/{pid}/wchan").read(): pass
def awaiter(handle, bells):
    bells.append(handle.bell())
    time.sleep(600)
def rung(bell, timeout): return bool(select.select([bell], [], [], timeout)[0])
bells = []
for trial in range(200):
    target = clone(time.sleep, 600, flags=SHARED)
    until_it_sleeps(target.pid)
    with clone(awaiter, target._handle, bells, flags=SHARED) as task:
        until_it_sleeps(task.pid)
        os.kill(task.pid, signal.SIGKILL)
        assert task.wait(10).signal == signal.SIGKILL
    assert not rung(bells[-1], 0)
    target.kill(timeout=10)
    while bells:
        assert rung(bells[-1], 10)
        bells.pop().close()
    if trial == 10: before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
after = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
print("alive", "flat" if before == after else (before, after))
"""


def test_a_task_that_is_killed_while_it_awaits_a_sibling_leaves_that_ones_host_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_IT_AWAITS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive flat\n"), done.stderr
