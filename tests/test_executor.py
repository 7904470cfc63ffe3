"""The executor: concurrent.futures with a task for each call. Its calls and their futures."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import resource
import signal
import sys
import threading
import time
from concurrent import futures
from typing import Any

import pytest

from executors import EVERY, MEMORY_SHARED, ROUTES, WITH_PID, wait_for
from proc import children_of, descriptors, pipe, until
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Executor, FlagError, OutcomeError, StartError, TaskDied

pytestmark = pytest.mark.usefixtures("nothing_left")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


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
    with Executor(2, flags, timeout=1.5) as executor:
        stuck = executor.submit(sleep_for_ever)
        others = [executor.submit(abs, -number) for number in range(20)]
        assert [other.result(10) for other in others] == list(range(20))
        with pytest.raises(TimeoutError, match=r"no result after 1\.5 s: the task was ended"):
            stuck.result(10)
        assert executor.submit(abs, -1).result(10) == 1
    assert 1.5 <= time.monotonic() - began < 8


@EVERY
def test_a_call_that_ended_in_time_is_no_timeout_although_that_is_seen_late(
    flags: CloneFlags, gate: tuple[int, int]
) -> None:
    began = time.monotonic()
    with pipe() as (first, let_first_go), Executor(2, flags, timeout=2.0) as executor:
        busy, in_time = executor.submit(wait_for, first), executor.submit(wait_for, gate[0])

        def late(_: futures.Future[Any]) -> None:
            """Called by the thread that looks after all calls."""
            os.write(gate[1], b"x")
            until(lambda: time.monotonic() > began + 3.5, "the moment at which its time is over")

        busy.add_done_callback(late)
        os.write(let_first_go, b"x")
        assert in_time.exception(10) is None


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
