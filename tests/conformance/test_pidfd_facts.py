"""What pidfds do, through ``fileno()`` of tasks of every kind (see upstream.py)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ordinary import IN_A_USER_NAMESPACE
from routes import PROCESSES, WITHOUT_VFORK, answer_of

from copyforms import IN_NAMESPACES
from proc import PATIENCE, SYS_READ, WALL, held, in_call, until
from taskclone import Task, _core, call, clone
from taskclone.flags import SHARED, THREAD, CloneFlags

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
SYS_PIDFD_GETFD = 438  # the same on every architecture
KCMP_FILE = 0
libc = ctypes.CDLL(None, use_errno=True)

each_route = pytest.mark.parametrize("route", WITHOUT_VFORK)


@contextlib.contextmanager
def waiting(route: str) -> Iterator[Task[Any]]:
    with held(**{"flags": F(0)} | WITHOUT_VFORK[route]) as task:
        yield task


def error_of(call: Any, *arguments: Any) -> int | None:
    """The errno of an OSError, or None."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    return None


def readable(descriptor: int, timeout: float = 0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def information(descriptor: int) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("route", PROCESSES)
def test_the_pid_is_the_tasks_own(route: str) -> None:
    task = clone(os.getpid, **PROCESSES[route])
    pid = task.pid
    assert task.result() == pid != os.getpid()


@each_route
def test_it_is_closed_by_execve_and_says_whom_it_means(route: str) -> None:
    with waiting(route) as task:
        assert fcntl.fcntl(task.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        shown = information(task.fileno())
        assert (int(shown["Pid"]), int(shown["NSpid"].split()[0])) == (task.pid, task.pid)
        kept = os.dup(task.fileno())
    assert information(kept)["Pid"] == "-1", "reaped"
    os.close(kept)


@each_route
def test_it_is_readable_at_the_end_and_not_before(route: str) -> None:
    with waiting(route) as task:
        assert not readable(task.fileno())
        kept = os.dup(task.fileno())
    assert readable(kept)
    os.close(kept)


@each_route
def test_an_ended_task_gets_no_signal(route: str) -> None:
    with waiting(route) as task:
        task.send_signal(0)
        signal.pidfd_send_signal(task.fileno(), 0)
        kept = os.dup(task.fileno())
    with pytest.raises(ProcessLookupError):
        task.send_signal(0)
    assert error_of(signal.pidfd_send_signal, kept, 0) == errno.ESRCH
    assert error_of(os.pidfd_open, task.pid) == errno.ESRCH
    os.close(kept)


@each_route
def test_what_is_no_signal_and_no_flag(route: str) -> None:
    with waiting(route) as task:
        assert error_of(task.send_signal, 99999) == errno.EINVAL
        assert error_of(signal.pidfd_send_signal, task.fileno(), 0, None, 99999) == errno.EINVAL
        assert error_of(os.waitid, os.P_PIDFD, task.fileno(), 0) == errno.EINVAL


@each_route
def test_waiting_for_it(route: str) -> None:
    """Without blocking it is EAGAIN; a clone child, whose exit signal is not SIGCHLD, takes __WALL."""
    exited = os.WEXITED | os.WNOWAIT
    with waiting(route) as task:
        patient = os.pidfd_open(task.pid)
        impatient = os.pidfd_open(task.pid, os.O_NONBLOCK)
        assert error_of(os.waitid, os.P_PIDFD, impatient, exited | WALL) == errno.EAGAIN
        assert os.waitid(os.P_PIDFD, patient, exited | WALL | os.WNOHANG) is None
        is_child = task.granted.exit_signal == signal.SIGCHLD
        wanted = errno.EAGAIN if is_child else errno.ECHILD
        assert error_of(os.waitid, os.P_PIDFD, impatient, exited) == wanted
    for descriptor in (patient, impatient):
        assert error_of(os.waitid, os.P_PIDFD, descriptor, exited | WALL) == errno.ECHILD, "reaped by its Task"
        os.close(descriptor)


@each_route
def test_a_task_is_waited_for_whose_pidfd_does_not_block(route: str) -> None:
    with waiting(route) as task:
        fcntl.fcntl(task.fileno(), fcntl.F_SETFL, os.O_NONBLOCK)
        with pytest.raises(TimeoutError):
            task.wait(0.01)
    assert task.wait(PATIENCE).code == 0


@each_route
def test_stops_and_ends_are_waited_for(route: str) -> None:
    """The states of waitid(2), one after the other. The end of a task that shares memory is its host's to see."""
    steps = [
        (signal.SIGSTOP, os.WSTOPPED, os.CLD_STOPPED),
        (signal.SIGCONT, os.WCONTINUED, os.CLD_CONTINUED),
        (signal.SIGKILL, os.WEXITED | os.WNOWAIT, os.CLD_KILLED),
    ]
    read_end, write_end = os.pipe()
    task = clone(os.read, read_end, 1, **WITHOUT_VFORK[route])
    until(lambda: in_call(task.pid, SYS_READ), "it reads")  # stopped with the interpreter lock, it would stop all
    for number, options, code in steps if route != "shared" else steps[:2]:
        task.send_signal(number)
        info = os.waitid(os.P_PIDFD, task.fileno(), options | WALL)
        assert info is not None
        assert (info.si_pid, info.si_signo) == (task.pid, signal.SIGCHLD)
        assert (info.si_code, info.si_status) == (code, number)
    os.write(write_end, b"x")
    assert task.wait(PATIENCE)[:2] == ((0, None) if route == "shared" else (None, signal.SIGKILL))
    os.close(read_end)
    os.close(write_end)


@each_route
def test_its_descriptors_are_to_be_had(route: str) -> None:
    with waiting(route) as task:
        number = libc.syscall(SYS_PIDFD_GETFD, task.fileno(), 2, 0)
        assert number > 2
        assert _core.kcmp(os.getpid(), task.pid, KCMP_FILE, number, 2) == 0
        os.close(number)
        for descriptor, flags, wanted in ((9999, 0, errno.EBADF), (2, 1, errno.EINVAL)):
            assert libc.syscall(SYS_PIDFD_GETFD, task.fileno(), descriptor, flags) == -1
            assert ctypes.get_errno() == wanted
        kept = os.dup(task.fileno())
    assert libc.syscall(SYS_PIDFD_GETFD, kept, 2, 0) == -1
    assert ctypes.get_errno() == errno.ESRCH
    os.close(kept)


@pytest.mark.parametrize("flags", [F(0), SHARED, THREAD], ids=["PROCESS", "SHARED", "THREAD"])
def test_thread_local_storage_is_the_tasks_own(flags: F) -> None:
    """What CLONE_SETTLS is for. Where memory is copied the same address is in another memory."""
    libc.__errno_location.restype = ctypes.c_void_p
    assert (call(libc.__errno_location, flags=flags) != libc.__errno_location()) is bool(flags & F.VM)


# ---- in namespaces --------------------------------------------------------------------------------------------------


@IN_NAMESPACES
def test_a_recycled_pid_is_somebody_else() -> None:
    """In a PID namespace of its own the next pid can be chosen (ns_last_pid of proc_sys_kernel(5))."""
    script = """
def recycle(flags):
    def free_next(pid):
        before = pid - (2 if flags == "UNTRACED" else 1)  # a relay takes two
        with open("/proc/sys/kernel/ns_last_pid", "w") as last: last.write(str(before))
    old = clone(int, flags=flags)
    pid, kept = old.pid, os.dup(old.fileno())
    old.wait()
    free_next(pid)
    new = clone(signal.pause, flags=flags)
    errors = []
    for send in (lambda: old.send_signal(signal.SIGKILL), lambda: signal.pidfd_send_signal(kept, signal.SIGKILL)):
        try: send()
        except ProcessLookupError as error: errors.append(error.errno)
        else: errors.append(0)
    same, alive = new.pid == pid, new.running()
    new.kill()
    return same, alive, errors[1]
answer = [clone(recycle, flags, flags="NEWPID").result() for flags in (0, "UNTRACED", "FILES")]
"""
    assert answer_of(script, *IN_A_USER_NAMESPACE) == [[True, True, errno.ESRCH]] * 3


@IN_NAMESPACES
@pytest.mark.parametrize("flags", ["NEWUTS", "VM|NEWUTS", "NEWIPC|NEWNET"])
def test_its_namespaces_are_entered_by_the_pidfd(flags: str) -> None:
    """setns(2): EINVAL for no namespaces and for what is none, ESRCH for an ended task."""
    script = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def setns(descriptor, flags): return ctypes.get_errno() if libc.setns(descriptor, flags) else 0
def namespaces(of): return [os.readlink(f"/proc/{{of}}/ns/{{name}}") for name in ("uts", "ipc", "net")]
read_end, write_end = os.pipe()
task = clone(os.read, read_end, 1, flags={flags!r})
pidfd, new = os.dup(task.fileno()), int(task.flags & ~CloneFlags.VM)
before = namespaces("self") == namespaces(task.pid)
wrong = [setns(pidfd, 0), setns(pidfd, int(CloneFlags.VM))]
done = [setns(pidfd, new), namespaces("self") == namespaces(task.pid)]
os.write(write_end, b"x")
task.wait()
answer = [before, wrong, done, setns(pidfd, new)]
"""
    answer = answer_of(script, *IN_A_USER_NAMESPACE)
    assert answer == [False, [errno.EINVAL] * 2, [0, True], errno.ESRCH]


def test_a_task_of_another_user_is_not_signalled() -> None:
    """EPERM, for signal 0 as well; init is always somebody else's to an ordinary user."""
    script = """
from ordinary import become_ordinary
others = os.pidfd_open(1)
become_ordinary()
def send():
    try: signal.pidfd_send_signal(others, 0)
    except OSError as error: return error.errno
answer = [call(send, flags=flags) for flags in (0, "UNTRACED", "FILES", "VM", "VM|VFORK")]
"""
    if os.stat("/proc/1").st_uid == os.getuid() != 0:
        pytest.skip("pid 1 is this user's")
    assert answer_of(script) == [errno.EPERM] * 5
