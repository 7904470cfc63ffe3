"""``await task``: what it gives, on every route under every loop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from creator import run
from loops import EACH, EVERY, KILLABLE, LIVE, MORTAL, Loop, waiting
from proc import in_call, no_descriptors_left, until
from taskclone import CAPTURE, PROCESS, SHARED, CloneFlags, OutcomeError, Plan, StartError, Task, TaskDied, clone
from taskclone._core import shared_start
from taskclone.errors import TaskTerminated
from taskclone.routes.shared import SharedHandle

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
SYS_CLOCK_NANOSLEEP = 230 if os.uname().machine == "x86_64" else 115


def fail() -> NoReturn:
    raise LookupError("no such thing")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSYS)  # pytest's faulthandler does not speak up for that one


def sleep_for_ever() -> None:
    while True:
        time.sleep(0.01)


# ---- what it gives --------------------------------------------------------------------------------------------------


@EACH
@EVERY
def test_an_await_gives_the_value(loop: Loop, flags: F) -> None:
    async def body() -> None:
        task = clone(sorted, (3, 1, 2), flags=flags)
        value = await task
        assert value == [1, 2, 3]
        assert await task is value, "again, of one that is done"
        assert task.result() is value

    loop.run(body)


@EACH
def test_an_await_gives_the_exit_code_of_a_program(loop: Loop) -> None:
    async def body() -> None:
        assert await clone(["sh", "-c", "exit 3"]) == 3
        with pytest.raises(TaskDied) as caught:
            await clone(["sh", "-c", "kill -SEGV $$"])
        assert caught.value.signal == signal.SIGSEGV

    loop.run(body)


@EACH
@EVERY
def test_an_await_waits_for_a_body_that_takes_its_time(loop: Loop, flags: F) -> None:
    async def body() -> None:
        task = clone(time.sleep, 0.1, flags=flags)
        assert await task is None
        assert task.done()

    loop.run(body)


@EACH
@EVERY
def test_an_await_raises_what_the_body_raised(loop: Loop, flags: F) -> None:
    async def body() -> None:
        task = clone(fail, flags=flags)
        lengths = []
        for _ in range(3):
            with pytest.raises(LookupError, match="no such thing") as caught:
                await task
            assert caught.value is task.exception()
            rows = traceback.extract_tb(caught.value.__traceback__)
            assert rows[-1].name == "fail"
            lengths.append(len(rows))
        assert len(set(lengths)) == 1, "the traceback does not grow"

    loop.run(body)


@EACH
@MORTAL
def test_an_await_raises_taskdied_for_a_crash(loop: Loop, flags: F) -> None:
    async def body() -> None:
        with pytest.raises(TaskDied) as caught:
            await clone(crash, flags=flags)
        assert caught.value.signal == signal.SIGSYS

    loop.run(body)


@EACH
@EVERY
def test_an_await_raises_taskdied_for_an_exit(loop: Loop, flags: F) -> None:
    async def body() -> None:
        with pytest.raises(TaskDied) as caught:
            await clone(sys.exit, 5, flags=flags)
        assert caught.value.code == 5

    loop.run(body)


@EACH
@MORTAL
def test_the_death_of_a_captured_task_comes_with_its_last_words(loop: Loop, flags: F) -> None:
    def last_words() -> None:
        os.write(1, b"said\n")
        os.write(2, b"so long\n")
        os._exit(4)

    async def body() -> None:
        # Streams of its own want a file table of its own.
        task = clone(last_words, flags=flags & ~F.FILES, stdout=CAPTURE, stderr=CAPTURE)
        with pytest.raises(TaskDied) as caught:
            await task
        assert caught.value.code == 4
        assert caught.value.last_words == "so long\n"
        assert task.stdout == b"said\n"

    loop.run(body)


@EACH
def test_a_captured_program(loop: Loop) -> None:
    async def body() -> None:
        task = clone(["sh", "-c", "echo out; echo err >&2; kill $$"], stdout=CAPTURE, stderr=subprocess.STDOUT)
        with pytest.raises(TaskDied) as caught:
            await task
        assert caught.value.last_words == "out\nerr\n"

    loop.run(body)


@EACH
def test_an_await_raises_outcomeerror_for_what_cannot_be_pickled(loop: Loop) -> None:
    async def body() -> None:
        with pytest.raises(OutcomeError, match="cannot be pickled"):
            await clone(lambda: lambda: 1)

    loop.run(body)


@EACH
def test_an_await_raises_starterror_for_a_start_that_failed(loop: Loop) -> None:
    async def body() -> None:
        with no_descriptors_left():
            # Plain flags are not waited for by clone(); the pidfd from birth is what makes this start fail.
            flags = SHARED | F.PIDFD
            core = shared_start(os.getpid, (), None, int(flags), 0, 0, None, False, TaskTerminated, False)
        task: Task[int] = Task(SharedHandle(core), Plan(SHARED), "shared")
        for _ in range(2):
            with pytest.raises(StartError):
                await task

    loop.run(body)


@EACH
@LIVE
def test_without_a_descriptor_an_await_fails_and_the_task_goes_on(loop: Loop, flags: F) -> None:
    async def body() -> None:
        with waiting(flags) as (task, release):
            with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
                await task
            assert task.running()
            release()
            assert await task == "x"

    loop.run(body)


def pidfd_open_fails(error: str) -> str:
    """The beginning of a script in which it does, by that errno."""
    return f"""
sys.path.append({str(Path(__file__).parent)!r})
import asyncio, errno
import seccomp
seccomp.refuse("pidfd_open", errno.{error})
"""


def test_a_kernel_without_pidfds_of_threads() -> None:
    """As before Linux 6.9: a thread rings an eventfd; one with files of its own cannot."""
    out = run(f"""{pidfd_open_fails("EINVAL")}
async def main():
    say(await clone(lambda: (time.sleep(0.05), 7)[1], flags=THREAD))
    task = clone(time.sleep, 0.05, flags=THREAD & ~CloneFlags.FILES)
    try: await task
    except UnsupportedOperation as error: say(error)
    task.wait()
    say(await task)
asyncio.run(main())
""")
    assert out[0] == 0, out
    lines = out[1].splitlines()
    assert (lines[0], lines[2], out[2]) == ("7", "None", "")
    assert "6.9" in lines[1]


# ---- ends -----------------------------------------------------------------------------------------------------------


async def end_from_another_thread(loop: Loop, task: Task[Any], end: Callable[[], None]) -> TaskDied:
    ender = threading.Thread(target=end)
    ender.start()
    try:
        with pytest.raises(TaskDied) as caught:
            await task
    finally:
        while ender.is_alive():
            await loop.sleep(0.001)
        ender.join()
    return caught.value


@EACH
@KILLABLE
def test_a_kill_ends_the_await(loop: Loop, flags: F) -> None:
    async def body() -> None:
        task = clone(time.sleep, 3600, flags=flags)
        assert task.pid
        error = await end_from_another_thread(loop, task, task.kill)
        assert error.signal == signal.SIGKILL or error.code == 128 + signal.SIGTERM

    loop.run(body)


@EACH
@LIVE
def test_a_terminate_ends_the_await(loop: Loop, flags: F) -> None:
    async def body() -> None:
        task = clone(sleep_for_ever, flags=flags)
        error = await end_from_another_thread(loop, task, task.terminate)
        assert error.code == 128 + signal.SIGTERM or error.signal == signal.SIGTERM

    loop.run(body)


@EACH
@KILLABLE
def test_a_kill_by_the_loops_own_thread_ends_the_await(loop: Loop, flags: F) -> None:
    async def body() -> None:
        task = clone(time.sleep, 3600, flags=flags)

        async def wait() -> TaskDied:
            with pytest.raises(TaskDied) as caught:
                await task
            return caught.value

        async def kill() -> None:
            await loop.sleep(0.01)
            task.kill()

        error, _ = await loop.together(wait, kill)
        assert error is task.exception()

    loop.run(body)


@EACH
@KILLABLE
def test_a_strangers_sigkill_ends_the_await(loop: Loop, flags: F) -> None:
    async def body() -> None:
        task = clone(time.sleep, 3600, flags=flags)
        # Not while it waits for the interpreter lock: that would be the end of the creator too.
        until(lambda: in_call(task.pid, SYS_CLOCK_NANOSLEEP), "it sleeps")
        error = await end_from_another_thread(loop, task, lambda: os.kill(task.pid, signal.SIGKILL))
        assert error.signal == signal.SIGKILL

    loop.run(body)


@EACH
def test_a_program_in_a_hosted_body_is_awaited_to_its_end(loop: Loop) -> None:
    async def body() -> None:
        with pytest.raises(TaskDied) as caught:
            await clone(os.execv, "/bin/sh", ["sh", "-c", "sleep 0.1; exit 4"], flags=SHARED)
        assert caught.value.code == 4

    loop.run(body)


@EACH
def test_a_task_with_an_exit_signal_is_left_to_oswait(loop: Loop) -> None:
    async def body() -> None:
        task = clone(abs, -3, flags=SHARED, exit_signal=signal.SIGCHLD)
        assert await task == 3
        assert os.waitpid(task.pid, 0) == (task.pid, 0)

    loop.run(body)


@pytest.mark.skipif("TASKCLONE_BUILD" not in os.environ, reason="needs the C test library: `make test`")
@pytest.mark.parametrize("starter", ["main", "thread"])
def test_an_await_does_not_wait_for_threads_that_a_library_has_started(starter: str) -> None:
    out = run(f"""
import asyncio, ctypes, warnings
library = ctypes.CDLL(os.environ["TASKCLONE_BUILD"] + "/csrc/testing/libcrashes.so")
async def main():
    task = clone(library.start_thread, 3600, flags=SHARED)
    say(await asyncio.wait_for(task, 10), os.path.exists(f"/proc/{{task.pid}}"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        task.wait()
    say(seen[0].category.__name__)
if {starter == "main"}:
    asyncio.run(main())
else:
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
""")
    assert out == (0, "0 True\nResourceWarning\n", "")


@EACH
def test_a_child_that_somebody_else_has_reaped(loop: Loop) -> None:
    async def body() -> None:
        task = clone(abs, -3)
        assert os.waitpid(task.pid, 0)[1] == 0
        assert await task == 3
        with waiting(PROCESS) as (task, release):

            def steal() -> None:
                release()
                with contextlib.suppress(ChildProcessError):  # the loop was quicker
                    os.waitpid(task.pid, 0)

            thief = threading.Thread(target=steal)
            thief.start()
            assert await task == "x"
            thief.join()

    loop.run(body)


def test_a_child_without_a_pidfd() -> None:
    """As if somebody had reaped it before one could be opened: nothing to wait for, and its status is lost."""
    out = run(f"""{pidfd_open_fails("ESRCH")}
import trio
async def main():
    task = clone(os.abort)
    try: task.fileno()
    except ValueError: pass
    try: await task
    except TaskDied as error: say(error.status.lost)
asyncio.run(main())
trio.run(main)
""")
    assert out == (0, "True\nTrue\n", "")
