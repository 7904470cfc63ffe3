"""The heap of a measuring process, in pages of 4 KiB, and what /proc says about it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import NamedTuple

__all__ = ["Heap", "MemoryFacts", "forbid_huge_pages", "memory_facts"]

MB = 1024 * 1024
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


class Heap:
    """Private memory that only grows; every page of it is written to."""

    def __init__(self) -> None:
        self.megabytes = 0
        self._pieces: list[mmap.mmap] = []

    def grow_to(self, megabytes: int) -> None:
        more = (megabytes - self.megabytes) * MB
        if more < 0:
            raise ValueError(f"a heap of {self.megabytes} MB cannot shrink to {megabytes} MB")
        if more == 0:
            return
        piece = mmap.mmap(-1, more, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # EINVAL: a kernel without huge pages
            piece.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, more, mmap.PAGESIZE):
            piece[page] = 1
        self._pieces.append(piece)
        self.megabytes = megabytes


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
