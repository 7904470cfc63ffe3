"""Threads of a task that shares memory: refused."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from taskclone import SHARED, THREAD, CloneFlags, call

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags


def start_thread() -> None:
    threading.Thread(target=int).start()


def start_raw() -> None:
    _thread.start_new_thread(int, ())


def start_pool() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int)


@pytest.mark.parametrize("flags", [SHARED, SHARED | F.VFORK], ids=["SHARED", "in_place"])
@pytest.mark.parametrize("body", [start_thread, start_raw, start_pool, lambda: call(int, flags=THREAD)])
def test_a_shared_task_may_not_start_threads(flags: F, body: Callable[[], None]) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)THREAD.*PROCESS"):
        call(body, flags=flags)
    assert threading.active_count() == 1
    start_thread()
