"""The memory of a measuring process: what /proc says about it, and no huge pages in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import NamedTuple

__all__ = ["MemoryFacts", "forbid_huge_pages", "memory_facts"]

PR_SET_THP_DISABLE = 41


class MemoryFacts(NamedTuple):
    """In kB: page tables, resident memory, and how much of it is in huge pages (-1: not known)."""

    vmpte_kb: int
    vmrss_kb: int
    huge_kb: int


def forbid_huge_pages() -> None:
    """No transparent huge pages in this process, nor after an execve: OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_THP_DISABLE, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_THP_DISABLE): {os.strerror(number)}")


def memory_facts() -> MemoryFacts:
    """Of this process, now."""
    return MemoryFacts(
        _kilobytes("/proc/self/status", "VmPTE:"),
        _kilobytes("/proc/self/status", "VmRSS:"),
        _kilobytes("/proc/self/smaps_rollup", "AnonHugePages:"),
    )


def _kilobytes(path: str, name: str) -> int:
    with contextlib.suppress(OSError), open(path) as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1])
    return -1
