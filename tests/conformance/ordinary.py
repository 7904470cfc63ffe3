"""Who has every privilege turns himself into an ordinary user, who can still read the interpreter's files; and an
ordinary user has a command run in which he has every privilege."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

IN_A_USER_NAMESPACE: Final = ("unshare", "--user", "--map-root-user")
"""What stands before such a command."""
NOBODY: Final = 65534
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 4, 8
_VERSION_3: Final = 0x20080522  # <linux/capability.h>
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2

libc = ctypes.CDLL(None, use_errno=True)


def become_ordinary() -> None:
    """Another uid, if this is root, and no capability but to read files. Nothing to do for who is ordinary already."""
    if os.geteuid() != 0:
        return
    _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "PR_SET_KEEPCAPS")
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    reads = 1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH
    header = struct.pack("Ii", _VERSION_3, 0)
    _check(libc.capset(header, struct.pack("IIIIII", reads, reads, 0, 0, 0, 0)), "capset")
    _check(libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "PR_SET_DUMPABLE")


def _check(result: int, call: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), call)
