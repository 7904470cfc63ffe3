"""Threads of this package, and whether they do harm to a copy of the process that is made beside them."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Iterator

__all__ = ["Place", "own_threads"]


class Place:
    """Where a thread of this package is: in the package's code, or in somebody else's, where it may hold any lock."""

    __slots__ = ("ids", "left")

    def __init__(self) -> None:
        self.ids: list[int] = []
        """Its kernel id, as long as it holds no lock that a copy would miss. The core looks at the list itself when it
        copies, with the interpreter lock, so that it is true at that moment."""
        self.left = time.monotonic()
        """When it went into foreign code, or its thread was about to be started."""

    @contextlib.contextmanager
    def foreign(self) -> Iterator[None]:
        """For the thread itself: in the block it may run anything."""
        number, self.left = self.ids[:], time.monotonic()
        self.ids.clear()
        try:
            yield
        finally:
            self.ids[:] = number


own_threads: weakref.WeakKeyDictionary[threading.Thread, Place] = weakref.WeakKeyDictionary()
"""Threads of this package that mostly hold no lock."""
