"""AUTOREAP and PIDFD_AUTOKILL of Linux 7.1: tasks that nobody waits for, and that end with their descriptor."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import Any

import pytest
from ends import by_end
from kernel_oracle import Oracle, Question

import creator
from proc import PATIENCE, WALL, children_of, held, pipe, state_of, until
from taskclone import SHARED, CloneFlags, FlagError, Task, TaskDied, UnsupportedOperation, call, clone
from taskclone.rule import has_sys_admin

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
ROUTES = {
    "bare": F.AUTOREAP,
    "bare with files": F.AUTOREAP | F.FILES,
    "shared": SHARED | F.AUTOREAP,
    "in place": SHARED | F.VFORK | F.AUTOREAP,
}
by_route = pytest.mark.parametrize("flags", ROUTES.values(), ids=ROUTES)
AUTOKILL = F.PIDFD | F.AUTOREAP | F.PIDFD_AUTOKILL
KILLED = [AUTOKILL | F.NNP, *([AUTOKILL] if has_sys_admin() else [])]
by_privilege = pytest.mark.parametrize("flags", KILLED, ids=["NNP", "privileged"][: len(KILLED)])
BODIES: dict[str, Any] = {"function": signal.pause, "program": ["sleep", "3600"]}
by_body = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)


@pytest.fixture(scope="module")
def answer(oracle: Oracle) -> int:
    """The kernel's: 0, or an errno where it is older."""
    (answer,) = oracle.ask([Question("clone3", F.AUTOREAP)])
    return answer


@pytest.fixture(scope="module")
def since_7_1(answer: int) -> None:
    if answer:
        pytest.skip("this kernel has no AUTOREAP")


@pytest.fixture(scope="module")
def before_7_1(answer: int) -> None:
    if not answer:
        pytest.skip("this kernel has AUTOREAP")


@pytest.mark.usefixtures("before_7_1")
@pytest.mark.parametrize("flags", [*ROUTES.values(), AUTOKILL, AUTOKILL | F.NNP], ids=str)
def test_an_older_kernel_has_neither(flags: F, answer: int) -> None:
    ran: list[int] = []
    for body in ((ran.append, 1), (["true"],)):
        with pytest.raises(FlagError, match=r"CLONE_AUTOREAP.* came with Linux 7\.1") as caught:
            clone(*body, flags=flags)
        assert (caught.value.errno, caught.value.rule) == (answer, "since-7.1")
    assert ran == []


# ---- AUTOREAP -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("since_7_1")
@by_route
@by_end
def test_its_pidfd_tells_how_it_ended(flags: F, body: Any, code: int | None, number: int | None) -> None:
    task = clone(body, flags=flags)
    assert (task.granted.exit_signal, task.granted.flags & F.AUTOREAP) == (0, F.AUTOREAP)
    status = task.wait(PATIENCE)
    assert (status.code, status.signal, status.source, status.rusage) == (code, number, "pidfd", None)
    assert children_of(os.getpid()) == {}


@pytest.mark.usefixtures("since_7_1")
@pytest.mark.parametrize(("script", "code", "number"), [("exit 5", 5, None), ("kill -9 $$", None, signal.SIGKILL)])
def test_a_programs_pidfd_tells_it_too(script: str, code: int | None, number: int | None) -> None:
    task = clone(["sh", "-c", script], flags=F.AUTOREAP)
    assert task.granted.exit_signal == 0
    status = task.wait()
    assert (status.code, status.signal, status.source, status.rusage) == (code, number, "pidfd", None)


@pytest.mark.usefixtures("since_7_1")
@by_route
def test_results_and_exceptions(flags: F) -> None:
    assert call(divmod, 7, 2, flags=flags) == (3, 1)
    with pytest.raises(ValueError, match="invalid literal"):
        call(int, "x", flags=flags)


@pytest.mark.usefixtures("since_7_1")
@pytest.mark.parametrize("flags", [F.AUTOREAP, SHARED | F.AUTOREAP], ids=["bare", "shared"])
@pytest.mark.parametrize("is_program", [False, True], ids=["function", "program"])
def test_a_foreign_wait_sees_nothing_and_no_signal_comes(flags: F, is_program: bool) -> None:
    """It sleeps until the task has ended, and then there was no child to wait for."""
    taken: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, frame: taken.append(number))
    try:
        with pipe() as (read_end, write_end):
            if is_program:
                task: Task[Any] = clone(["cat"], flags=F.AUTOREAP, stdin=read_end)
                task.send_signal(signal.SIGTERM)
            else:
                task = clone(os.read, read_end, 1, flags=flags)
                os.write(write_end, b"x")
            with pytest.raises(ChildProcessError):
                os.waitid(os.P_ALL, 0, os.WEXITED | WALL)
            assert state_of(task.pid) in ("", "X")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert taken == []
    status = task.wait(PATIENCE)
    assert (status.code, status.signal) == ((None, signal.SIGTERM) if is_program else (0, None))
    assert status.source == "pidfd"


@pytest.mark.usefixtures("since_7_1")
def test_one_that_shares_memory_crashes_and_is_ended() -> None:
    script = """
import ctypes
flags = SHARED | CloneFlags.AUTOREAP
error = clone(ctypes.string_at, 0, flags=flags).exception()
assert isinstance(error, TaskDied) and error.signal == signal.SIGSEGV and error.address == 0, error
task = clone(time.sleep, 3600, flags=flags)
task.kill()
assert isinstance(task.exception(), TaskDied) and task.status.source == "pidfd", repr(task.status)
task = clone(time.sleep, 3600, flags=flags)
task.terminate()
assert isinstance(task.exception(), TaskDied) and task.status.source == "pidfd", repr(task.status)
say(call(abs, -7, flags=flags))
"""
    assert creator.run(script) == (0, "7\n", "")


# ---- PIDFD_AUTOKILL -------------------------------------------------------------------------------------------------


def vanished(pid: int) -> Callable[[], bool]:
    return lambda: state_of(pid) == ""


def drop(tasks: list[Task[Any]]) -> None:
    with pytest.warns(ResourceWarning, match="forgotten while it runs"):
        tasks.clear()


@pytest.mark.usefixtures("since_7_1")
@by_privilege
@by_body
def test_dropping_the_task_ends_it(body: Any, flags: F) -> None:
    tasks = [clone(body, flags=flags)]
    pid = tasks[0].pid
    assert tasks[0].granted.flags & AUTOKILL == AUTOKILL
    assert tasks[0].granted.exit_signal == 0
    assert tasks[0].running()
    drop(tasks)
    until(vanished(pid), "it was killed")


@pytest.mark.usefixtures("since_7_1")
@by_body
def test_a_copy_of_its_descriptor_keeps_it(body: Any) -> None:
    tasks = [clone(body, flags=AUTOKILL | F.NNP)]
    pid, kept = tasks[0].pid, os.dup(tasks[0].fileno())
    drop(tasks)
    assert select.select([kept], [], [], 0.1)[0] == []
    os.close(kept)
    until(vanished(pid), "it was killed")


@pytest.mark.usefixtures("since_7_1")
@pytest.mark.parametrize("form", [{}, {"bare": True}], ids=["fork", "bare"])
def test_a_copy_of_the_creator_does_not_keep_it(form: dict[str, Any]) -> None:
    tasks = [clone(signal.pause, flags=AUTOKILL | F.NNP)]
    pid = tasks[0].pid
    with held(F(0), **form):
        drop(tasks)
        until(vanished(pid), "it was killed")


@pytest.mark.usefixtures("since_7_1")
@by_body
def test_the_death_of_its_creator_ends_it(body: Any) -> None:
    word = "signal.pause" if callable(body) else repr(body)
    script = f"task = clone({word}, flags='PIDFD|AUTOREAP|PIDFD_AUTOKILL|NNP')\nsay(task.pid)\nsignal.pause()"
    process = creator.start(script)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert state_of(pid) in ("S", "R", "D")
    process.kill()
    process.communicate(timeout=PATIENCE)
    until(vanished(pid), "it was killed")


@pytest.mark.usefixtures("since_7_1")
def test_it_can_be_waited_for_and_ended_as_others() -> None:
    flags = AUTOKILL | F.NNP
    assert call(divmod, 7, 2, flags=flags) == (3, 1)
    assert call(["sh", "-c", "exit 5"], flags=flags) == 5
    with clone(signal.pause, flags=flags) as task:
        task.kill(timeout=PATIENCE)
        assert isinstance(task.exception(PATIENCE), TaskDied)
    assert task.wait(PATIENCE).signal == signal.SIGKILL


@pytest.mark.usefixtures("since_7_1")
@pytest.mark.parametrize("flags", [F.VM, SHARED, SHARED | F.VFORK], ids=["VM", "SHARED", "in place"])
def test_no_function_that_shares_memory_ends_so(flags: F) -> None:
    with pytest.raises(UnsupportedOperation, match=r"PIDFD_AUTOKILL: .* may leave the interpreter lock taken"):
        clone(int, flags=flags | AUTOKILL | F.NNP)


@pytest.mark.usefixtures("since_7_1")
@pytest.mark.root
def test_an_ordinary_user_needs_nnp() -> None:
    def try_both() -> tuple[int | None, int]:
        os.setgid(65534)
        os.setuid(65534)
        number = None
        try:
            clone(int, flags=AUTOKILL)
        except OSError as error:
            number = error.errno
        return number, call(abs, -7, flags=AUTOKILL | F.NNP)

    assert call(try_both) == (1, 7)
