"""Threads of a task that shares memory: refused, or waited for where the plan allows them."""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from proc import pipe, until
from taskclone import SHARED, THREAD, ChildSetup, CloneFlags, call, clone

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


def test_with_permission_it_may_and_waits_for_them() -> None:
    seen: list[int] = []
    with pipe() as (read_end, write_end):

        def work() -> None:
            os.read(read_end, 1)
            seen.append(os.getpid())

        def body() -> str:
            for _ in range(3):
                threading.Thread(target=work).start()
            return "body done"

        task = clone(body, flags=SHARED, setup=ChildSetup(threads=True))
        until(lambda: len(os.listdir(f"/proc/{task.pid}/task")) == 4, "its threads run")
        assert task.running()
        os.write(write_end, b"xxx")
        assert task.result(10) == "body done"
    assert seen == [task.pid] * 3
