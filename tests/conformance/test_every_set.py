"""Exactly what was asked for is shared: every legal set, by every route that may carry it, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from observer import look
from task_side import IGNORED

import creator
from copyforms import IN_NAMESPACES
from proc import SLOWNESS, held
from taskclone import ChildSetup
from taskclone.flags import CloneFlags

F = CloneFlags
HERE = Path(__file__).parent
HANGS = 1 * SLOWNESS
"""Seconds after which a case hangs that is meant to."""
TIMEOUT = 300 * SLOWNESS
"""Seconds; the longer of the two parts takes 20 on an ordinary machine. A case that hangs is named long before."""


def prove(part: str, tell: list[str]) -> None:
    path = os.pathsep.join([str(HERE.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, HERE / "prove.py", "--only", part],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    tell.append(done.stdout.rstrip())


def test_sets_without_namespaces(tell: list[str]) -> None:
    prove("sharing", tell)


@IN_NAMESPACES
def test_sets_with_namespaces(tell: list[str]) -> None:
    """Each on every base, pairs and triples on bases that cover what any two flags are to each other."""
    prove("namespaces", tell)


# ---- the proof itself can fail --------------------------------------------------------------------------------------

WRONG = [
    (F(0), F.FILES, "kcmp FILES: False; descriptor is the creator's: False"),
    (F.FILES, F(0), "descriptor is the creator's: True"),
    (F(0), F.FS, "kcmp FS: False; cwd is the creator's: False; umask is the creator's: False"),
    (F.FS, F(0), "umask is the creator's: True"),
    (F(0), F.IO, "kcmp IO: False"),
    (F.IO, F(0), "kcmp IO: True"),
    (F(0), F.SYSVSEM, "undo outlives the task: False"),
    (F.VM | F.SYSVSEM, F.VM, "undo outlives the task: True"),
    (F(0), F.VM, "memory is the creator's: False"),
    (F.VM, F(0), "memory is the creator's: True"),
    (F.VM, F.VM | F.SIGHAND, "disposition is the creator's: False"),
    (F.VM | F.SIGHAND, F.VM, "handler kept: True"),
    (F(0), F.CLEAR_SIGHAND, "handler kept: True"),
    (F.CLEAR_SIGHAND, F(0), "handler kept: False"),
    (F.VM, F.VM | F.VFORK, "creator slept: False"),
    (F.VM | F.VFORK, F.VM, "it hangs"),
    (F(0), F.PARENT, "the creator's parent: False"),
    (F(0), F.NEWUSER, "new user: False"),
    (F.NEWUSER, F(0), "new user: True"),
    (F.NEWUSER | F.NEWPID, F.NEWUSER, "new pid: True"),
    (F.NEWUSER | F.NEWIPC, F.NEWUSER, "semaphore is there: False"),
]


def judged(lines: Sequence[tuple[int, int]], more: str = "") -> tuple[list[str], int]:
    """What the proof has against each (started, asked), and how many it has proved. In a process that may fork."""
    script = f"""
sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}
import json
from observer import Proof
from sets import Case
lines = {lines!r}
{more}
proof = Proof([Case(asked, "clone") for _, asked in lines], [Case(started, "clone") for started, _ in lines], {HANGS})
proof.run()
say(json.dumps([proof.failures, proof.proved.total()]))
"""
    status, out, err = creator.run(script)
    assert (status, err) == (0, "")
    failures, proved = json.loads(out)
    return failures, proved


def test_a_task_that_shares_something_else_is_found_out() -> None:
    """Each observation, both ways; and the cases behind one that hangs are tried."""
    no_users = IN_NAMESPACES.args[0]
    wrong = [line for line in WRONG if not (no_users and F.NEWUSER & (line[0] | line[1]))]
    good = [(0, 0), (int(F.FILES), int(F.FILES)), (int(F.VM), int(F.VM))]
    failures, proved = judged([(int(started), int(asked)) for started, asked, _ in wrong] + good)
    assert proved == len(good)
    missed = [(word, failure) for (_, _, word), failure in zip(wrong, failures, strict=True) if word not in failure]
    assert not missed


def test_a_refusal_that_is_not_in_the_list_is_a_failure() -> None:
    (failure,), _ = judged([(int(F.VM | F.PARENT), int(F.FILES))])
    assert "refused, which is not allowed" in failure


def test_what_the_cases_leave_behind_is_seen() -> None:
    leaking = """
import creator_side
start = creator_side._start
creator_side._start = lambda *arguments: (os.dup(0), start(*arguments))[1]
"""
    failures, proved = judged([(0, 0), (0, 0)], leaking)
    assert proved == 2
    assert len(failures) == 1
    assert failures[0].startswith("left behind: {")


def test_a_task_that_ends_before_it_is_looked_at_is_named() -> None:
    early = """
import creator_side
creator_side.body = lambda words, *rest: (say_word(words, ready=1 << 22), os._exit(3))
from task_side import say as say_word
"""
    (failure,), proved = judged([(0, 0)], early)
    assert proved == 0
    assert failure.startswith("0 by clone (copied by fork)")
    assert "the look at it" in failure


def test_a_task_without_proc_is_found_by_its_parent() -> None:
    nameless = """
import task_side
task_side.number_outside = lambda: 0
"""
    sets = [int(flags) for flags in (F(0), F.UNTRACED, F.FILES, F.VM, F.VM | F.VFORK)]
    assert judged([(flags, flags) for flags in sets], nameless) == ([], len(sets))


def test_a_signal_that_is_not_ignored_any_more_is_seen() -> None:
    """The one observation that no flag changes."""
    before = signal.signal(IGNORED, signal.SIG_IGN)
    try:
        for setup, kept in ((ChildSetup(), True), (ChildSetup(signals={IGNORED: "default"}), False)):
            with held(F(0), setup=setup) as task:
                assert look(os.getpid(), task.pid)["ignored kept"] is kept
    finally:
        signal.signal(IGNORED, before)
