"""What the kernel says about tasks: kcmp, /proc, and what this process has open. Tests prove sharing by it."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from taskclone import Task, _core, clone

WALL = 0x40000000
"""__WALL of waitid(2), which Python does not name: children of every kind, whatever their exit signal."""

SYS_READ = 0 if os.uname().machine == "x86_64" else 63

SLOWNESS = float(os.environ.get("TASKCLONE_TEST_SLOWNESS", "1"))
"""How many times slower than an ordinary one this machine is; the emulator of tests/kernels says so."""

PATIENCE = 10.0 * SLOWNESS
"""Seconds after which something that should come by itself is taken for missing."""


class Kcmp(enum.IntEnum):
    """The types of kcmp(2)."""

    VM = 1
    FILES = 2
    FS = 3
    SIGHAND = 4
    IO = 5
    SYSVSEM = 6


def shared_between(first: int, second: int) -> set[str]:
    """The names of what two tasks share, by kcmp.

    It calls IO and SYSVSEM equal for two tasks that have neither: see ``something_to_share``.
    """
    return {kind.name for kind in Kcmp if _core.kcmp(first, second, kind) == 0}


@contextlib.contextmanager
def something_to_share() -> Iterator[None]:
    """kcmp calls two null pointers equal: so the calling thread gets the two things that it may lack.

    Starting a thread makes the list of semaphore adjustments, setting an I/O priority the I/O context.
    """
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    libc = ctypes.CDLL(None, use_errno=True)
    ioprio_set = 251 if os.uname().machine == "x86_64" else 30
    best_effort_4 = 2 << 13 | 4
    if libc.syscall(ioprio_set, 1, 0, best_effort_4):
        raise OSError(ctypes.get_errno(), "ioprio_set")
    try:
        yield
    finally:
        libc.syscall(ioprio_set, 1, 0, 0)


def until(condition: Callable[[], Any], what: str) -> None:
    """Looks again and again until ``condition`` holds."""
    deadline = time.monotonic() + PATIENCE
    pause = 0.0001
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def state_of(pid: int) -> str:
    """The state letter in /proc/PID/stat (proc_pid_stat(5)); "" when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rpartition(")")[2].split()[0]


def gone(pid: int) -> bool:
    """Ended. A zombie counts: an orphan is reaped by pid 1, which in a container may be somebody who never does."""
    return state_of(pid) in ("", "Z", "X")


def in_call(tid: int, number: int) -> bool:
    """Whether the task waits in that system call (/proc/TID/syscall)."""
    try:
        return Path(f"/proc/{tid}/syscall").read_text().startswith(f"{number} ")
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> dict[int, str]:
    """Child processes and their states, zombies as well."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            after = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(after[1]) == pid:
                found[int(entry)] = after[0]
    return found


def descriptors() -> dict[int, str]:
    """The open descriptors of this process and what they lead to."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def may_make_user_namespaces() -> bool:
    """The one gate: whether this user may make a user namespace at all, asked of a tool that is not ours."""
    return subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode == 0


def threads() -> set[int]:
    return {int(entry) for entry in os.listdir("/proc/self/task")}


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Read end and write end, closed after the block."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@contextlib.contextmanager
def held(flags: Any, *, body: Callable[[], object] | None = None, **fields: Any) -> Iterator[Task[Any]]:
    """A task that lives as long as the block: it calls ``body``, then waits for a byte."""
    with pipe() as (read_end, write_end):

        def wait() -> object:
            seen = body() if body else None
            os.read(read_end, 1)
            return seen

        task = clone(wait, flags=flags, **fields)
        try:
            yield task
        finally:
            os.write(write_end, b"x")
            task.wait(PATIENCE)


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """In the block no descriptor is to be had."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(map(int, os.listdir("/proc/self/fd")))
    filler = [os.dup(2) for _ in range(top + 4)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(filler) + 1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in filler:
            os.close(fd)
