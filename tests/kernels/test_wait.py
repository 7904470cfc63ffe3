"""The exit status, and who can take it away: what is left then is what the kernel keeps, or the task's own word."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ends import by_end, die, leave
from probes import assert_left, keeps_status

from proc import PATIENCE, SLOWNESS, WALL, gone, pipe, until
from taskclone import PROCESS, SHARED, CloneFlags, Task, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

IN_PLACE = SHARED | CloneFlags.VFORK
ROUTES = {"copied": PROCESS, "shared": SHARED, "in place": IN_PLACE}
by_route = pytest.mark.parametrize("flags", ROUTES.values(), ids=ROUTES)


@by_route
@by_end
def test_waitid_tells_how_it_ended(flags: CloneFlags, body: Any, code: int, number: int) -> None:
    status = clone(body, flags=flags).wait(PATIENCE)
    assert (status.code, status.signal, status.source) == (code, number, "wait")
    assert status.rusage.ru_minflt >= 0


@pytest.mark.parametrize(("script", "code", "number"), [("exit 5", 5, None), ("kill -9 $$", None, signal.SIGKILL)])
def test_waitid_tells_how_a_program_ended(script: str, code: int, number: int) -> None:
    status = clone(["sh", "-c", script]).wait(PATIENCE)
    assert (status.code, status.signal, status.source) == (code, number, "wait")


# ---- somebody else takes it -----------------------------------------------------------------------------------------


def started(body: Callable[[], object], flags: CloneFlags) -> Task[Any]:
    """With SIGCHLD at its end, which comes when clone() is back: a copy that is gone earlier has no pidfd."""
    if flags == IN_PLACE:
        return clone(body, flags=flags, exit_signal=signal.SIGCHLD)
    with pipe() as (read_end, write_end):

        def when_told() -> object:
            os.read(read_end, 1)
            return body()

        task = clone(when_told, flags=flags, exit_signal=signal.SIGCHLD)
        os.write(write_end, b"x")
        until(lambda: gone(task.pid), "it has ended")
    return task


@by_route
@by_end
def test_a_foreign_wait_steals_it(flags: CloneFlags, body: Any, code: int, number: int) -> None:
    task = started(body, flags)
    pid, status = os.waitpid(-1, 0)
    assert (pid, os.waitstatus_to_exitcode(status)) == (task.pid, code if number is None else -number)
    left = task.wait(PATIENCE)
    if left.source == "wait" and flags != PROCESS:
        assert (left.code, left.signal) == (code, number)  # its host, or the caller in place, looked before the thief
    else:
        assert_left(left, code, number, has_word=body not in (leave, die))


def test_a_foreign_wait_steals_a_programs() -> None:
    task = clone(["sh", "-c", "exit 5"])
    assert os.waitpid(-1, 0)[0] == task.pid
    assert_left(task.wait(PATIENCE), 5, None, has_word=False)


def test_without_an_exit_signal_there_is_nothing_to_steal() -> None:
    with pipe() as (read_end, write_end):
        task = clone(os.read, read_end, 1, flags=SHARED)
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert os.waitid(os.P_PID, task.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL) is None
        os.write(write_end, b"x")
    assert task.wait(PATIENCE).source == "wait"


@pytest.fixture
def sigchld_ignored() -> Iterator[None]:
    """Children vanish by themselves then: the kernel reaps them."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("sigchld_ignored")
@by_route
@by_end
def test_a_creator_that_ignores_sigchld(flags: CloneFlags, body: Any, code: int, number: int) -> None:
    task = started(body, flags)
    assert_left(task.wait(PATIENCE), code, number, has_word=body not in (leave, die))


@pytest.mark.usefixtures("sigchld_ignored")
def test_a_creator_that_ignores_sigchld_and_starts_a_program() -> None:
    task = clone(["sh", "-c", "exit 5"])
    assert_left(task.wait(PATIENCE), 5, None, has_word=False)


@pytest.mark.usefixtures("sigchld_ignored")
@pytest.mark.parametrize("flags", [SHARED, IN_PLACE], ids=["shared", "in place"])
@by_end
def test_without_an_exit_signal_sigchld_is_nothing_to_ignore(
    flags: CloneFlags, body: Any, code: int, number: int
) -> None:
    status = clone(body, flags=flags).wait(PATIENCE)
    assert (status.code, status.signal, status.source) == (code, number, "wait")


@pytest.mark.usefixtures("sigchld_ignored")
def test_a_status_asked_for_while_the_kernel_reaps() -> None:
    """Between the moment from which no wait finds the task and the one in which its pidfd has the status."""
    sources = set()
    for _ in range(round(300 / SLOWNESS)):
        task = clone(["true"])
        while not task.done():
            pass
        assert task.status is not None
        sources.add(task.status.source)
    assert sources == ({"pidfd"} if keeps_status() else {"lost"})


@pytest.mark.parametrize("flags", [PROCESS, SHARED], ids=["copied", "shared"])
def test_a_result_is_not_lost_with_the_status(flags: CloneFlags) -> None:
    task: Task[int] = clone(abs, -7, flags=flags, exit_signal=signal.SIGCHLD)
    os.waitpid(-1, 0)
    assert task.result(PATIENCE) == 7
