"""Threads of this package, seen by the kernel: what a Task says was granted is what the call was given."""

from __future__ import annotations

import pytest
from scripts import python

from taskclone import THREAD, CloneFlags

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags


def test_granted_is_what_the_kernel_was_given() -> None:
    traced = python("""
from taskclone import *
F = CloneFlags
for more in (0, F.IO, F.UNTRACED, F.PARENT, F.CHILD_SETTID, F.VFORK, F.PTRACE):
    for own in (0, F.FILES, F.FS | F.SYSVSEM):
        if own and not more: continue # unshare does it
        task = clone(int, flags=(THREAD | more) & ~own)
        assert task.result(10) == 0
        say(task.tid, int(task.granted.flags))
""")
    given = {call.child: call.flags for call in traced.calls}
    granted = [(int(tid), F(int(flags))) for tid, flags in (line.split() for line in traced.out.splitlines())]
    assert len(granted) == 19
    assert [given[tid] for tid, _ in granted] == [flags for _, flags in granted]
    assert granted[0][1] == THREAD
    followed = {call.child for call in traced.calls if call.followed}
    assert {tid for tid, flags in granted if not flags & F.UNTRACED} == followed & {tid for tid, _ in granted}
