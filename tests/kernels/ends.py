"""Bodies that end in every way, and the status of each."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest


def leave() -> None:
    os._exit(7)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


ENDS: list[tuple[Callable[[], object], int | None, int | None]] = [
    (int, 0, None),
    (lambda: sys.exit(5), 5, None),
    (leave, 7, None),
    (die, None, signal.SIGKILL),
]
by_end = pytest.mark.parametrize(("body", "code", "number"), ENDS, ids=["returns", "sys.exit", "_exit", "SIGKILL"])
