"""What is shared is exactly what the flags say, proven on live tasks by kcmp and /proc."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proc import (
    SYS_READ,
    Kcmp,
    descriptors,
    gone,
    held,
    in_call,
    may_make_user_namespaces,
    pipe,
    shared_between,
    something_to_share,
    until,
)
from taskclone import (
    PROCESS,
    SHARED,
    THREAD,
    CloneFlags,
    ExitStatus,
    Plan,
    Task,
    UnsupportedOperation,
    _core,
    call,
    clone,
)
from taskclone.flags import parse_flags

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
IN_PLACE = SHARED | F.VFORK

RESOURCES = F.VM | F.FILES | F.FS | F.SIGHAND | F.SYSVSEM
SETS = [
    "VM", "VM|FILES", "VM|FS", "VM|SYSVSEM", "VM|SIGHAND", "VM|FILES|FS", "VM|FILES|FS|SYSVSEM",
    "VM|FILES|FS|SIGHAND|SYSVSEM", "VM|FILES|UNTRACED",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_undo_list_and_io_context() -> Iterator[None]:
    with something_to_share():
        yield


def expected(flags: F) -> set[str]:
    return {kind.name for kind in Kcmp if flags & F[kind.name]}


def test_copied_memory_shares_nothing() -> None:
    with held(PROCESS) as task:
        assert shared_between(os.getpid(), task.pid) == set()


@pytest.mark.parametrize("flags", SETS)
def test_a_shared_task_shares_what_its_flags_say(flags: str) -> None:
    with held(flags) as task:
        assert shared_between(os.getpid(), task.pid) == expected(parse_flags(flags))
    assert task.result() is None


def test_the_io_context_is_that_of_the_thread_that_clones() -> None:
    """The caller's in place, and where it clones itself onto a parked host's storage; else the host's: refused."""
    with something_to_share(), pipe() as (read_end, write_end):
        task = clone(os.read, read_end, 1, flags="VM|FILES|IO")
        assert "IO" in shared_between(os.getpid(), task.pid)
        os.write(write_end, b"x")
        task.wait(10)
    refused: list[str] = []

    def elsewhere(**fields: Any) -> None:
        try:
            clone(os.getpid, flags="VM|FILES|IO", **fields)
        except UnsupportedOperation as error:
            refused.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    elsewhere(exit_signal=signal.SIGCHLD)
    assert len(refused) == 2
    assert all("I/O context would be the host's. Add VFORK" in text for text in refused)


@pytest.mark.parametrize("flags", [*SETS, "VM|IO"])
def test_a_task_in_place_shares_what_its_flags_say(flags: str) -> None:
    def look() -> set[str]:
        return shared_between(os.getppid(), os.getpid())

    assert call(look, flags=parse_flags(flags) | F.VFORK) == expected(parse_flags(flags))


def test_a_thread_shares_all_that_pthread_create_shares() -> None:
    with held(THREAD) as task:
        assert shared_between(os.getpid(), task.tid) == {"VM", "FILES", "FS", "SIGHAND", "SYSVSEM"}
        assert Path(f"/proc/{os.getpid()}/task/{task.tid}").exists()


@pytest.mark.parametrize("flags", [PROCESS, SHARED, THREAD, F.VM, F.VM | F.SIGHAND], ids=str)
def test_thread_groups(flags: F) -> None:
    with held(flags) as task:
        lines = Path(f"/proc/{task.tid}/status").read_text().splitlines()
        fields = dict(line.split(":\t") for line in lines if ":\t" in line)
        assert int(fields["Tgid"]) == task.pid == (os.getpid() if flags == THREAD else task.tid)
        assert fields["Threads"] == "1" or flags == THREAD


@pytest.mark.parametrize("flags", [PROCESS, F.VM, SHARED, IN_PLACE], ids=["PROCESS", "VM", "SHARED", "in place"])
def test_without_fs_a_task_has_its_own_directory_and_umask(flags: F, tmp_path: Path) -> None:
    here, umask = os.getcwd(), os.umask(0o22)

    def body() -> tuple[str, int]:
        os.chdir(tmp_path)
        return os.getcwd(), os.umask(0o77)

    assert call(body, flags=flags) == (str(tmp_path), 0o22)
    assert (os.getcwd(), os.umask(umask)) == (here, 0o22)


@pytest.mark.parametrize("flags", [SHARED | F.FS, IN_PLACE | F.FS, THREAD], ids=["FS", "in place", "THREAD"])
def test_with_fs_they_are_everybodys(flags: F, tmp_path: Path) -> None:
    here, umask = os.getcwd(), os.umask(0o22)
    try:
        call(lambda: (os.chdir(tmp_path), os.umask(0o77)), flags=flags)
        assert (os.getcwd(), os.umask(umask)) == (str(tmp_path), 0o77)
    finally:
        os.chdir(here)
        os.umask(umask)


@pytest.mark.parametrize("flags", [PROCESS, F.VM, F.VM | F.VFORK, SHARED, THREAD], ids=str)
def test_descriptors_opened_and_closed_in_a_task(flags: F, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    to_close = os.open(os.devnull, os.O_RDONLY)

    def body() -> None:
        os.open(opened, os.O_CREAT | os.O_RDONLY)
        os.close(to_close)

    call(body, flags=flags)
    there = {number for number, path in descriptors().items() if path == str(opened)}
    is_open = to_close in descriptors()
    for number in there | ({to_close} if is_open else set()):
        os.close(number)
    assert (len(there), is_open) == ((1, False) if flags & F.FILES else (0, True))


def test_the_classic_sample_with_plain_os_wait() -> None:
    for flags in (PROCESS, SHARED, IN_PLACE):
        task = clone(sys.exit, 3, flags=flags, exit_signal=signal.SIGCHLD)
        pid, status = os.wait()
        assert (pid, os.waitstatus_to_exitcode(status)) == (task.pid, 3)
        assert task.granted.exit_signal == signal.SIGCHLD
        assert isinstance(task.wait(10), ExitStatus)
        assert task.wait(10).code == 3


def test_with_exit_signal_0_a_foreign_wait_sees_nothing() -> None:
    task = clone(int, flags=SHARED)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)
    assert task.wait(10).code == 0


def test_the_exit_signal_arrives() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        task = clone(int, flags=SHARED, exit_signal=signal.SIGUSR2)
        info = signal.sigtimedwait([signal.SIGUSR2], 10)
        assert info is not None
        assert info.si_pid == task.pid
        assert task.wait(10).code == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])


@pytest.mark.parametrize("flags", ["VM|FILES|NEWUSER|NEWPID", "VM|FILES|NEWUSER|NEWPID|VFORK"])
def test_namespaces_with_shared_memory(flags: str) -> None:
    if not may_make_user_namespaces():
        pytest.skip("this user may not make user namespaces here")
    box: list[tuple[int, int]] = []
    task = clone(lambda: box.append((os.getpid(), os.getppid())), flags=flags)
    assert task.result(10) is None
    assert box == [(1, 0)], "pid 1 of its own namespace, and the creator's list"
    assert task.pid > 1
    assert task.wait(10).code == 0


@pytest.mark.root
def test_namespaces_are_new_as_root() -> None:
    names = {"mnt": F.NEWNS, "uts": F.NEWUTS, "ipc": F.NEWIPC, "net": F.NEWNET, "cgroup": F.NEWCGROUP, "pid": F.NEWPID}
    for name, flag in names.items():
        with held(F.VM | F.FILES | flag) as task:
            own = {n: os.readlink(f"/proc/{task.pid}/ns/{n}") for n in names}
            assert {n for n in names if own[n] != os.readlink(f"/proc/self/ns/{n}")} == {name}


# ---- nested ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [PROCESS, SHARED, IN_PLACE], ids=["PROCESS", "SHARED", "in place"])
@pytest.mark.parametrize("outer", [PROCESS, SHARED, IN_PLACE, THREAD], ids=["PROCESS", "SHARED", "in place", "THREAD"])
@pytest.mark.filterwarnings("ignore:process .* has other threads:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_starts_inside_a_task(outer: F, inner: F) -> None:
    def body() -> tuple[int, int, int]:
        with clone(os.getppid, flags=inner) as task:
            return os.getpid(), task.result(10), task.pid

    pid, parent_of_inner, inner_pid = call(body, flags=outer)
    assert parent_of_inner in (pid, os.getpid()), "the inner task is a child of the task, or of the creator's host"
    assert gone(inner_pid)


@pytest.mark.parametrize("outer", [PROCESS, SHARED, IN_PLACE, THREAD], ids=["PROCESS", "SHARED", "in place", "THREAD"])
def test_programs_inside_a_task(outer: F) -> None:
    assert call(lambda: call(["sh", "-c", "exit 9"]), flags=outer) == 9


# ---- stacks ---------------------------------------------------------------------------------------------------------


def room_on_stack(task: Task[object]) -> int:
    """Bytes from the stack pointer of a task that waits in read(2) down to the end of its mapping."""
    until(lambda: in_call(task.tid, SYS_READ), "the body waits")
    pointer = int(Path(f"/proc/{task.tid}/syscall").read_text().split()[-2], 16)
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= pointer < high:
            return pointer - low
    raise AssertionError(f"no mapping has {pointer:#x}")


@pytest.mark.parametrize("flags", [SHARED, THREAD], ids=["SHARED", "THREAD"])
@pytest.mark.parametrize("size", [1 << 20, 64 << 20])
def test_stack_size_is_what_a_body_has(flags: F, size: int) -> None:
    with held(flags, stack_size=size) as task:
        assert size - (256 << 10) < room_on_stack(task) < size + (512 << 10)


def test_plans_are_values() -> None:
    assert Plan("VM|FILES", name="w") == Plan(SHARED, name="w")
    assert hash(Plan("VM|FILES")) == hash(Plan(SHARED))
    assert repr(Plan("VM|FILES", name="w", daemon=True)) == "Plan('VM|FILES', name='w', daemon=True)"
    assert not _core.in_task()
    assert call(_core.in_task, flags=SHARED)
