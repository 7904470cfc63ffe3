"""Whose descriptor a number is: in copies that share or have closed theirs, and in tasks with a table of their own."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import pytest

from creator import finish, start
from proc import descriptors, pipe
from taskclone import SHARED, THREAD, ChildSetup, CloneFlags, Task, UnsupportedOperation, call, clone, fork, stats
from taskclone.faces.executor import Executor

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.filterwarnings("ignore:.*has other threads:DeprecationWarning"),
]

F = CloneFlags


def closed_of_mine(tasks: list[Task[int]], numbers: int) -> list[int]:
    """Opens files that get the numbers the creator's tasks have, lets go of these, and says which of its own went."""
    mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(numbers)]
    tasks.clear()
    gc.collect()
    gone = []
    for fd in mine:
        try:
            os.close(fd)
        except OSError:
            gone.append(fd)
    return gone


@pytest.mark.parametrize("fields", [{}, {"flags": F.UNTRACED}, {"bare": True}], ids=["fork", "relay", "bare"])
def test_a_copy_that_has_closed_all_closes_nothing_of_its_own(fields: dict[str, object]) -> None:
    tasks = [clone(abs, -3)]
    tasks[0].wait(10)
    setup = ChildSetup(close_fds=True)
    assert call(closed_of_mine, tasks, 8, setup=setup, **fields) == []  # type: ignore[arg-type]
    assert tasks[0].result() == 3


class Loop:
    """In a cycle: only the collector finds it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.me = self

    def __del__(self) -> None:
        os.close(self.number)


@pytest.mark.parametrize("raw", [False, True], ids=["clone", "fork"])
def test_a_copy_that_shares_descriptors_does_not_collect_the_creators_garbage(raw: bool) -> None:
    with pipe() as (read_end, _):
        enabled = gc.isenabled()
        gc.disable()
        try:
            Loop(os.dup(read_end))
            before = descriptors()
            if raw:
                task = fork(flags=F.FILES)
                if task is None:
                    os._exit(gc.collect() > 1000)
                assert task.wait(10).code == 0
                del task
            else:
                assert call(lambda: (gc.isenabled(), gc.collect())[0], flags=F.FILES, bare=True) is False
            assert descriptors() == before
            gc.collect()
            assert len(descriptors()) == len(before) - 1
        finally:
            if enabled:
                gc.enable()


@pytest.mark.parametrize("flags", [F.VM, THREAD & ~F.FILES], ids=["VM", "thread without FILES"])
def test_what_has_descriptors_of_its_own_leaves_the_creators_to_it(flags: F) -> None:
    before = descriptors()
    tasks: list[Task[int]] = []
    with pipe() as (read_end, write_end):

        def body() -> list[int]:
            os.read(read_end, 1)
            return closed_of_mine(tasks, 8)

        task = clone(body, flags=flags)
        _ = task.tid
        tasks.append(clone(abs, -3))
        tasks[0].wait(10)
        os.write(write_end, b"x")
        assert task.result(10) == []
        task.wait(10)
    assert call(["/bin/true"]) == 0  # the creator closes what was left to it at its next start
    del task
    assert descriptors() == before


def test_an_await_survives_a_copy_that_drops_its_coroutine() -> None:
    script = """
import asyncio
async def main(**fields):
    slow = clone(time.sleep, 0.5, flags="VM")
    async def wait(): return await slow
    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0.1)
    say(clone(waiting.get_coro().close, **fields).wait(5).code)
    say(await asyncio.wait_for(waiting, 10))
asyncio.run(main())
asyncio.run(main(flags="FILES", bare=True))
"""
    assert finish(start(script, "-W", "ignore::DeprecationWarning")) == (0, "0\nNone\n" * 2, "")


# ---- threads, signals, warnings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [{"flags": F.CLEAR_SIGHAND}, {"setup": ChildSetup(signals={signal.SIGUSR1: "ignore"})}], ids=str
)
def test_a_bare_copy_of_another_thread_has_its_signals_set(fields: dict[str, object]) -> None:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(call(abs, -2, bare=True, **fields)))  # type: ignore[arg-type]
    thread.start()
    thread.join(20)
    assert seen == [2]


def test_a_thread_of_ours_that_ends_meanwhile_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (read_end, write_end):
        other = threading.Thread(target=os.read, args=(read_end, 1))
        other.start()
        for _ in range(3):
            executor = Executor(1, flags=F.VM | F.FILES)
            executor.submit(int).result()

            class Stream:
                closed = False

                def flush(self, executor: Executor = executor) -> None:
                    executor.shutdown()

            with monkeypatch.context() as patch:
                patch.setattr("sys.stdout", Stream())
                with pytest.raises(UnsupportedOperation, match="other threads"):
                    clone(int, flags=F.FILES)
        os.write(write_end, b"x")
        other.join()


def test_a_forgotten_task_is_let_go_of_where_warnings_are_errors() -> None:
    script = """
import gc, warnings
from proc import children_of, until  # by ctypes libffi is loaded, which keeps a descriptor of its own file (3.4.7)
sys.unraisablehook = lambda unraisable: None
warnings.simplefilter("error", ResourceWarning)
read_end, write_end = os.pipe()
before = len(os.listdir("/proc/self/fd"))
for _ in range(20): clone(os.read, read_end, 1)
os.write(write_end, b"x" * 20)
until(lambda: call(["/bin/true"]) == 0 and not children_of(os.getpid()), "reaped")
say(len(os.listdir("/proc/self/fd")) - before)
"""
    path = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    assert finish(start(path + script)) == (0, "0\n", "")


def test_ctrl_c_while_a_copy_hangs_in_somebodys_fork_hook() -> None:
    script = """
os.register_at_fork(after_in_child=lambda: time.sleep(60) if hang else None)
hang = True
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try: clone(int, name="x")
except KeyboardInterrupt: say("interrupted")
hang = False
say(call(abs, -3))
try: os.waitpid(-1, 0)
except ChildProcessError: say("nothing left")
"""
    began = time.monotonic()
    outcome = finish(start(script, "-W", "ignore::DeprecationWarning"))
    assert outcome == (0, "interrupted\n3\nnothing left\n", "")
    assert time.monotonic() - began < 15


def test_ctrl_c_while_the_middle_of_a_relay_hangs_in_a_hook_of_the_c_library() -> None:
    script = """
import ctypes
libc = ctypes.CDLL(None)
libc.__register_atfork(None, None, libc.pause, None)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try: clone(int, flags="UNTRACED")
except KeyboardInterrupt: say("interrupted")
try: os.waitpid(-1, 0)
except ChildProcessError: say("nothing left")
"""
    began = time.monotonic()
    assert finish(start(script, "-W", "ignore::DeprecationWarning")) == (0, "interrupted\nnothing left\n", "")
    assert time.monotonic() - began < 15


def test_where_the_creators_streams_are_closed_a_start_lies_elsewhere() -> None:
    """The memory of an outcome, or the creator's pidfd, under a number that a stream of the task takes."""
    script = """
import tempfile
os.set_inheritable(os.dup2(1, 40), False)
def say(*words): os.write(40, (" ".join(map(str, words)) + "\\n").encode())
os.close(0), os.close(1)
with tempfile.TemporaryFile() as file:
    out = os.dup2(file.fileno(), 20)
    file.close()
    os.set_inheritable(out, False)
    def body():
        os.write(1, b"said")
        return bytes(200_000)
    for flags in ("", "NEWUSER|NEWPID"):
        say(len(clone(body, flags=flags, stdin=out, stdout=out).result(10)), os.fstat(out).st_size)
        os.ftruncate(out, 0), os.lseek(out, 0, 0)
"""
    assert finish(start(script)) == (0, "200000 4\n200000 4\n", "")


@pytest.mark.parametrize("how", ["FILES", "close_fds"])
def test_a_copy_that_drops_an_ended_task_of_the_creators_closes_nothing(how: str) -> None:
    task = clone(abs, -1, flags=SHARED)
    number = task.fileno()
    task.wait(10)
    stats()  # the host has let go of it
    box = [task]

    def drop() -> bool:
        if how == "close_fds":
            read_end, write_end = os.pipe()
            for fd in {number} - {read_end, write_end}:
                os.dup2(read_end, fd)
        box.clear()
        gc.collect()
        stats()
        return bool(os.fstat(number))

    fields: dict[str, object] = {"flags": "FILES", "bare": True}
    if how == "close_fds":
        fields = {"setup": ChildSetup(close_fds=True)}
    del task
    assert call(drop, **fields) is True  # type: ignore[arg-type]
    assert "pidfd" in os.readlink(f"/proc/self/fd/{number}")


def test_a_task_with_its_own_file_table_closes_the_descriptors_of_its_own_child() -> None:
    def body() -> int:
        before = os.listdir("/proc/self/fd")
        task = clone(["true"])
        number = task.fileno()
        task.wait()
        del task
        assert os.listdir("/proc/self/fd") == before
        return number

    number = call(body, flags=F.VM, timeout=20)
    os.dup2(0, number)  # in the creator's table the number is this
    try:
        assert call(["true"]) == 0, "a start closes what tasks have left to the creator"
        assert os.fstat(number) == os.fstat(0)
    finally:
        os.close(number)


def test_a_bare_copy_goes_on_where_another_thread_waits_for_the_interpreter_lock() -> None:
    """That thread has asked for the lock, and is not there to take it: the copy would wait for that."""
    script = """
def work():
    for _ in range(60):
        assert call(sum, range(20000), bare=True, timeout=20) == 199990000
    done.append(1)
done = []
thread = threading.Thread(target=work)
thread.start()
while thread.is_alive(): pass
say(len(done))
"""
    assert finish(start(script, "-W", "ignore::DeprecationWarning")) == (0, "1\n", "")
