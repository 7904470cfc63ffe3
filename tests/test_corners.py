"""Corners in which something once went wrong: each was a hang, a leak, a lost error or a wrong victim."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from typing import Any

import pytest

from copyforms import IN_NAMESPACES
from creator import finish, run, start
from proc import no_descriptors_left
from taskclone import SHARED, THREAD, CloneFlags, Plan, StartError, Task, TaskDied, call, clone
from taskclone._core import shared_start
from taskclone.errors import TaskTerminated
from taskclone.routes.shared import SharedHandle

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_program_started_by_a_hosted_body_does_not_keep_the_interpreter_lock() -> None:
    task = clone(os.execv, "/bin/sh", ["sh", "-c", "sleep 1; exit 4"], flags=SHARED)
    longest, last = 0.0, time.monotonic()
    while not task.done():
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        time.sleep(0.001)
    assert longest < 0.5
    error = task.exception()
    assert isinstance(error, TaskDied)
    assert error.code == 4


def test_programs_start_while_another_thread_changes_the_environment() -> None:
    stop = threading.Event()

    def change() -> None:
        for number in range(10**9):
            if stop.is_set():
                break
            os.environ[f"CHANGED_{number % 500}"] = "x" * (number % 100)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(100):
            assert clone(["/bin/true"]).result(10) == 0
    finally:
        stop.set()
        changer.join()
        for name in [name for name in os.environ if name.startswith("CHANGED_")]:
            del os.environ[name]


@pytest.mark.parametrize(
    "fields",
    [{"flags": SHARED, "exit_signal": signal.SIGCHLD}, {}],
    ids=["SHARED", "PROCESS"],
)
def test_without_a_descriptor_for_the_pidfd_there_is_no_task(fields: dict[str, Any]) -> None:
    ran: list[int] = []
    with no_descriptors_left(), pytest.raises((StartError, OSError)) as refused:
        clone(ran.append, 1, **fields).result(10)
    assert refused.value.errno == errno.EMFILE
    assert not ran


@pytest.mark.parametrize("flags", [SHARED, SHARED | CloneFlags.VFORK, THREAD], ids=["SHARED", "in place", "THREAD"])
def test_a_shared_task_needs_no_descriptor_until_it_is_asked_for(flags: CloneFlags) -> None:
    with no_descriptors_left():
        task = clone(os.getpid, flags=flags)
        assert task.result(10) == task.pid
        task.wait(10)
        with pytest.raises(OSError, match="Too many open files"):
            task.fileno()
    assert task.wait(10).code == 0
    assert select.select([task], [], [], 0)[0] == [task]
    assert task.fileno() == task.fileno()
    with pytest.raises(ProcessLookupError):
        task.send_signal(signal.SIGTERM)


def test_a_start_that_failed_is_said_by_every_use() -> None:
    with no_descriptors_left():
        # Plain flags are not waited for by clone(); the pidfd from birth is what makes this start fail.
        core = shared_start(
            os.getpid, (), None, int(SHARED | CloneFlags.PIDFD), 0, 0, None, False, TaskTerminated, False
        )
        task = Task(SharedHandle(core), Plan(SHARED), "shared")
        for use in (task.result, task.wait, lambda: task.pid, task.fileno):
            with pytest.raises(StartError):
                use()
        assert "StartError" in repr(task)


def test_call_with_an_exit_signal_returns_the_result_and_reaps() -> None:
    for number in range(200):
        assert call(int, number, flags=SHARED, exit_signal=signal.SIGCHLD) == number


def test_the_with_block_reaps_a_task_with_an_exit_signal() -> None:
    with clone(os.getpid, flags=SHARED, exit_signal=signal.SIGCHLD) as task:
        pass
    assert not os.path.exists(f"/proc/{task.pid}")


def test_sigterm_ends_a_task_after_the_creator_has_forked() -> None:
    script = """
ready = []
def body():
    ready.append(1)
    time.sleep(60)
task = clone(body, flags=SHARED)
while not ready: time.sleep(0.001)
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
os.kill(task.pid, signal.SIGTERM)
say(type(task.exception(20)).__name__)
"""
    assert finish(start(script, "-W", "ignore")) == (0, "TaskDied\n", "")


def test_a_task_can_end_a_task_of_its_own() -> None:
    def outer() -> str:
        try:
            call(time.sleep, 60, timeout=0.2, flags=SHARED)
        except TimeoutError as error:
            return str(error)
        return "no timeout"

    began = time.monotonic()
    assert "was ended" in call(outer, flags=SHARED, timeout=30)
    assert time.monotonic() - began < 8


def test_a_child_forked_by_a_task_has_ordinary_signals() -> None:
    def body() -> int:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert call(body, flags=SHARED, timeout=30) == -signal.SIGTERM


def test_a_task_does_not_enter_its_own_children_in_the_creators_books() -> None:
    def body() -> int:
        return clone(["/bin/true"]).result(10) + clone(int).result(10)

    assert call(body, flags=SHARED, timeout=30) == 0
    for _ in range(70):  # past the sweep
        assert clone(["/bin/true"]).result(10) == 0


def test_a_name_that_the_kernel_cannot_have_is_refused() -> None:
    for flags in (SHARED, THREAD, 0):
        with pytest.raises(ValueError, match="name"):
            clone(int, flags=flags, name="\ud800")


@IN_NAMESPACES
@pytest.mark.parametrize("flags", ["VM|SIGHAND|NEWPID", "VM|SIGHAND|NEWPID|VFORK"])
def test_the_end_of_an_init_that_shares_handlers_leaves_sigchld_alone(flags: str) -> None:
    """The kernel has it ignored then, and every later child of the creator would lose its status."""
    script = f"""
import subprocess
for signal_at_the_end in (None, signal.SIGCHLD):
    user = "" if os.geteuid() == 0 else "|NEWUSER"
    clone(int, flags="{flags}" + user, exit_signal=signal_at_the_end).wait(10)
    say(signal.getsignal(signal.SIGCHLD), subprocess.run(["sh", "-c", "exit 7"]).returncode)
"""
    assert run(script) == (0, "0 7\n" * 2, "")
