"""Signals to the creator in every phase of a start: none is lost, no start fails or is done twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from copyforms import FORMS, IN_NAMESPACES
from creator import run
from taskclone import CAPTURE, SHARED, THREAD, ChildSetup, CloneFlags, Plan

F = CloneFlags
pytestmark = pytest.mark.usefixtures("nothing_left")
NAMESPACES = F.NEWUSER | F.NEWPID | F.NEWUTS
PLANS: dict[str, dict[str, Any]] = {
    "shared": {"flags": SHARED},
    "shared by a host": {"flags": SHARED, "exit_signal": signal.SIGCHLD},
    "shared in namespaces": {"flags": SHARED | NAMESPACES, "setup": ChildSetup(uid_map=0, gid_map=0)},
    "shared with a setup": {"flags": F.VM, "setup": ChildSetup(cwd="/"), "name": "interrupted"},
    "in place": {"flags": SHARED | F.VFORK},
    "thread": {"flags": THREAD},
    "thread of its own": {"flags": THREAD & ~(F.FS | F.FILES)},
    "thread by clone": {"flags": THREAD | F.UNTRACED},
    "fork with a setup": {"setup": ChildSetup(cwd="/", sigmask=[signal.SIGUSR1])},
    **FORMS,
}
PROGRAMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "captured": {"stdout": CAPTURE, "setup": ChildSetup(cwd="/", close_fds=True)},
    "in namespaces": {"flags": NAMESPACES, "setup": ChildSetup(uid_map=0, gid_map=0)},
}


def of(plans: dict[str, dict[str, Any]]) -> pytest.MarkDecorator:
    in_namespaces = [name for name, fields in plans.items() if F.NEWUSER & fields.get("flags", F(0))]
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=IN_NAMESPACES if name in in_namespaces else ()) for name in plans]
    )


@contextmanager
def storm(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """SIGALRM every 150 microseconds, with system calls that it interrupts not taken up again (Python's way)."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.00015, 0.00015)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@of(PLANS)
def test_functions(name: str) -> None:
    handled: list[int] = []
    plan = Plan(**PLANS[name])
    runs: list[int] = []
    with storm(lambda *_: handled.append(os.getpid())):
        for number in range(40):
            task = plan.start(lambda number: (runs.append(number), os.getpid())[1], number)
            assert task.result(60) == (1 if F.NEWPID & plan.flags else task.pid)
            assert task.wait(60)
    assert set(handled) == {os.getpid()}
    if F.VM & plan.flags:
        assert runs == list(range(40))


@of(PROGRAMS)
def test_programs(name: str) -> None:
    handled: list[int] = []
    plan = Plan(**PROGRAMS[name])
    with storm(lambda *_: handled.append(os.getpid())):
        for _ in range(20):
            task = plan.start(["/bin/echo", "said"])
            assert task.result(60) == 0
            if task.stdout is not None:
                assert task.stdout == b"said\n"
    assert set(handled) == {os.getpid()}


HANDLER_RAISES = """
import faulthandler, sys, warnings
from test_interrupted_starts import PLANS
from proc import children_of, descriptors, until
from taskclone import _core

class Interrupted(Exception): pass
raised, came = [0], 0
def interrupt(*_):
    raised[0] += 1
    raise Interrupted
warnings.simplefilter("ignore", ResourceWarning)  # of a Task that nobody has got
sys.unraisablehook = lambda unraisable: None  # it may rise in a finalizer
plan = Plan(**PLANS[name])
def whole_start():
    task = plan.start(abs, -1)
    assert task.result(60) == 1 and task.wait(60)
whole_start()
opened = descriptors()
signal.signal(signal.SIGALRM, interrupt)
for number in range(100):
    try:
        signal.setitimer(signal.ITIMER_REAL, (10 + 7 * number) / 1e6)
        result = plan.start(abs, -number).result(60)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert result == number, result
    except Interrupted:
        came += 1
assert 0 < came <= raised[0], (came, raised)
def all_is_well():
    whole_start()  # which reaps what nobody has got
    return not children_of(os.getpid()) and descriptors() == opened
until(all_is_well, "nothing is left")
"""


@of({name: fields for name, fields in PLANS.items() if "namespaces" not in name and "NEWPID" not in name})
def test_a_handler_that_raises_leaves_nothing_half_started(name: str) -> None:
    """The exception comes out of the start or of the wait; whatever was started ends; the next start is a whole one.

    In a creator of its own: an exception in one of Python's own hooks around a fork leaves that one's lock locked, in
    os.fork() as here."""
    path = f"import sys; sys.path[:0] = {[os.path.dirname(__file__)]!r}\nname = {name!r}\n"
    assert run(path + HANDLER_RAISES) == (0, "", "")
