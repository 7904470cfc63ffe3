"""Ending a task: terminate and kill, on every route and in every kind of wait; what cannot be ended says so."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from creator import run
from proc import in_call, pipe, state_of, until
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Task, TaskDied, TaskTerminated, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
SYS_WRITE = 1 if os.uname().machine == "x86_64" else 64
LIVE = pytest.mark.parametrize("flags", [PROCESS, SHARED, THREAD], ids=["PROCESS", "SHARED", "THREAD"])
KILLABLE = pytest.mark.parametrize("flags", [PROCESS, SHARED], ids=["PROCESS", "SHARED"])


def started(body: Callable[[Callable[[], object]], object], flags: F, **fields: Any) -> Task[Any]:
    """A task whose body has said that it runs."""
    with pipe() as (read_end, write_end):
        task = clone(body, lambda: os.write(write_end, b"x"), flags=flags, **fields)
        assert os.read(read_end, 1) == b"x"
    return task


def assert_ended(task: Task[Any]) -> TaskDied:
    assert task.done()
    assert task.status is not None
    with pytest.raises(TaskDied) as caught:
        task.result(0)
    assert task.route == "thread" or state_of(task.pid) == ""
    return caught.value


# ---- terminate ------------------------------------------------------------------------------------------------------


@LIVE
def test_terminate_lets_finally_blocks_run(flags: F, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def body(ready: Callable[[], object]) -> None:
        try:
            ready()
            while True:
                time.sleep(0.01)
        except Exception:
            trace.write_text("swallowed")
        finally:
            trace.write_text("cleaned up")

    task = started(body, flags)
    task.terminate()
    error = assert_ended(task)
    assert trace.read_text() == "cleaned up"
    if flags == PROCESS:
        assert error.signal == signal.SIGTERM
    else:
        assert error.code == 128 + signal.SIGTERM


@LIVE
def test_what_terminate_raises_can_be_seen(flags: F, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def body(ready: Callable[[], object]) -> None:
        try:
            ready()
            while True:
                time.sleep(0.01)
        except BaseException as error:
            trace.write_text(type(error).__name__)
            raise

    task = started(body, flags)
    task.terminate()
    assert_ended(task)
    assert trace.read_text() == TaskTerminated.__name__


@KILLABLE
def test_terminate_kills_after_its_grace(flags: F) -> None:
    def body(ready: Callable[[], object]) -> None:
        try:
            ready()
            while True:
                time.sleep(0.01)
        except TaskTerminated:
            time.sleep(3600)

    task = started(body, flags)
    task.terminate(grace=0.1)
    error = assert_ended(task)
    assert error.signal == signal.SIGKILL


@LIVE
def test_terminate_again_and_after_the_end_does_nothing(flags: F) -> None:
    task = clone(abs, -1, flags=flags)
    assert task.result(10) == 1
    task.terminate()
    task.terminate()
    assert task.result() == 1


@LIVE
def test_terminate_right_after_the_start(flags: F, capfd: pytest.CaptureFixture[str]) -> None:
    """At whatever point of its start the task is: no outcome but the value or TaskDied, and not a word on stderr."""

    def body() -> int:
        for _ in range(300):
            time.sleep(0.001)
        return 1

    for _ in range(20):
        task = clone(body, flags=flags)
        task.terminate()
        assert task.status is not None
        with pytest.raises(TaskDied):
            task.result(0)
    assert capfd.readouterr().err == ""


def test_a_second_thread_may_wait_meanwhile() -> None:
    task = clone(time.sleep, 3600, flags=SHARED)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(task.exception)
        task.kill()
        assert isinstance(waiting.result(10), TaskDied)


# ---- kill, in every kind of wait ------------------------------------------------------------------------------------


def spin() -> None:
    while True:
        pass


def in_c() -> None:
    while True:
        sum(range(10_000))


def read_pipe() -> None:
    with pipe() as (read_end, _):
        os.read(read_end, 1)


def lock() -> None:
    held = threading.Lock()
    held.acquire()
    held.acquire()


def condition() -> None:
    with (waiting := threading.Condition()):
        waiting.wait()


def timed_event() -> None:
    threading.Event().wait(3600)


def get_from_queue() -> None:
    queue.Queue[int]().get()


def get_from_simple_queue() -> None:
    queue.SimpleQueue[int]().get()


def wait_for_child() -> None:
    subprocess.run(["sleep", "3600"], check=False)


BODIES = [spin, in_c, lambda: time.sleep(3600), lock, condition, timed_event, get_from_queue, get_from_simple_queue]
IDS = ["spin", "in_c", "sleep", "lock", "condition", "timed_event", "queue", "simple_queue"]


@KILLABLE
@pytest.mark.parametrize("body", BODIES, ids=IDS)
def test_kill(flags: F, body: Callable[[], object]) -> None:
    def begun(ready: Callable[[], object]) -> None:
        ready()
        body()

    task = started(begun, flags)
    task.kill()
    error = assert_ended(task)
    assert (error.signal, error.code) in ((signal.SIGKILL, None), (None, 128 + signal.SIGTERM))
    assert call(abs, -1, flags=flags) == 1


@KILLABLE
def test_kill_in_a_pipe_read(flags: F) -> None:
    with pipe() as (read_end, _):
        task = clone(os.read, read_end, 1, flags=flags)
        task.kill()
        assert_ended(task)


def test_a_lock_that_a_killed_task_waited_for_still_works() -> None:
    busy = threading.Lock()
    busy.acquire()
    tasks = [started(lambda ready: (ready(), busy.acquire()), SHARED) for _ in range(3)]
    for task in tasks:
        task.kill()
        assert_ended(task)
    waiter = threading.Thread(target=busy.acquire)
    waiter.start()
    busy.release()
    waiter.join(10)
    assert not waiter.is_alive()
    assert busy.locked()


# ---- by a signal, from anybody --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_strangers_signal_ends_a_shared_task_politely(number: signal.Signals) -> None:
    trace: list[str] = []

    def body(ready: Callable[[], object]) -> None:
        try:
            ready()
            while True:
                time.sleep(0.01)
        finally:
            trace.append("cleaned up")

    task = started(body, SHARED)
    subprocess.run(["kill", f"-{number.value}", str(task.pid)], check=True)
    with pytest.raises(TaskDied) as caught:
        task.result(10)
    assert caught.value.code == 128 + signal.SIGTERM
    assert trace == ["cleaned up"]


@pytest.mark.parametrize("body", ["spin", "sleep"])
def test_a_strangers_signal_ends_a_task_in_place(body: str) -> None:
    """Its caller sleeps in the kernel meanwhile; only the task itself can say that it has started."""
    script = f"""
def spin():
    while True: pass
def sleep():
    time.sleep(3600)
read_end, write_end = os.pipe()
def begun():
    os.write(write_end, b"%d\\n" % os.getpid())
    {body}()
threading.Thread(target=lambda: os.kill(int(os.read(read_end, 20)), signal.SIGTERM)).start()
error = clone(begun, flags=SHARED | VFORK).exception(20)
say(type(error).__name__, error.code, error.signal)
"""
    assert run(script) in ((0, "TaskDied 143 None\n", ""), (0, "TaskDied None 9\n", ""))


def test_the_terminals_signals_do_nothing_to_a_shared_task() -> None:
    def body(ready: Callable[[], object]) -> int:
        ready()
        with pipe() as (read_end, write_end):
            for number in (signal.SIGINT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
                os.kill(os.getpid(), number)
            os.write(write_end, b"on")
            return len(os.read(read_end, 2))

    assert started(body, SHARED).result(10) == 2


# ---- what cannot be ended -------------------------------------------------------------------------------------------


def test_a_body_that_swallows_everything_is_named_and_can_still_end() -> None:
    let_go: list[bool] = []

    def busy(ready: Callable[[], object]) -> None:
        ready()
        while not let_go:  # in a function of its own: a loop at the end of a try block is not quite inside it
            pass

    def stubborn(ready: Callable[[], object]) -> str:
        while not let_go:
            try:
                while not let_go:
                    try:
                        busy(ready)
                    except BaseException:
                        ready = int
            except BaseException:  # in the line above
                pass
        return "by myself"

    task = started(stubborn, SHARED)
    try:
        for end in (lambda: task.kill(timeout=0.7), lambda: task.terminate(0.1, timeout=0.7)):
            with pytest.raises(TimeoutError, match=r"in stubborn\n(.|\n)*in busy") as caught:
                end()
            assert str(task.pid) in str(caught.value)
            assert task.running()
    finally:
        let_go.append(True)
    assert task.exception(10) is None or isinstance(task.exception(), TaskDied)


def fill(write_end: int) -> None:
    """A write that has written something returns at the first stop; only into a full pipe does it go on waiting."""
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)


def test_a_write_to_a_full_pipe_is_killed_late() -> None:
    with pipe() as (_, write_end):
        fill(write_end)
        task = clone(os.write, write_end, b"y", flags=SHARED)
        until(lambda: in_call(task.tid, SYS_WRITE), "it writes")
        began = time.monotonic()
        task.kill()
        assert time.monotonic() - began >= 0.4
        assert_ended(task)


def test_a_buffered_files_write_is_not_killed() -> None:
    read_end, write_end = os.pipe()
    fill(write_end)
    file = io.BufferedWriter(io.FileIO(write_end, "w"))
    task = clone(file.write, b"x" * (1 << 20), flags=SHARED)
    until(lambda: in_call(task.tid, SYS_WRITE), "it writes")
    with pytest.raises(TimeoutError, match=r"write\(\)"):
        task.kill(timeout=1)
    assert task.running()

    def drain() -> None:
        while os.read(read_end, 1 << 16):
            pass

    drainer = threading.Thread(target=drain)
    drainer.start()
    assert task.exception(10) is None or isinstance(task.exception(), TaskDied)
    file.close()  # its lock is free
    drainer.join(10)
    os.close(read_end)


def test_an_end_that_comes_too_late_leaves_nothing_set_for_the_eval_loop() -> None:
    """On 3.11 a traced thread went round for ever after an asynchronous exception that had never risen."""
    code, out, err = run("""
import threading
for _ in range(3):
    task = clone(time.sleep, 60, flags=SHARED)
    task.tid
    time.sleep(0.05)
    task.kill()
    try:
        task.result()
    except TaskDied:
        pass
def hook(frame, event, arg): pass
threading.settrace(hook)
threading.setprofile(hook)
thread = threading.Thread(target=lambda: None, daemon=True)
thread.start()
thread.join(5)
say(thread.is_alive())
""")
    assert (code, out) == (0, "False\n"), err
