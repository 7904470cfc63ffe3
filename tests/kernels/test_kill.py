"""Ending tasks that compute, sleep or read, whatever they share; nothing of them is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proc import PATIENCE, gone, in_call, pipe, until
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Task, TaskDied, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
LIVE = {"copied": PROCESS, "shared": SHARED, "with handlers": F.VM | F.SIGHAND, "thread": THREAD}
IN_PLACE = SHARED | F.VFORK


Body = Callable[[int], object]
"""Gets a descriptor from which nothing comes."""


def spin(silent: int) -> None:
    while True:
        pass


def sleep(silent: int) -> None:
    time.sleep(3600)


def read(silent: int) -> None:
    os.read(silent, 1)


def steps(silent: int) -> None:
    """What a thread can be asked to leave: its exception rises between two of its steps."""
    while True:
        time.sleep(0.001)


BODIES = [spin, sleep, read]
WAITS_IN = {sleep: 230, read: 0} if os.uname().machine == "x86_64" else {sleep: 115, read: 63}
"""The numbers of clock_nanosleep and read."""


@pytest.fixture
def silent(nothing_left: None) -> Iterator[int]:
    with pipe() as (read_end, _):
        yield read_end


def started(body: Body, silent: int, flags: F) -> Task[Any]:
    """A task that has come as far as its body."""
    with pipe() as (read_end, write_end):

        def begun() -> object:
            os.write(write_end, b"x")
            return body(silent)

        task = clone(begun, flags=flags)
        assert os.read(read_end, 1) == b"x"
    return task


def assert_ended(task: Task[Any], flags: F) -> TaskDied:
    """Ended and reaped, without a result; and the next task runs."""
    error = task.exception(0)
    assert isinstance(error, TaskDied)
    assert task.status is not None
    assert flags & F.THREAD or not os.path.exists(f"/proc/{task.pid}")
    assert call(abs, -7, flags=flags) == 7
    return error


@pytest.mark.parametrize("flags", [f for f in LIVE.values() if f != THREAD], ids=[n for n in LIVE if n != "thread"])
@pytest.mark.parametrize("body", BODIES)
def test_kill(flags: F, body: Body, silent: int) -> None:
    task = started(body, silent, flags)
    task.kill(timeout=PATIENCE)
    error = assert_ended(task, flags)
    assert error.signal == signal.SIGKILL or (flags != PROCESS and error.code == 128 + signal.SIGTERM)


@pytest.mark.parametrize("flags", LIVE.values(), ids=LIVE)
@pytest.mark.parametrize("body", BODIES)
def test_terminate(flags: F, body: Body, silent: int) -> None:
    """A body of Python code is left by an exception; one in a system call is killed after its grace, unless it is a
    copy, whose handler interrupts the call."""
    task = started(steps if flags == THREAD else body, silent, flags)
    task.terminate(grace=0.05 if body is not spin else PATIENCE, timeout=PATIENCE)
    error = assert_ended(task, flags)
    if flags == THREAD or (body is spin and flags != PROCESS):
        assert error.code == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("body", "number"),
    [(spin, signal.SIGTERM)]
    + [(body, number) for body in (sleep, read) for number in (signal.SIGTERM, signal.SIGKILL)],
)
def test_in_place_another_thread_ends_it(body: Body, number: int, silent: int) -> None:
    """The caller sleeps in the kernel until its task ends."""
    with pipe() as (read_end, write_end):

        def begun() -> None:
            os.write(write_end, b"%d\n" % os.getpid())
            body(silent)

        def end() -> None:
            pids.append(int(os.read(read_end, 20)))
            if body in WAITS_IN:  # a SIGKILL where it waits for the interpreter lock would leave that unusable
                until(lambda: in_call(pids[0], WAITS_IN[body]), "it waits")
            os.kill(pids[0], number)

        pids: list[int] = []
        ender = threading.Thread(target=end)
        ender.start()
        task = clone(begun, flags=IN_PLACE)
        ender.join()
    assert pids == [task.pid]
    error = task.exception(0)
    assert isinstance(error, TaskDied)
    if number == signal.SIGKILL:
        assert error.signal == signal.SIGKILL
    assert gone(task.pid)
    assert call(abs, -7, flags=IN_PLACE) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_programs(number: int) -> None:
    task = clone(["sleep", "3600"])
    task.send_signal(number)
    assert task.wait(PATIENCE).signal == number
    assert not os.path.exists(f"/proc/{task.pid}")
