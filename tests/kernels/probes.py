"""What the running kernel can do, asked by a system call and not by its version."""

from __future__ import annotations

import fcntl
import functools
import os
import signal
import struct
import subprocess
import sys
import threading

from proc import PATIENCE, WALL
from taskclone import ExitStatus

PIDFD_THREAD = os.O_EXCL  # <linux/pidfd.h>

_INFO = struct.Struct("=QQ11Ii")
"""struct pidfd_info in its first published form: mask, cgroup id, eleven ids, exit code."""
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, struct pidfd_info)
_INFO_EXIT = 8


def kept_status(pidfd: int) -> int | None:
    """The wait status that a pidfd tells of a task that has been reaped; None where the kernel keeps none."""
    info = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    mask, *_, status = _INFO.unpack(info)
    return status if mask & _INFO_EXIT else None


@functools.cache
def keeps_status() -> bool:
    """Whether a status that somebody else has taken can still be had (Linux 6.15)."""
    with subprocess.Popen([sys.executable, "-c", "import os; os._exit(7)"]) as process:
        pidfd = os.pidfd_open(process.pid)
    try:
        status = kept_status(pidfd)
    finally:
        os.close(pidfd)
    assert status is None or os.waitstatus_to_exitcode(status) == 7
    return status is not None


def assert_left(status: ExitStatus, code: int | None, number: int | None, has_word: bool) -> None:
    """What is known of a task whose status somebody else has taken: what the kernel keeps, else a code by its own
    word (if it left one), never a made-up one."""
    if keeps_status():
        assert (status.code, status.signal, status.source) == (code, number, "pidfd")
    elif has_word:
        assert (status.code, status.signal, status.source) == (code, None, "record")
    else:
        assert (status.code, status.signal, status.source) == (None, None, "lost")
    assert status.rusage is None


@functools.cache
def has_thread_pidfds() -> bool:
    """Whether a thread that does not lead its group can have a pidfd (Linux 6.9)."""
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    assert thread.native_id is not None
    try:
        os.close(os.pidfd_open(thread.native_id, PIDFD_THREAD))
    except OSError:
        return False
    finally:
        leave.set()
        thread.join()
    return True


@functools.cache
def core_signals_end_every_sharer() -> bool:
    """Whether a signal that dumps core ends all that share the memory with the one who gets it (before Linux 5.16).

    A process that lets a child which shares its memory (clone with VM and VFORK) take strlen(NULL) finds out.
    """
    script = f"""
import ctypes, os, resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(1 << 16)
top = ctypes.addressof(stack) + len(stack) & ~15
pid = libc.clone(libc.strlen, ctypes.c_void_p(top), 0x4100, None)
info = os.waitid(os.P_PID, pid, os.WEXITED | {WALL})
assert info.si_status == signal.SIGSEGV
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=2 * PATIENCE, check=False)
    assert done.returncode in (0, -signal.SIGSEGV)
    return done.returncode != 0
