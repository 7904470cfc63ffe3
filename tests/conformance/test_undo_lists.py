"""Adjustments to semaphores (SEM_UNDO) are taken back at the end of the last task that has the list (semop(2))."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

import creator
from taskclone.flags import THREAD, CloneFlags, flag_names

F = CloneFlags
GETVAL, IPC_RMID = 12, 0
SETS = [F(0), F.CLEAR_SIGHAND, F.FILES, F.VM, F.VM | F.VFORK, THREAD & ~F.SYSVSEM]
"""A fork, a relay, a bare copy, a host's task, one in place, a thread; each without SYSVSEM."""


@pytest.mark.parametrize("flags", SETS, ids=flag_names)
@pytest.mark.parametrize("shares", [False, True], ids=["own", "shared"])
def test_who_takes_them_back(flags: F, shares: bool) -> None:
    """At the task's end, or at the creator's."""
    script = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from task_side import add_to_semaphore, libc
number = libc.semget(0, 1, 0o600)
task = clone(add_to_semaphore, number, 5, flags={int(flags | F.SYSVSEM) if shares else int(flags)})
task.wait()
task.result()
while os.path.exists(f"/proc/{{task.tid}}"): time.sleep(0.001)
say(number, libc.semctl(number, 0, {GETVAL}))
"""
    status, out, err = creator.run(script)
    assert (status, err) == (0, "")
    number, after_the_task = map(int, out.split())
    libc = ctypes.CDLL(None)
    after_the_creator = libc.semctl(number, 0, GETVAL)
    assert libc.semctl(number, 0, IPC_RMID) == 0
    assert (after_the_task, after_the_creator) == (5 if shares else 0, 0)
