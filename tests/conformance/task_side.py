"""What happens in the task of a case: it says that it is there, waits for the observer, changes what it may share."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import signal
import struct
import threading
from typing import Any, Final

_SYS_RT_SIGACTION: Final = {"x86_64": 13, "aarch64": 134}[platform.machine()]
_SEM_UNDO: Final = 0x1000
HANDLED: Final = signal.SIGRTMIN + 6
"""The creator has a handler for it."""
IGNORED: Final = signal.SIGRTMIN + 7
"""The creator ignores it."""
CHANGED: Final = signal.SIGRTMIN + 8
"""Default in the creator; the task ignores it."""
HERE, THERE = "/usr", "/"
UMASK, OTHER_UMASK = 0o22, 0o77
OPENED: Final = 200
"""The descriptor that a function opens."""
CLOSED: Final = 7
"""The one that a program closes: a shell has one digit, and the creator's own may have any low number."""

libc = ctypes.CDLL(None, use_errno=True)
memory: list[int] = []
"""What the task appends to."""


def say(fd: int, **word: Any) -> None:
    """One line for the observer: atomic, as it is shorter than PIPE_BUF."""
    os.write(fd, json.dumps(word).encode() + b"\n")


def dispose(number: int, how: int) -> None:
    """By rt_sigaction(2) itself: the interpreter's table of handlers stays as it is. ``how`` is 0 or 1 (SIG_IGN)."""
    action = struct.pack("QQQQ", how, 0, 0, 0)
    if libc.syscall(_SYS_RT_SIGACTION, number, action, None, 8):
        raise OSError(ctypes.get_errno(), "rt_sigaction")


def add_to_semaphore(semaphore: int, number: int) -> None:
    """With SEM_UNDO, so that the caller's list of adjustments takes it back."""
    operation = struct.pack("Hhh", 0, number, _SEM_UNDO)
    if libc.semop(semaphore, operation, 1):
        raise OSError(ctypes.get_errno(), "semop")


def number_outside() -> int:
    """The caller's id in the PID namespace of the mounted /proc, the observer's; 0 where no /proc is."""
    try:
        return int(os.readlink("/proc/thread-self").rpartition("/")[2])
    except FileNotFoundError:
        return 0


def body(words: int, go: int, semaphore: int) -> None:
    """A function's: ``words`` is where it says what it sees, ``go`` where it waits for a byte."""
    say(words, ready=number_outside(), here=threading.get_native_id())
    os.read(go, 1)
    memory.append(1)
    os.chdir(THERE)
    os.umask(OTHER_UMASK)
    os.dup2(go, OPENED)
    dispose(CHANGED, 1)
    reached = True
    try:
        add_to_semaphore(semaphore, 1)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        reached = False  # no semaphore of that number in this IPC namespace
    say(words, inside={"semaphore is there": reached, "is init": os.getpid() == 1}, ppid=os.getppid())


def program(words: int, go: int) -> list[str]:
    """The argv that does as much of it as a shell can. It takes the two descriptors as they are."""
    script = f"""
read pid rest </proc/self/stat; echo '{{"ready": '$pid'}}' >&{words}
read line <&{go}
cd {THERE}; umask {OTHER_UMASK:o}; exec {CLOSED}<&-
echo '{{"inside": {{}}}}' >&{words}"""
    return ["/bin/sh", "-c", script]


class Prepared:
    """The creator's own state, which makes the observations mean something, and its view after each task."""

    def __init__(self, go: int) -> None:
        """Makes what kcmp and the exit of a task need: an undo list, an I/O context, dispositions, places."""
        self.go = go
        self.semaphore = libc.semget(0, 1, 0o600)
        if self.semaphore < 0:
            raise OSError(ctypes.get_errno(), "semget")
        add_to_semaphore(self.semaphore, 1)
        add_to_semaphore(self.semaphore, -1)
        ioprio_set = {"x86_64": 251, "aarch64": 30}[platform.machine()]
        if libc.syscall(ioprio_set, 1, 0, 2 << 13 | 4):  # IOPRIO_WHO_PROCESS, this thread, best effort 4
            raise OSError(ctypes.get_errno(), "ioprio_set")
        signal.signal(HANDLED, lambda number, frame: None)
        signal.signal(IGNORED, signal.SIG_IGN)
        self._restore()

    def _restore(self) -> None:
        memory.clear()
        os.chdir(HERE)
        os.umask(UMASK)
        dispose(CHANGED, 0)
        with contextlib.suppress(OSError):
            os.close(OPENED)
        os.dup2(self.go, CLOSED)
        value = self._value()
        if value:
            add_to_semaphore(self.semaphore, -value)

    def _value(self) -> int:
        value: int = libc.semctl(self.semaphore, 0, 12)  # GETVAL
        if value < 0:
            raise OSError(ctypes.get_errno(), "semctl")
        return value

    def changed(self) -> dict[str, bool]:
        """What of the ended task's doings is seen here; afterwards all is as before."""
        umask = os.umask(UMASK)
        found = {
            "memory is the creator's": bool(memory),
            "cwd is the creator's": os.getcwd() == THERE,
            "umask is the creator's": umask == OTHER_UMASK,
            "descriptor is the creator's": _is_open(OPENED) or not _is_open(CLOSED),
            "disposition is the creator's": _ignores(CHANGED),
            "undo outlives the task": self._value() != 0,
        }
        self._restore()
        return found


def _is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/thread-self/fd/{descriptor}")


def _ignores(number: int) -> bool:
    """Whether this process ignores a signal, whatever its interpreter thinks."""
    with open("/proc/self/status", errors="replace") as file:
        ignored = next(line for line in file if line.startswith("SigIgn"))
    return bool(int(ignored.split()[1], 16) >> number - 1 & 1)
