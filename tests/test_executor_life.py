"""The executor itself: its end, its thread, and who forks for it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import warnings
import weakref
from concurrent import futures
from typing import Any

import pytest

from copyforms import IN_NAMESPACES
from creator import run
from executors import EVERY, ROUTES, WITH_PID, wait_for
from proc import threads, until
from taskclone import SHARED, CloneFlags, Executor, clone

pytestmark = pytest.mark.usefixtures("nothing_left")


# ---- cancelling, and the end ----------------------------------------------------------------------------------------


@EVERY
def test_calls_that_have_not_begun_can_be_cancelled(flags: CloneFlags, gate: tuple[int, int]) -> None:
    with Executor(1, flags) as executor:
        running, dropped, last = (executor.submit(wait_for, gate[0]) for _ in range(3))
        assert not running.cancel()
        assert running.running()
        assert dropped.cancel()
        os.write(gate[1], b"xx")
        assert last.result(10) == gate[0]
        assert running.result(10) == gate[0]
        assert dropped.cancelled()


@EVERY
def test_shutdown_carries_out_what_was_submitted(flags: CloneFlags) -> None:
    executor = Executor(1, flags)
    jobs = [executor.submit(time.sleep, 0.02) for _ in range(5)]
    executor.shutdown()
    assert all(job.done() for job in jobs)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -1)
    executor.shutdown()


@EVERY
def test_shutdown_that_does_not_wait(flags: CloneFlags, gate: tuple[int, int]) -> None:
    executor = Executor(1, flags)
    jobs = [executor.submit(wait_for, gate[0]) for _ in range(2)]
    executor.shutdown(wait=False)
    assert not any(job.done() for job in jobs)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -1)
    os.write(gate[1], b"xx")
    assert [job.result(10) for job in jobs] == [gate[0]] * 2
    executor.shutdown()


@EVERY
def test_shutdown_that_cancels(flags: CloneFlags, gate: tuple[int, int]) -> None:
    executor = Executor(1, flags)
    jobs = [executor.submit(wait_for, gate[0]) for _ in range(4)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert futures.wait(jobs[1:], 10).not_done == set()
    assert all(job.cancelled() for job in jobs[1:])
    os.write(gate[1], b"x")
    assert jobs[0].result(10) == gate[0]
    executor.shutdown()


def test_an_executor_that_was_never_used_has_no_thread() -> None:
    before = threads()
    with Executor(3):
        assert threads() == before


@EVERY
def test_an_executor_that_is_forgotten_carries_out_its_calls_and_ends(flags: CloneFlags) -> None:
    executor = Executor(1, flags)
    job = executor.submit(time.sleep, 0.05)
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    assert job.result(10) is None
    until(lambda: not any(thread.name.startswith("taskclone exec") for thread in threading.enumerate()), "its end")


def test_a_done_callback_may_submit_and_shut_down() -> None:
    ended = threading.Event()
    more: list[futures.Future[int]] = []
    executor = Executor(1, SHARED)

    def again(job: futures.Future[int]) -> None:
        more.append(executor.submit(abs, -2))
        executor.shutdown()
        ended.set()

    executor.submit(abs, -1).add_done_callback(again)
    assert ended.wait(10)
    assert more[0].result(10) == 2
    executor.shutdown()


def test_a_callback_that_raises_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with Executor(1, SHARED) as executor:
        job = executor.submit(time.sleep, 0.05)
        job.add_done_callback(lambda job: sys.exit("callback"))
        assert executor.submit(abs, -1).result(10) == 1
    assert [args.exc_type for args in seen] == [SystemExit]


# ---- who forks ------------------------------------------------------------------------------------------------------


def test_the_executors_own_thread_is_no_reason_for_a_warning(gate: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Executor(2) as executor:
            assert [executor.submit(abs, -1).result(10) for _ in range(3)] == [1] * 3
            assert list(executor.map(abs, range(8))) == list(range(8))
            assert clone(lambda: clone(abs, -3).result(10)).result(10) == 3, "neither here nor in the copy"
            assert executor.submit(lambda: clone(abs, -3).result(10)).result(10) == 3


def test_other_threads_are_and_it_is_said_where_the_call_is_submitted(gate: tuple[int, int]) -> None:
    other = threading.Thread(target=wait_for, args=(gate[0],))
    other.start()
    try:
        with Executor(1) as executor:
            with pytest.warns(DeprecationWarning, match="has other threads") as seen:
                jobs = [executor.submit(abs, -1), executor.submit(abs, -2)]
            assert [job.result(10) for job in jobs] == [1, 2]
        assert {warning.filename for warning in seen} == {__file__}
        assert len(seen) == 2
    finally:
        os.write(gate[1], b"x")
        other.join()


def test_a_free_place_is_taken_by_the_thread_that_submits(gate: tuple[int, int]) -> None:
    """The copy has the thread that forked, as its main thread."""

    def who_forked(fd: int) -> int | None:
        os.read(fd, 1)
        return next(thread.ident for thread in threading.enumerate())

    with Executor(1) as executor:
        first, queued = (executor.submit(who_forked, gate[0]) for _ in range(2))
        os.write(gate[1], b"xx")
        assert first.result(10) == threading.get_ident()
        assert queued.result(10) == next(t.ident for t in threading.enumerate() if t.name == "taskclone executor")


@WITH_PID
def test_a_task_cannot_submit_to_the_executor_that_runs_it(flags: CloneFlags) -> None:
    with Executor(2, flags) as executor:
        job = executor.submit(lambda: executor.submit(abs, -1).result(5))
        with pytest.raises(RuntimeError, match="this executor belongs to process"):
            job.result(10)


# ---- the interpreter's exit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ROUTES)
def test_at_exit_the_calls_are_carried_out(flags: str) -> None:
    script = f"""
executor = Executor(1, {flags})
jobs = [executor.submit(lambda number=number: (time.sleep(0.05), say(number))) for number in range(3)]
for job in jobs:
    job.add_done_callback(lambda job: say(type(job.exception()).__name__))
say("end of the script")
"""
    done = ["end of the script", "0", "NoneType", "1", "NoneType", "2", "NoneType"]
    assert run(script) == (0, "\n".join(done) + "\n", "")


@pytest.mark.parametrize("flags", ROUTES)
def test_at_exit_a_call_that_is_stuck_is_ended_by_its_timeout(flags: str) -> None:
    script = f"""
def body():
    while True:
        time.sleep(0.01)
job = Executor(1, {flags}, timeout=0.3).submit(body)
job.add_done_callback(lambda job: say(job.exception().__class__.__name__))
"""
    assert run(script) == (0, "TimeoutError\n", "")


def test_at_exit_no_more_calls_are_taken() -> None:
    script = """
executor = Executor(1, SHARED)
def more(job):
    try:
        executor.submit(abs, -1)
    except RuntimeError as error:
        say(error)
executor.submit(time.sleep, 0.2).add_done_callback(more)
"""
    assert run(script) == (0, "the executor takes no calls at the interpreter's exit\n", "")


def test_the_child_of_a_fork_ends_without_the_executors_calls() -> None:
    script = """
import warnings
warnings.simplefilter("ignore")
executor = Executor(1)
job = executor.submit(time.sleep, 0.3)
pid = os.fork()
if pid == 0:
    try:
        executor.submit(abs, -1)
    except RuntimeError:
        say("refused")
    executor.shutdown()
    sys.exit(0)
say(os.waitpid(pid, 0)[1], job.done())
"""
    assert run(script) == (0, "refused\n0 False\n", "")


@pytest.mark.parametrize("where", ["callback", "result"])
def test_the_executors_thread_in_somebody_elses_code_is_as_other_threads_are(where: str) -> None:
    """There it may hold any lock, and the copy would have it locked for ever."""
    script = f"""
import warnings
warnings.simplefilter("ignore")
lock, inside, go_on = threading.Lock(), threading.Event(), threading.Event()
def hold(*ignored):
    with lock:
        inside.set()
        go_on.wait()
class Result:
    def __reduce__(self):
        return hold, ()
def attempt():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        clone(int).result(5)
    try:
        answer = clone(lambda: lock.acquire(timeout=1), flags="FILES").result(5)
    except UnsupportedOperation:
        answer = "refused"
    say([warning.category.__name__ for warning in seen], answer)
executor = Executor(1)
job = executor.submit(Result if {where!r} == "result" else int)
if {where!r} == "callback":
    job.add_done_callback(hold)
inside.wait()
attempt()
go_on.set()
executor.submit(int).result()  # the thread is back
attempt()
executor.shutdown()
attempt()
"""
    beside, alone = "['DeprecationWarning'] refused\n", "[] True\n"
    assert run(script) == (0, beside + alone + alone, "")


@pytest.mark.parametrize("flags", ["PROCESS", "SHARED"])
def test_in_a_callback_the_thread_that_ends_a_call_is_as_other_threads_are(flags: str) -> None:
    script = f"""
flags = {flags}
lock, inside, go_on = threading.Lock(), threading.Event(), threading.Event()
def hold(job):
    with lock:
        inside.set()
        go_on.wait()
executor = Executor(1, flags, timeout=0.05)
executor.submit(time.sleep, 60).add_done_callback(hold)
inside.wait()
try:
    say(clone(lambda: lock.acquire(timeout=1), flags="FILES").result(5))
except UnsupportedOperation:
    say("refused")
go_on.set()
executor.shutdown()
say(clone(lambda: lock.acquire(timeout=1), flags="FILES").result(5))
"""
    assert run(script) == (0, "refused\nTrue\n", "")


@IN_NAMESPACES
def test_the_copy_of_a_pid_1_that_is_a_pid_1_ends_without_the_executors_calls() -> None:
    """As in a container, whose first process starts a task in a PID namespace of its own."""
    script = """
container = fork("NEWUSER|NEWPID")
if container is None:
    executor = Executor(1)
    say(executor.submit(abs, -1).result(10))
    copy = fork("NEWPID")
    if copy is None:
        try:
            executor.submit(abs, -2)
        except RuntimeError:
            say(os.getpid(), "refused")
        executor.shutdown()
        sys.exit(3)
    say(os.getpid(), "the copy ended with", copy.result(10))
    sys.exit(0)
container.wait()
"""
    assert run(script) == (0, "1\n1 refused\n1 the copy ended with 3\n", "")


@IN_NAMESPACES
def test_a_task_that_is_a_pid_1_cannot_submit_to_a_pid_1s() -> None:
    script = """
container = fork("NEWUSER|NEWPID")
if container is None:
    with Executor(1, SHARED) as executor:
        def body():
            try:
                executor.submit(abs, -1)
            except RuntimeError as error:
                return os.getpid(), str(error)[:37]
        say(os.getpid(), *clone(body, flags="VM|FILES|NEWPID").result(10))
    sys.exit(0)
container.wait()
"""
    assert run(script) == (0, "1 1 this executor belongs to process 1: a\n", "")
