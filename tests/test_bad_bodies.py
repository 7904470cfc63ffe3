"""Bodies that misbehave: raise, leave by sys.exit or os._exit, are killed, crash, or never return."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from proc import state_of
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, TaskDied, _core, call, clone, stats

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
IN_PLACE = SHARED | F.VFORK
WITH_PID = pytest.mark.parametrize("flags", [PROCESS, SHARED, IN_PLACE], ids=["PROCESS", "SHARED", "in_place"])
SHARING = pytest.mark.parametrize("flags", [SHARED, IN_PLACE], ids=["SHARED", "in_place"])
EVERY = pytest.mark.parametrize(
    "flags", [PROCESS, SHARED, IN_PLACE, THREAD], ids=["PROCESS", "SHARED", "in_place", "THREAD"]
)


def died(body: Callable[..., Any], *args: Any, flags: F, **fields: Any) -> TaskDied:
    task = clone(body, *args, flags=flags, **fields)
    with pytest.raises(TaskDied) as caught:
        task.result(10)
    error = caught.value
    assert str(task.tid) in str(error)
    status = task.wait(10)
    assert error.status is not None
    assert (status.code, status.signal) == (error.code, error.signal)
    assert task.exception() is error
    assert flags == THREAD or state_of(task.pid) == ""
    return error


# ---- it ends itself -------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(
    ("given", "code"), [(None, 0), (0, 0), (3, 3), (256 + 4, 4), (-1, 255), ("message", 1), ((1,), 1)]
)
def test_sys_exit_is_an_exit_status(flags: F, given: Any, code: int) -> None:
    error = died(sys.exit, given, flags=flags)
    assert (error.code, error.signal) == (code, None)
    assert ("message" in str(error)) == (given == "message")


def interrupted() -> NoReturn:
    raise KeyboardInterrupt


@EVERY
def test_keyboard_interrupt_is_never_raised_again_in_the_creator(flags: F) -> None:
    error = died(interrupted, flags=flags)
    assert error.code == 128 + signal.SIGINT
    assert "KeyboardInterrupt" in str(error)


@EVERY
def test_a_body_that_raises_is_an_exception_and_status_1(flags: F) -> None:
    task = clone(int, "x", flags=flags)
    with pytest.raises(ValueError, match="invalid literal"):
        task.result(10)
    assert task.wait(10).code == 1


@WITH_PID
@pytest.mark.parametrize("code", [0, 7])
def test_os_exit(flags: F, code: int) -> None:
    error = died(os._exit, code, flags=flags)
    assert (error.code, error.signal) == (code, None)
    assert error.status is not None
    assert error.status.rusage is not None


# ---- it is killed ---------------------------------------------------------------------------------------------------


def without_dump() -> None:
    """A copied task has pytest's fault handler, whose dump would look as if pytest itself had crashed."""
    if not _core.in_task():
        faulthandler.disable()


def kill_self(number: int) -> None:
    without_dump()
    os.kill(os.getpid(), number)
    time.sleep(10)


@WITH_PID
def test_sigkill(flags: F) -> None:
    error = died(kill_self, signal.SIGKILL, flags=flags)
    assert (error.code, error.signal) == (None, signal.SIGKILL)
    assert "SIGKILL" in str(error)
    assert error.address is None
    assert call(abs, -2, flags=flags) == 2


@WITH_PID
@pytest.mark.parametrize("name", ["SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGBUS", "SIGXCPU"])
def test_fatal_signals_keep_their_name(flags: F, name: str) -> None:
    error = died(kill_self, signal.Signals[name], flags=flags)
    assert (error.code, error.signal) == (None, signal.Signals[name])
    assert name in str(error)


def crash_at(address: int) -> None:
    without_dump()
    ctypes.string_at(address)  # this line crashes


@WITH_PID
def test_a_segmentation_fault(flags: F) -> None:
    error = died(crash_at, 0x10, flags=flags)
    assert (error.code, error.signal) == (None, signal.SIGSEGV)
    if flags == PROCESS:
        assert (error.address, list(error.stack)) == (None, [])
    else:
        assert error.address == 0x10
        assert "at address 0x10" in str(error)


def outer() -> None:
    crash_at(0)


@SHARING
def test_the_python_stack_of_a_crash(flags: F) -> None:
    error = died(outer, flags=flags)
    names = [frame.name for frame in error.stack]
    assert names[:2] == ["outer", "crash_at"], "oldest call first"
    assert error.stack[1].line == "ctypes.string_at(0)  # this line crashes".replace("(0)", "(address)")
    assert "most recent call last" in str(error)


@SHARING
def test_what_a_crashed_task_wrote_stays_and_the_creator_goes_on(flags: F) -> None:
    box: list[int] = []

    def body() -> None:
        box.append(1)
        crash_at(0)

    before = stats()
    for _ in range(3):
        died(body, flags=flags)
    assert box == [1, 1, 1]
    after = stats()
    assert after["abandoned_states"] - before["abandoned_states"] == 3
    assert after["malloc_deaths"] == before["malloc_deaths"]
    assert [call(abs, -i, flags=flags) for i in range(5)] == list(range(5))


@SHARING
def test_a_crash_without_the_interpreter_lock(flags: F) -> None:
    libc = ctypes.CDLL(None)  # its functions are called without the lock

    def body() -> None:
        libc.strlen(ctypes.c_void_p(8))

    error = died(body, flags=flags)
    assert (error.signal, error.address) == (signal.SIGSEGV, 8)
    assert call(abs, -1, flags=flags) == 1


@SHARING
def test_an_overflow_of_the_c_stack(flags: F) -> None:
    depth: list[None] = []
    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    libc = ctypes.CDLL(None)
    array = (ctypes.c_int * 2)()

    def body() -> None:
        @callback_type
        def deeper(left: int | None, right: int | None) -> int:
            depth.append(None)
            libc.qsort(array, 2, 4, deeper)
            return 0

        deeper(None, None)

    if sys.version_info >= (3, 14):  # it looks at the C stack itself, so it must know where that of a task ends
        call(body, flags=flags, stack_size=256 << 10)
        assert 10 < len(depth) < 10_000
        return
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        error = died(body, flags=flags, stack_size=256 << 10)  # 3.12 has a limit of its own for C calls
    finally:
        sys.setrecursionlimit(limit)
    assert error.signal == signal.SIGSEGV
    assert call(abs, -1, flags=flags) == 1


# ---- it calls itself for ever ---------------------------------------------------------------------------------------


def depth_of_calls() -> int:
    depth = 0

    def deeper() -> None:
        nonlocal depth
        depth += 1
        deeper()

    with pytest.raises(RecursionError):
        deeper()
    return depth


def calls_through_c() -> str:
    """By the interpreter's own guard of the C stack, at the stack that is the default."""
    nested: list[Any] = []
    for _ in range(200_000):
        nested = [nested]
    with pytest.raises(RecursionError) as caught:
        repr(nested)
    while nested:  # else its end would be a recursion as well
        nested = nested.pop()
    return type(caught.value).__name__


def in_a_thread(body: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(body()))
    thread.start()
    thread.join()
    return results[0]


@EVERY
def test_the_recursion_limit_is_a_threads(flags: F) -> None:
    # A task is called from fewer frames than pytest's main thread or a Thread.run().
    assert abs(in_a_thread(depth_of_calls) - call(depth_of_calls, flags=flags)) < (60 if flags == PROCESS else 8)


@EVERY
def test_a_recursion_in_c_raises_as_in_a_thread(flags: F) -> None:
    assert call(calls_through_c, flags=flags) == in_a_thread(calls_through_c) == "RecursionError"


# ---- it never returns -----------------------------------------------------------------------------------------------


def sleep_for_ever() -> None:
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize("flags", [PROCESS, SHARED, THREAD], ids=["PROCESS", "SHARED", "THREAD"])
def test_call_ends_a_body_that_never_returns(flags: F) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no result after 0\.2 s: the task was ended"):
        call(sleep_for_ever, timeout=0.2, flags=flags)
    assert 0.2 <= time.monotonic() - began < 5


@pytest.mark.parametrize("flags", [PROCESS, SHARED], ids=["PROCESS", "SHARED"])
def test_call_ends_a_body_that_waits_in_the_kernel(flags: F) -> None:
    with pytest.raises(TimeoutError):
        call(time.sleep, 3600, timeout=0.05, flags=flags)


def test_call_ends_a_program_that_never_ends() -> None:
    with pytest.raises(TimeoutError, match=r"<Task \d+ program ended SIGKILL>"):
        call(["sleep", "3600"], timeout=0.05)


def test_call_within_its_timeout() -> None:
    for flags in (PROCESS, SHARED, THREAD):
        assert call(abs, -3, timeout=10, flags=flags) == 3
        with pytest.raises(ValueError, match="invalid literal"):
            call(int, "x", timeout=10, flags=flags)


def test_a_body_that_raises_timeout_error_is_not_taken_for_one_that_is_late() -> None:
    def body() -> None:
        raise TimeoutError("my own")

    for flags in (PROCESS, SHARED, IN_PLACE, THREAD):
        with pytest.raises(TimeoutError) as caught:
            call(body, timeout=None if flags == IN_PLACE else 10, flags=flags)
        assert str(caught.value) == "my own"
