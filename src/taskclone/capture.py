"""What a task writes to its standard output and error, kept until somebody asks."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from taskclone._core import descriptor
from taskclone.errors import UnsupportedOperation

if TYPE_CHECKING:
    from taskclone._core import Descriptor

__all__ = ["CAPTURE", "Captured"]


class _Capture:
    """The type of CAPTURE."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "CAPTURE"

    def __reduce__(self) -> str:
        return "CAPTURE"


CAPTURE = _Capture()
"""For ``stdout=`` and ``stderr=`` of a plan: what the task writes is kept in memory, without limit, and is to be had as
``Task.stdout`` and ``Task.stderr``. Not a pipe: nobody has to read, so nothing can wait for a reader."""

LAST_WORDS = 2048
"""Bytes of stderr that TaskDied carries."""


class Captured:
    """The files (memfd_create(2)) of a task's captured streams. Owns their descriptors, and closes them where it is
    collected, or leaves that to those whose they are.

    Reading raises UnsupportedOperation in a task with a file table of its own, and in a copy with ``close_fds``.
    """

    __slots__ = ("_files", "words_in")

    def __init__(self) -> None:
        self._files: dict[str, Descriptor] = {}
        self.words_in = "stderr"
        """The stream that has what is said on stderr."""

    def open(self, name: str) -> int:
        """A new file for "stdout" or "stderr"; its descriptor stays this object's."""
        fd = os.memfd_create(f"taskclone-{name}", os.MFD_CLOEXEC)
        self._files[name] = descriptor(fd)
        # A child of the task that opens the file anew has an offset of its own.
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        return fd

    def read(self, name: str) -> bytes | None:
        """What has been written so far; None for a stream that is not captured."""
        file = self._files.get(name)
        return None if file is None else _read(file.fileno(), 0)

    def last_words(self) -> str:
        """The end of what went to stderr; "" where that is not captured, or cannot be read."""
        file = self._files.get(self.words_in)
        if file is None:
            return ""
        try:
            fd = file.fileno()
        except UnsupportedOperation:
            return ""
        start = max(0, os.fstat(fd).st_size - LAST_WORDS)
        words = _read(fd, start)
        if start:
            words = words[:3].lstrip(bytes(range(0x80, 0xC0))) + words[3:]  # without the rest of a cut character
        return words.decode(errors="backslashreplace")

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()


def _read(fd: int, start: int) -> bytes:
    parts = []
    while part := os.pread(fd, 1 << 24, start):
        parts.append(part)
        start += len(part)
    return b"".join(parts)
