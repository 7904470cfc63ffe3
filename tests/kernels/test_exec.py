"""execve: of a body, which makes a program of its task, and of the program route."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

from proc import PATIENCE, pipe
from taskclone import PROCESS, SHARED, CloneFlags, StartError, TaskDied, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
ROUTES = {"copied": PROCESS, "VM": F.VM, "SHARED": SHARED, "in place": SHARED | F.VFORK}
by_route = pytest.mark.parametrize("flags", ROUTES.values(), ids=ROUTES)


@by_route
@pytest.mark.parametrize(
    ("script", "code", "number"), [("exit 0", 0, None), ("exit 3", 3, None), ("kill -9 $$", None, signal.SIGKILL)]
)
def test_a_body_that_becomes_a_program(flags: F, script: str, code: int | None, number: int | None) -> None:
    """It ends as the program ends, without a result; the creator has its memory, and starts the next."""
    kept = bytearray(b"kept")
    task = clone(os.execv, "/bin/sh", ["sh", "-c", script], flags=flags)
    error = task.exception(PATIENCE)
    assert isinstance(error, TaskDied)
    assert (error.code, error.signal) == (code, number)
    status = task.wait(PATIENCE)
    assert (status.code, status.signal) == (code, number)
    assert kept == b"kept"
    assert call(abs, -7, flags=flags) == 7


@pytest.mark.parametrize("flags", [F.VM, SHARED], ids=["VM", "SHARED"])
def test_other_sharers_and_threads_go_on(flags: F) -> None:
    with pipe() as (read_end, write_end):
        other = clone(os.read, read_end, 1, flags=SHARED)
        thread = threading.Thread(target=os.read, args=(read_end, 1))
        thread.start()
        error = clone(os.execv, "/bin/sh", ["sh", "-c", "exit 3"], flags=flags).exception(PATIENCE)
        assert isinstance(error, TaskDied)
        assert error.code == 3
        assert other.running()
        assert thread.is_alive()
        os.write(write_end, b"xx")
        assert other.result(PATIENCE) == b"x"
        thread.join()


def test_the_program_has_memory_of_its_own_at_once() -> None:
    """It runs on while the creator changes what was shared, and the creator is not held up."""
    with pipe() as (read_end, write_end):
        os.set_inheritable(read_end, True)
        task = clone(os.execv, "/bin/sh", ["sh", "-c", f"read line </dev/fd/{read_end}; exit $line"], flags=SHARED)
        assert [call(abs, -i, flags=SHARED) for i in range(20)] == list(range(20))
        assert task.status is None
        os.write(write_end, b"9\n")
        assert task.wait(PATIENCE).code == 9


@by_route
def test_an_execve_that_fails_is_an_exception_of_the_body(flags: F) -> None:
    def body() -> str:
        try:
            os.execv("/nowhere/at/all", ["at all"])
        except FileNotFoundError:
            return "still here"

    assert call(body, flags=flags) == "still here"


def test_the_program_route() -> None:
    assert call(["sh", "-c", "exit 3"]) == 3
    task = clone(["sh", "-c", "exit 4"])
    assert task.wait(PATIENCE).code == 4
    assert task.granted.exit_signal == signal.SIGCHLD


def test_a_program_that_is_not_there_leaves_nothing() -> None:
    with pytest.raises(StartError) as caught:
        clone(["/nowhere/at/all"])
    assert (caught.value.step, caught.value.errno) == ("execve", errno.ENOENT)
