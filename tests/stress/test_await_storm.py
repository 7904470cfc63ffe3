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


KILLED_WHILE_IT_AWAITS = """
import mmap, os, random, subprocess, tempfile, time
from taskclone import SHARED, Task, clone
file = tempfile.NamedTemporaryFile()
file.truncate(1)
going = mmap.mmap(file.fileno(), 1)
def awaiter(handle):
    while True:
        handle.bell().close()
        going[0] = 1
deadline = time.monotonic() + 20
for trial in range(300):
    if time.monotonic() > deadline: break
    target = clone(time.sleep, 600, flags=SHARED)
    _ = target.pid
    task = clone(awaiter, target._handle, flags=SHARED)
    # The creator is in wait4() without the interpreter lock from before the kill to after it, and the task goes on with
    # the lock: who dies waiting for that is another matter.
    asleep = f"until grep -q do_wait /proc/{os.getpid()}/wchan; do :; done"
    goes_on = f"head -c 1 /dev/zero 1<>{file.name}; while [ $(od -An -tu1 {file.name}) = 0 ]; do :; done"
    pause = f"sleep 0.0{random.randrange(10, 30)}"
    subprocess.run(["/bin/sh", "-c", f"{asleep}; {goes_on}; {pause}; kill -9 {task.pid}; sleep 0.01"])
    task.wait(10)
    target.kill(timeout=10)
print("alive")
"""


def test_a_task_that_is_killed_while_it_awaits_a_sibling_leaves_that_ones_host_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_IT_AWAITS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
