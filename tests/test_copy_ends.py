"""How copies end, in each form: politely, at once, by themselves, and with a creator that sleeps until then."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from copyforms import FORMS, by_form
from proc import WALL, pipe, state_of, until
from taskclone import ChildSetup, CloneFlags, Plan, StartError, TaskDied, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags


# ---- its end --------------------------------------------------------------------------------------------------------


def for_ever(write_end: int, trace: Path) -> None:
    try:
        os.write(write_end, b"x")
        while True:
            time.sleep(0.01)
    finally:
        trace.write_text("cleaned up")


@by_form()
def test_terminate_lets_finally_blocks_run(form: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text("")
    trace.chmod(0o666)  # in a user namespace it is nobody who writes
    tmp_path.chmod(0o755)
    with pipe() as (read_end, write_end):
        task = clone(for_ever, write_end, trace, **FORMS[form])
        assert os.read(read_end, 1) == b"x"
        task.terminate()
    status = task.wait(10)
    if form in ("namespaces", "bare-NEWPID"):
        assert status.code == 128 + signal.SIGTERM, "init does not die of a signal that it sends itself"
    else:
        assert status.signal == signal.SIGTERM
    with pytest.raises(TaskDied):
        task.result()
    assert trace.read_text() == "cleaned up"


def doze() -> None:
    while True:
        time.sleep(0.01)


@by_form()
def test_a_request_to_end_is_never_lost_however_early(form: str) -> None:
    """Init of a PID namespace is deaf to what it has no handler for; others would die without a word."""
    plan = Plan(**FORMS[form])
    for _ in range(20):
        task = plan.start(doze)
        task.terminate(grace=60, timeout=60)
        assert task.wait(0).signal in (None, signal.SIGTERM)
        assert task.wait(0).code in (None, 128 + signal.SIGTERM)


class AskedToEnd(dict[str, str]):
    """An environment that is set in a copy at a moment at which no handler is there yet."""

    def clear(self) -> None:
        super().clear()
        os.kill(os.getpid(), signal.SIGTERM)


@by_form("relay", "namespaces", "bare", "bare-NEWPID")
def test_what_came_before_the_body_is_not_left_to_its_end(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be one call in C, as here: the interpreter would look at signals after it."""
    monkeypatch.setattr(os, "environ", AskedToEnd(os.environ))
    task = clone(time.sleep, 60, setup=ChildSetup(environment={}), **FORMS[form])
    status = task.wait(20)
    assert status.signal == signal.SIGTERM or status.code == 128 + signal.SIGTERM


@by_form()
def test_kill(form: str) -> None:
    with pipe() as (read_end, write_end):
        task = clone(for_ever, write_end, Path("/dev/null"), **FORMS[form])
        assert os.read(read_end, 1) == b"x"
        task.kill()
    assert task.wait(0).signal == signal.SIGKILL
    assert state_of(task.pid) == ""


@pytest.mark.parametrize("number", [0, signal.SIGUSR1, signal.SIGCHLD])
def test_the_exit_signal_of_a_bare_copy(number: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGCHLD])
    try:
        task = clone(int, bare=True, exit_signal=number)
        until(lambda: state_of(task.pid) == "Z", "the end")
        assert signal.sigpending() & {signal.SIGUSR1, signal.SIGCHLD} == ({number} if number else set())
        assert task.granted.exit_signal == number
        seen_without_wall = number == signal.SIGCHLD
        if seen_without_wall:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            assert found is not None
            assert found.si_pid == task.pid
        else:
            with pytest.raises(ChildProcessError):
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            assert os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL) is not None
        assert task.wait(10).code == 0
        while signal.sigtimedwait([signal.SIGUSR1, signal.SIGCHLD], 0):
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1, signal.SIGCHLD])


def test_os_wait_takes_a_relay() -> None:
    task = clone(sys.exit, 3, flags="UNTRACED")
    pid, status = os.wait()
    assert (pid, os.waitstatus_to_exitcode(status)) == (task.pid, 3), "and never the one in the middle"
    assert task.wait(10).code == 3
    with pytest.raises(ChildProcessError):
        os.wait()


# ---- VFORK ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"flags": "VFORK"}, {"flags": "VFORK|FILES", "bare": True}], ids=["relay", "bare"])
def test_with_vfork_the_creator_sleeps_until_the_end(fields: dict[str, Any]) -> None:
    began = time.monotonic()
    task = clone(time.sleep, 0.2, **fields)
    assert time.monotonic() - began >= 0.2
    until(lambda: state_of(task.pid) == "Z", "the rest of its end")
    assert task.result(0) is None
    assert call(bytes, 100_000, **fields) == bytes(100_000)
    assert task.granted.flags & F.VFORK


@pytest.mark.parametrize("fields", [{"flags": "VFORK"}, {"flags": "VFORK|FILES", "bare": True}], ids=["relay", "bare"])
def test_or_until_it_calls_execve(fields: dict[str, Any]) -> None:
    task = clone(os.execv, "/bin/sleep", ["sleep", "60"], **fields)
    assert task.running()
    comm = Path(f"/proc/{task.pid}/comm")  # set a moment after the creator is woken
    until(lambda: comm.read_text() == "sleep\n", "execve")
    task.kill()


def test_other_threads_go_on_beside_a_relay_that_sleeps() -> None:
    seen: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.01):
            seen.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        with pytest.warns(DeprecationWarning, match="other threads"):
            call(time.sleep, 0.3, flags="VFORK")
    finally:
        stop.set()
        ticker.join()
    assert len(seen) > 5


def test_a_failed_step_of_one_with_vfork_is_a_start_error(tmp_path: Path) -> None:
    for fields in ({"flags": "VFORK"}, {"flags": "VFORK", "bare": True}):
        with pytest.raises(StartError) as caught:
            clone(int, setup=ChildSetup(cwd=tmp_path / "missing"), **fields)
        assert (caught.value.step, caught.value.errno) == ("chdir", errno.ENOENT)
