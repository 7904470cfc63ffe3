"""A Task in several threads of the creator: the outcome is taken once, and all get the same."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from loops import EVERY, LIVE, MORTAL, waiting
from proc import held
from taskclone import CAPTURE, PROCESS, CloneFlags, OutcomeError, Task, TaskDied, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
THREADS = 8


def at_once(ask: Callable[[], object]) -> list[Any]:
    """What the threads got, or the exception that was raised in one."""
    results: list[Any] = []
    gate = threading.Barrier(THREADS)

    def body() -> None:
        gate.wait(10)
        try:
            results.append(ask())
        except BaseException as error:
            results.append(error)

    askers = [threading.Thread(target=body) for _ in range(THREADS)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(20)
    assert len(results) == THREADS
    return results


def assert_one(results: list[Any]) -> Any:
    assert len({id(result) for result in results}) == 1, results
    return results[0]


made: list[int] = []


def make_slowly() -> str:
    made.append(1)
    time.sleep(0.05)
    return "made"


class Slow:
    """Is unpickled slowly, and says so."""

    def __reduce__(self) -> tuple[Any, ...]:
        return make_slowly, ()


def test_a_copied_outcome_is_unpickled_once() -> None:
    made.clear()
    task = clone(Slow)
    assert assert_one(at_once(task.result)) == "made"
    assert made == [1]


class Broken(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return break_slowly, ()


def break_slowly() -> NoReturn:
    make_slowly()
    raise LookupError("cannot be made")


def fail_broken() -> NoReturn:
    raise Broken


def test_a_copied_exception_that_cannot_be_made_is_one_error() -> None:
    task = clone(fail_broken)
    assert isinstance(assert_one(at_once(task.exception)), OutcomeError)


def test_an_unpickling_that_is_interrupted_is_done_again() -> None:
    made.clear()
    task = clone(Interrupting)
    with pytest.raises(KeyboardInterrupt):
        task.result()
    assert task.result() == "at last"


class Interrupting:
    def __reduce__(self) -> tuple[Any, ...]:
        return interrupt_once, ()


def interrupt_once() -> str:
    made.append(1)
    if len(made) == 1:
        raise KeyboardInterrupt
    return "at last"


asked: list[Task[Any]] = []


class Asking:
    """Asks for the very outcome that it is a part of."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ask, ()


def ask() -> str:
    return f"done: {asked[0].done()}"


def test_what_is_unpickled_may_ask_the_task() -> None:
    asked[:] = [clone(Asking)]
    assert asked[0].result() == "done: True"
    asked.clear()


def fail() -> NoReturn:
    raise LookupError("no such thing")


@EVERY
def test_all_threads_get_the_same_value(flags: F) -> None:
    assert assert_one(at_once(clone(sorted, (2, 1), flags=flags).result)) == [1, 2]


@EVERY
def test_all_threads_get_the_same_exception_with_one_traceback(flags: F) -> None:
    task = clone(fail, flags=flags)
    error = assert_one(at_once(task.exception))
    assert isinstance(error, LookupError)
    assert assert_one(at_once(task.result)) is error
    with pytest.raises(LookupError) as caught:
        task.result()
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "fail"
    assert names.count("result") == 1, "the traceback of a raise in another thread is not in it"


@MORTAL
def test_all_threads_get_the_same_death(flags: F) -> None:
    def die() -> None:
        os.write(2, b"so long")
        os.kill(os.getpid(), signal.SIGSYS)  # pytest's faulthandler does not speak up for that one

    task = clone(die, flags=flags & ~F.FILES, stderr=CAPTURE)
    error = assert_one(at_once(task.exception))
    assert isinstance(error, TaskDied)
    assert error.last_words == "so long"
    if flags & F.VM:
        assert [frame.name.rpartition(".")[2] for frame in error.stack] == ["die"]


@EVERY
def test_all_threads_get_the_same_exit(flags: F) -> None:
    error = assert_one(at_once(clone(exit_with, 3, flags=flags).exception))
    assert isinstance(error, TaskDied)
    assert error.code == 3


def exit_with(code: int) -> NoReturn:
    raise SystemExit(code)


@LIVE
def test_result_in_one_thread_while_another_waits(flags: F) -> None:
    with waiting(flags) as (task, release):
        seen: list[Any] = []
        waiters = [
            threading.Thread(target=lambda ask=ask: seen.append(ask()))  # type: ignore[misc]
            for ask in (task.result, task.wait, task.result, lambda: task.result(10), lambda: task.wait(10))
        ]
        for waiter in waiters:
            waiter.start()
        with pytest.raises(TimeoutError):
            task.result(0.02)
        release()
        assert task.result(10) == "x"
        for waiter in waiters:
            waiter.join(10)
    assert [one for one in seen if isinstance(one, str)] == ["x"] * 3
    assert [one.code for one in seen if not isinstance(one, str)] == [0] * 2


def test_a_status_that_was_lost_can_be_asked_for_after_the_outcome() -> None:
    with held(PROCESS) as task:
        pass
    assert task.result() is None
    assert task.wait().code == 0
