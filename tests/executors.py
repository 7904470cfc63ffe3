"""What the tests of the executor share: its routes, and a call that lasts until it is let go."""

from __future__ import annotations

import os

import pytest

from taskclone import PROCESS, SHARED, THREAD

ROUTES = {"PROCESS": PROCESS, "SHARED": SHARED, "THREAD": THREAD}
EVERY = pytest.mark.parametrize("flags", ROUTES.values(), ids=ROUTES)
WITH_PID = pytest.mark.parametrize("flags", [PROCESS, SHARED], ids=["PROCESS", "SHARED"])
MEMORY_SHARED = pytest.mark.parametrize("flags", [SHARED, THREAD], ids=["SHARED", "THREAD"])


def wait_for(fd: int) -> int:
    """A call that lasts until it is let go."""
    os.read(fd, 1)
    return fd
