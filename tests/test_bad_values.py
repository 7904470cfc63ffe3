"""Bad input, second half: fields, timeouts, what cannot be pickled, signals that a task cannot be sent."""

from __future__ import annotations

import errno
import math
import os
import pickle
import resource
import signal
import traceback
from typing import Any

import pytest

from proc import held
from taskclone import (
    PROCESS,
    SHARED,
    THREAD,
    ChildSetup,
    CloneFlags,
    ExitStatus,
    FlagError,
    OutcomeError,
    Plan,
    StartError,
    TaskDied,
    TaskError,
    TaskTerminated,
    UnsupportedOperation,
    call,
    clone,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
IN_PLACE = SHARED | F.VFORK
EVERY = pytest.mark.parametrize(
    "flags", [PROCESS, SHARED, IN_PLACE, THREAD], ids=["PROCESS", "SHARED", "in_place", "THREAD"]
)


def never() -> None:
    raise AssertionError("a body ran")


# ---- fields and timeouts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [clone, call, lambda body, **fields: Plan(**fields)])
def test_an_unknown_field(start: Any) -> None:
    for field in ("limits", "template", "cwd", "nmae"):
        with pytest.raises(TypeError, match=field):
            start(never, **{field: None})


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": 3}, TypeError),
        ({"name": "a\0b"}, ValueError),
        ({"setup": {}}, TypeError),
        ({"exit_signal": "SIGCHLD"}, TypeError),
        ({"exit_signal": True}, TypeError),
        ({"exit_signal": 65}, ValueError),
        ({"exit_signal": -1}, ValueError),
        ({"stack_size": 100}, ValueError),
        ({"stack_size": "1M"}, ValueError),
    ],
)
def test_bad_values_of_fields(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        clone(never, flags=SHARED, **fields)


@EVERY
def test_bad_timeouts(flags: F) -> None:
    task = clone(int, flags=flags)
    for method in (task.result, task.exception, task.wait, lambda timeout: task.kill(timeout=timeout), task.terminate):
        for timeout, error in ((-1, ValueError), (math.nan, ValueError), (True, TypeError), ("1", TypeError)):
            with pytest.raises(error):
                method(timeout)
    assert task.wait(math.inf).code == 0
    assert task.result(1e30) == 0
    for timeout, error in ((-1, ValueError), (math.nan, ValueError), (False, TypeError)):
        with pytest.raises(error):
            call(never, timeout=timeout, flags=flags)


def test_a_timeout_with_vfork_names_shared() -> None:
    with pytest.raises(FlagError, match="SHARED") as caught:
        call(never, timeout=1, flags=IN_PLACE)
    assert caught.value.rule == "timeout-needs-no-vfork"
    assert call(["true"], timeout=10, flags=F.VM | F.VFORK) == 0


# ---- pickling -------------------------------------------------------------------------------------------------------


@EVERY
def test_arguments_need_no_pickling(flags: F) -> None:
    unpicklable = (value for value in [4])
    assert call(next, unpicklable, flags=flags) == 4


def test_what_cannot_be_pickled_is_named() -> None:
    for flags in (SHARED, THREAD):
        assert call(lambda: (value for value in ()), flags=flags) is not None
    task = clone(lambda: (value for value in ()))
    with pytest.raises(OutcomeError, match="the result cannot be pickled: result is a generator "):
        task.result(10)


class Loud(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class OneWay:
    def __reduce__(self) -> Any:
        return refuse, ()


class NeedsTwo(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)


def refuse() -> None:
    raise LookupError("not here")


def raise_loud() -> None:
    raise Loud("x")


def raise_needs_two() -> None:
    raise NeedsTwo(1, 2)


def test_an_exception_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(OutcomeError, match=r"exception Loud.* cannot be pickled: exception .*not me") as caught:
        call(raise_loud)
    assert "raise_loud" in "".join(traceback.format_exception(caught.value)), "its own traceback is not lost"


def test_an_outcome_that_cannot_be_unpickled() -> None:
    with pytest.raises(OutcomeError, match=r"cannot be unpickled: result is made by the function .*refuse"):
        call(OneWay)


def test_an_exception_whose_init_does_not_take_its_own_arguments() -> None:
    with pytest.raises(NeedsTwo) as caught:
        call(raise_needs_two)
    assert caught.value.args == (1,)


@EVERY
def test_a_task_refuses_to_be_pickled(flags: F) -> None:
    task = clone(int, flags=flags, name="w")
    with pytest.raises(TypeError, match=r"<Task \d+ 'w'"):
        pickle.dumps(task)
    assert task.result(10) == 0
    task.wait(10)


def test_a_plan_with_streams_refuses_to_be_pickled_and_others_do_not() -> None:
    plan = Plan("VM|FILES", name="w", setup=ChildSetup(core=True), daemon=True)
    assert pickle.loads(pickle.dumps(plan)) == plan
    with pytest.raises(TypeError, match="stdout"):
        pickle.dumps(Plan(stdout=1))


STATUS = ExitStatus(None, signal.SIGSEGV, False, None, "wait")


@pytest.mark.parametrize(
    "error",
    [
        TaskError("a"),
        FlagError(errno.EINVAL, "no", "a-rule"),
        StartError(errno.ENOENT, "execve", "advice", "prog"),
        StartError(errno.EAGAIN, "clone3"),
        TaskDied("task 1 died", STATUS, None, 0x10, ("malloc",)),
        OutcomeError("x"),
        UnsupportedOperation("y"),
        TaskTerminated(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_pickled(error: BaseException) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert {name: repr(value) for name, value in vars(copy).items()} == {
        name: repr(value) for name, value in vars(error).items()
    }


# ---- signals --------------------------------------------------------------------------------------------------------


def test_a_thread_cannot_be_killed_or_stopped() -> None:
    with held(THREAD) as task:
        with pytest.raises(UnsupportedOperation, match="SHARED"):
            task.kill()
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGHUP):
            assert number in (signal.SIGKILL, signal.SIGSTOP) or signal.getsignal(number) is signal.SIG_DFL
            with pytest.raises(UnsupportedOperation, match=number.name):
                task.send_signal(number)
        task.send_signal(signal.SIGURG)
    assert task.wait(10).code == 0


@pytest.mark.parametrize("flags", [PROCESS, SHARED, THREAD], ids=["PROCESS", "SHARED", "THREAD"])
def test_signals_to_a_task_that_has_ended(flags: F) -> None:
    task = clone(int, flags=flags)
    task.wait(10)
    with pytest.raises(ProcessLookupError):
        task.send_signal(signal.SIGURG)
    task.terminate()
    with held(flags) as task, pytest.raises((OSError, ValueError)):
        task.send_signal(12345)


def test_a_task_cannot_start_when_descriptors_are_used_up() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, limits[1]))
    try:
        for body, fields in ((never, {}), (never, {"flags": SHARED, "exit_signal": signal.SIGCHLD}), (["true"], {})):
            with pytest.raises(OSError, match="Too many open files") as caught:
                call(body, **fields)
            assert caught.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(top)
