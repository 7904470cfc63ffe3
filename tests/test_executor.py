"""The executor: concurrent.futures with a task for each call."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import os
import resource
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest

from copyforms import IN_NAMESPACES
from creator import run
from proc import children_of, descriptors, pipe, threads, until
from taskclone import (
    PROCESS,
    SHARED,
    THREAD,
    CloneFlags,
    Executor,
    FlagError,
    OutcomeError,
    StartError,
    TaskDied,
    clone,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

ROUTES = {"PROCESS": PROCESS, "SHARED": SHARED, "THREAD": THREAD}
EVERY = pytest.mark.parametrize("flags", ROUTES.values(), ids=ROUTES)
WITH_PID = pytest.mark.parametrize("flags", [PROCESS, SHARED], ids=["PROCESS", "SHARED"])
MEMORY_SHARED = pytest.mark.parametrize("flags", [SHARED, THREAD], ids=["SHARED", "THREAD"])


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


def wait_for(fd: int) -> int:
    """A call that lasts until it is let go."""
    os.read(fd, 1)
    return fd


@pytest.fixture
def gate() -> Iterator[tuple[int, int]]:
    with pipe() as ends:
        yield ends


# ---- results --------------------------------------------------------------------------------------------------------


@EVERY
def test_results_exceptions_and_keywords(flags: CloneFlags) -> None:
    with Executor(2, flags) as executor:
        good = executor.submit(int, "ff", base=16)
        bad = executor.submit(int, "x")
        assert good.result(10) == 255
        assert good.exception() is None
        with pytest.raises(ValueError, match="invalid literal"):
            bad.result(10)
        assert bad.done()


@EVERY
def test_map_gives_results_in_order(flags: CloneFlags) -> None:
    def later(number: int) -> int:
        time.sleep(0.02 * (4 - number % 5))
        return number

    with Executor(3, flags) as executor:
        assert list(executor.map(later, range(12))) == list(range(12))
        assert list(executor.map(pow, [2, 3], [3, 2], timeout=10)) == [8, 9]
        assert list(executor.map(abs, [])) == []


@EVERY
def test_a_map_that_takes_too_long(flags: CloneFlags, gate: tuple[int, int]) -> None:
    with Executor(1, flags) as executor:
        results = executor.map(wait_for, [gate[0]] * 3, timeout=0.1)
        with pytest.raises(futures.TimeoutError):
            next(results)
        os.write(gate[1], b"xxx")


@MEMORY_SHARED
def test_where_memory_is_shared_the_result_is_the_object_itself(flags: CloneFlags) -> None:
    box: list[object] = []

    def body() -> object:
        box.append(object())
        return box[0]

    with Executor(1, flags) as executor:
        assert executor.submit(body).result(10) is box[0]


@EVERY
def test_each_call_is_a_task_of_its_own(flags: CloneFlags) -> None:
    with Executor(4, flags) as executor:
        seen = set(executor.map(lambda _: (os.getpid(), threading.get_native_id()), range(8)))
    assert (flags == THREAD) == ({pid for pid, _ in seen} == {os.getpid()})
    assert os.getpid() not in {tid for _, tid in seen}
    if flags == PROCESS:
        assert len(seen) == 8


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


@EVERY
def test_a_call_runs_in_the_context_in_which_it_was_submitted(flags: CloneFlags, gate: tuple[int, int]) -> None:
    with Executor(1, flags) as executor:
        first = executor.submit(wait_for, gate[0])
        token = variable.set("then")
        queued = executor.submit(variable.get)
        variable.reset(token)
        os.write(gate[1], b"x")
        assert first.result(10) == gate[0]
        assert queued.result(10) == "then"


# ---- harm is for one future only ------------------------------------------------------------------------------------


@WITH_PID
@pytest.mark.parametrize("workers", [1, 3])
def test_a_crash_harms_one_future(flags: CloneFlags, workers: int) -> None:
    with Executor(workers, flags) as executor:
        jobs = [
            executor.submit(crash if number == 2 else abs, *([] if number == 2 else [-number])) for number in range(6)
        ]
        with pytest.raises(TaskDied, match="SIGKILL"):
            jobs[2].result(10)
        assert [job.result(10) for number, job in enumerate(jobs) if number != 2] == [0, 1, 3, 4, 5]
        assert executor.submit(abs, -7).result(10) == 7


@EVERY
def test_a_call_that_exits_harms_one_future(flags: CloneFlags) -> None:
    with Executor(1, flags) as executor:
        leaving, other = executor.submit(sys.exit, 3), executor.submit(abs, -1)
        with pytest.raises(TaskDied) as caught:
            leaving.result(10)
        assert caught.value.code == 3
        assert other.result(10) == 1


def sleep_for_ever() -> None:
    while True:
        time.sleep(0.01)


@EVERY
def test_a_timeout_ends_a_stuck_call_and_harms_one_future(flags: CloneFlags) -> None:
    began = time.monotonic()
    with Executor(2, flags, timeout=0.4) as executor:
        stuck = executor.submit(sleep_for_ever)
        others = [executor.submit(abs, -number) for number in range(20)]
        assert [other.result(10) for other in others] == list(range(20))
        with pytest.raises(TimeoutError, match=r"no result after 0\.4 s: the task was ended"):
            stuck.result(10)
        assert executor.submit(abs, -1).result(10) == 1
    assert 0.4 <= time.monotonic() - began < 8


@WITH_PID
def test_a_timeout_counts_from_the_start_of_the_call(flags: CloneFlags) -> None:
    with Executor(1, flags, timeout=1.0) as executor:
        jobs = [executor.submit(time.sleep, 0.3) for _ in range(5)]
        assert [job.result(10) for job in jobs] == [None] * 5, "1.5 s for all of them"


def test_a_body_that_raises_timeout_error_was_not_ended() -> None:
    def body() -> None:
        raise TimeoutError("my own")

    for flags in ROUTES.values():
        with Executor(1, flags, timeout=10) as executor, pytest.raises(TimeoutError, match="my own"):
            executor.submit(body).result(10)


def test_what_cannot_be_pickled_harms_one_future() -> None:
    with Executor(1) as executor:
        with pytest.raises(OutcomeError, match=r"result\['a'\] is a _thread.lock"):
            executor.submit(lambda: {"a": threading.Lock()}).result(10)
        assert executor.submit(abs, -1).result(10) == 1


def test_a_start_that_fails_is_the_futures() -> None:
    with Executor(1, PROCESS) as executor:
        assert executor.submit(abs, -1).result(10) == 1
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(descriptors())
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            filler = []
            while True:
                try:
                    filler.append(os.dup(2))
                except OSError:
                    break
            job = executor.submit(abs, -1)
            error = job.exception(10)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in filler:
                os.close(fd)
        assert isinstance(error, OSError)
        assert error.errno == errno.EMFILE
        assert executor.submit(abs, -2).result(10) == 2


@pytest.mark.parametrize("queued", [False, True])
def test_a_start_error_of_a_call_that_had_to_wait(queued: bool, monkeypatch: pytest.MonkeyPatch, gate: Any) -> None:
    from taskclone.routes import copied

    def refuse(*args: object) -> None:
        raise StartError(errno.EAGAIN, "fork")

    with Executor(1) as executor:
        first = executor.submit(wait_for, gate[0]) if queued else None
        monkeypatch.setattr(copied, "start", refuse)
        job = executor.submit(abs, -1)
        os.write(gate[1], b"x")
        with pytest.raises(StartError, match="fork"):
            job.result(10)
        monkeypatch.undo()
        assert first is None or first.result(10) == gate[0]
        assert executor.submit(abs, -1).result(10) == 1


# ---- how many at a time ---------------------------------------------------------------------------------------------


@MEMORY_SHARED
def test_a_thousand_calls_and_never_more_than_allowed_at_a_time(flags: CloneFlags) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def body(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1
        return number

    with Executor(5, flags) as executor:
        assert list(executor.map(body, range(1000))) == list(range(1000))
    assert 2 <= most <= 5


def test_copied_tasks_never_more_than_allowed_at_a_time(gate: tuple[int, int]) -> None:
    with Executor(3) as executor:
        jobs = [executor.submit(wait_for, gate[0]) for _ in range(8)]
        until(lambda: len(children_of(os.getpid())) == 3, "three run")
        for done in range(1, 9):
            os.write(gate[1], b"x")
            until(lambda done=done: sum(job.done() for job in jobs) == done, "one more is done")  # type: ignore[misc]
            assert len(children_of(os.getpid())) <= 3
        assert [job.result() for job in jobs] == [gate[0]] * 8


@EVERY
def test_an_executor_waits_without_using_the_processor(flags: CloneFlags, gate: tuple[int, int]) -> None:
    with Executor(2, flags) as executor:
        job = executor.submit(wait_for, gate[0])
        until(job.running, "it runs")
        before = time.process_time()
        assert futures.wait([job], 0.5).not_done == {job}
        assert time.process_time() - before < 0.1
        os.write(gate[1], b"x")
        assert futures.wait([job], 10).done == {job}


def test_as_many_as_there_are_processors_by_default() -> None:
    executor = Executor()
    assert executor._pool._max_workers == os.cpu_count()
    executor.shutdown()


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


# ---- asyncio --------------------------------------------------------------------------------------------------------


@EVERY
def test_asyncio_runs_calls_in_it(flags: CloneFlags) -> None:
    async def main(executor: Executor) -> list[Any]:
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(executor, abs, -number) for number in range(6)]
        failing = loop.run_in_executor(executor, int, "x")
        ticks = 0
        while not all(job.done() for job in jobs):
            await asyncio.sleep(0.001)
            ticks += 1
        with pytest.raises(ValueError, match="invalid literal"):
            await failing
        return await asyncio.gather(*jobs)

    with Executor(2, flags) as executor:
        assert asyncio.run(main(executor)) == list(range(6))


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker(workers: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Executor(workers)


def test_bad_input_is_refused_before_anything_is_started() -> None:
    with pytest.raises(TypeError, match="max_workers"):
        Executor(2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_workers"):
        Executor(True)
    with pytest.raises(ValueError, match="timeout"):
        Executor(1, timeout=-1)
    with pytest.raises(FlagError, match="VFORK"):
        Executor(1, SHARED | CloneFlags.VFORK)
    with pytest.raises(FlagError):
        Executor(1, CloneFlags.THREAD)
    with Executor(1) as executor, pytest.raises(TypeError, match="calls functions"):
        executor.submit(["true"])  # type: ignore[arg-type]


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
