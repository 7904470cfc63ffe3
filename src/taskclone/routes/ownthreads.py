"""Threads of this package that do no harm to a copy of the process."""

from __future__ import annotations

import threading
import weakref

__all__ = ["own_threads"]

own_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Threads of this package that hold no lock whenever another thread forks."""
