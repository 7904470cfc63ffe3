"""The creator of the cases: it starts each, waits for its end, and tells the observer what has changed for itself."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sets import Case
from task_side import Prepared, body, program, say

from proc import children_of, descriptors, threads, until
from taskclone import Task, TaskError, UnsupportedOperation, _core, clone, fork

PROGRAM_WORDS, PROGRAM_GO = 9, 8
"""A shell has one digit for a descriptor."""


def serve(cases: Sequence[Case], first: int, words: int, go: int) -> None:
    """All of the cases from ``first`` on; each begins when the observer has seen the end of the one before."""
    warnings.simplefilter("error")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(words, PROGRAM_WORDS)
    os.dup2(go, PROGRAM_GO)
    prepared = Prepared(go)
    opened = descriptors()
    say(words, semaphore=prepared.semaphore)
    os.read(go, 1)
    for number in range(first, len(cases)):
        say(words, case=number)
        try:
            task = _start(cases[number], prepared, words, go)
            say(words, started=task.tid)
            task.wait()
            # A thread's join returns before the kernel has undone its semaphores.
            until(lambda tid=task.tid: not Path(f"/proc/{tid}").exists(), "the task is gone")
            granted = int(task.granted.flags)
            outcome = task.exception()
            if outcome is not None:
                say(words, failed=f"its end: {outcome!r}"[:1000])
            say(words, after=prepared.changed(), granted=granted)
            del task
        except UnsupportedOperation as error:
            say(words, refused=str(error))
        except TaskError as error:
            say(words, failed=f"its start: {error!r}"[:1000])
            say(words, after=prepared.changed(), granted=0)
    say(words, end=_left_behind(opened))


def _left_behind(opened: dict[int, str]) -> list[str]:
    """What all the cases together have left in their creator, but for idle hosts."""
    _core.hosts_end()
    until(lambda: len(threads()) == 1, "no thread is left")
    new = {number: path for number, path in descriptors().items() if opened.get(number) != path}
    children = children_of(os.getpid())
    return [f"left behind: {what}" for what in (new, children) if what]


def _start(case: Case, prepared: Prepared, words: int, go: int) -> Task[Any]:
    if case.door == "program":
        return clone(program(PROGRAM_WORDS, PROGRAM_GO), flags=case.flags)
    if case.door == "fork":
        task = fork(case.flags)
        if task is None:
            try:
                body(words, go, prepared.semaphore)
                os._exit(0)
            finally:
                os._exit(1)
        return task
    return clone(body, words, go, prepared.semaphore, flags=case.flags, bare=case.door == "bare")
