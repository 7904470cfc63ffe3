"""What a measuring process carries, and what grows from point to point: heap, mappings, descriptors, CPUs.

csrc/core/bare_burden.h is the same for the C program, which has no interpreter in it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from taskclone.bench.host import available_mb

__all__ = ["AXES", "LEFT_OUT", "Axis", "Burden", "size_text"]

MB = 1024 * 1024
HUGE_PAGE = 2 * MB
SPARE = 100  # descriptors


class Burden:
    """Something that only grows."""

    def __init__(self) -> None:
        self.size = 0
        self._kept: list[Any] = []

    def grow_to(self, size: int) -> None:
        if size < self.size:
            raise ValueError(f"{type(self).__name__} of {self.size} cannot shrink to {size}")
        if size > self.size:
            self._grow(size - self.size)
        self.size = size

    def _grow(self, more: int) -> None:
        raise NotImplementedError


class Heap(Burden):
    """MB of private memory in pages of 4 KiB; every page is written to."""

    def _grow(self, more: int) -> None:
        self._add(more * MB, 0, mmap.MADV_NOHUGEPAGE)

    def _add(self, size: int, slack: int, advice: int) -> None:
        piece = mmap.mmap(-1, size + slack, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # EINVAL: a kernel without huge pages
            piece.madvise(advice)
        for page in range(0, size + slack, mmap.PAGESIZE):
            piece[page] = 1
        self._kept.append(piece)


class HugeHeap(Heap):
    """The same in huge pages where the kernel gives them. Up to one more than asked for: the start is not aligned."""

    def _grow(self, more: int) -> None:
        self._add(more * MB, HUGE_PAGE, mmap.MADV_HUGEPAGE)


LEFT_OUT: list[mmap.mmap] = []
"""What ``LeftOut`` has, for the series that leave it out."""


class LeftOut(Heap):
    """Heap that the series themselves leave out of their copies."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = LEFT_OUT


class Mappings(Burden):
    """Mappings of one touched page each."""

    def _grow(self, more: int) -> None:
        for number in range(more):
            page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if (self.size + number) % 2:
                page.madvise(mmap.MADV_DONTDUMP)  # else it becomes one with its neighbour
            page[0] = 1
            self._kept.append(page)


class Descriptors(Burden):
    """Open descriptors, all of /dev/null."""

    def _grow(self, more: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        first = os.open(os.devnull, os.O_RDWR)
        self._kept += [first, *(os.dup(first) for _ in range(more - 1))]


class Cpus(Burden):
    """1 or 2; the series themselves look at it."""

    def _grow(self, more: int) -> None:
        pass


class Axis(NamedTuple):
    """``most`` is the largest size that this machine can carry without harm; ``mark`` follows a number in names."""

    label: str
    mark: str
    burden: Callable[[], Burden]
    most: Callable[[], int]


def _most_mb() -> int:
    return available_mb() // 2


def _most_mappings() -> int:
    return int(Path("/proc/sys/vm/max_map_count").read_text()) // 4


def _most_descriptors() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE


AXES = {
    "heap": Axis("heap MB", "MB", Heap, _most_mb),
    "huge": Axis("heap MB", "MB", HugeHeap, _most_mb),
    "left_out": Axis("left out MB", "MB", LeftOut, _most_mb),
    "mappings": Axis("mappings", "mappings", Mappings, _most_mappings),
    "descriptors": Axis("descriptors", "descriptors", Descriptors, _most_descriptors),
    "cpus": Axis("CPUs", "cpus", Cpus, lambda: len(os.sched_getaffinity(0))),
}


def size_text(axis: str, size: int) -> str:
    """``2 MB``, ``1000 mappings``, ``1 CPU``."""
    if axis == "cpus":
        return "1 CPU" if size == 1 else f"{size} CPUs"
    return f"{size} {AXES[axis].mark}"
