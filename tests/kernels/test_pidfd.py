"""The descriptor of a task: a pidfd for what has a pid, and for a thread a pidfd where the kernel has one, else an
eventfd. Readable at the end, and not before."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path

import pytest
from probes import has_thread_pidfds, keeps_status, kept_status

from proc import PATIENCE, WALL, held, pipe
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Task, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
PROCESSES = {"copied": PROCESS, "shared": SHARED, "from birth": SHARED | F.PIDFD, "handlers": F.VM | F.SIGHAND}


def kind_of(descriptor: int) -> str:
    """pidfd or eventfd."""
    link = os.readlink(f"/proc/self/fd/{descriptor}")  # anon_inode:[pidfd], and pidfd:[...] with a file system for them
    return "pidfd" if "pidfd" in link else "eventfd" if "eventfd" in link else link


def pid_of(pidfd: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pid:")).split()[1])


def readable(task: Task[object], seconds: float = 0) -> bool:
    return bool(select.select([task], [], [], seconds)[0])


@pytest.mark.parametrize("flags", PROCESSES.values(), ids=PROCESSES)
def test_what_has_a_pid_has_a_pidfd(flags: F) -> None:
    with held(flags) as task:
        assert kind_of(task.fileno()) == "pidfd"
        assert pid_of(task.fileno()) == task.pid
        assert not readable(task)
        assert os.waitid(os.P_PIDFD, task.fileno(), os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL) is None
    assert readable(task, PATIENCE)
    assert task.wait(PATIENCE).code == 0


def test_a_programs_pidfd() -> None:
    with pipe() as (read_end, write_end):
        task = clone(["cat"], stdin=read_end)
        assert kind_of(task.fileno()) == "pidfd"
        assert pid_of(task.fileno()) == task.pid
        os.close(os.dup(write_end))
        assert not readable(task)
        task.send_signal(signal.SIGTERM)
        assert readable(task, PATIENCE)
    assert task.wait(PATIENCE).signal == signal.SIGTERM


def test_a_thread_has_the_best_that_the_kernel_has() -> None:
    with held(THREAD) as task:
        if has_thread_pidfds():
            assert kind_of(task.fileno()) == "pidfd"
            assert pid_of(task.fileno()) == task.tid
        else:
            assert kind_of(task.fileno()) == "eventfd"
        assert not readable(task)
    assert readable(task, PATIENCE)
    assert task.wait(PATIENCE).code == 0


@pytest.mark.parametrize("flags", [SHARED, SHARED | F.VFORK, THREAD], ids=["shared", "in place", "thread"])
def test_after_the_end_the_descriptor_only_says_so(flags: F) -> None:
    task = clone(int, flags=flags)
    task.wait(PATIENCE)
    assert readable(task)
    with pytest.raises(ProcessLookupError):
        task.send_signal(signal.SIGTERM)


def test_a_signal_for_a_thread_reaches_that_thread() -> None:
    """By its pidfd, or by its id where there is none; another thread that would take it does not get it."""
    taken: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: taken.append(number))
    try:
        with pipe() as (read_end, write_end):

            def body() -> tuple[int, int]:
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
                os.write(write_end, b"x")
                info = signal.sigtimedwait([signal.SIGUSR1], PATIENCE)
                return (info.si_signo, info.si_pid) if info else (0, 0)

            task = clone(body, flags=THREAD)
            os.read(read_end, 1)
            task.send_signal(signal.SIGUSR1)
            assert task.result(PATIENCE) == (signal.SIGUSR1, os.getpid())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert taken == []


def test_a_pidfd_outlives_the_reaping() -> None:
    task = clone(["sh", "-c", "exit 7"])
    copy = os.dup(task.fileno())
    assert task.wait(PATIENCE).code == 7
    status = kept_status(copy)
    os.close(copy)
    assert (status is not None) == keeps_status()
    assert status is None or os.waitstatus_to_exitcode(status) == 7


def test_many_wait_for_one_descriptor() -> None:
    seen: list[bool] = []
    with held(THREAD) as task:
        waiters = [threading.Thread(target=lambda: seen.append(readable(task, PATIENCE))) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        assert seen == []
    for waiter in waiters:
        waiter.join()
    assert seen == [True] * 3
