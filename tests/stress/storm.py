"""Ends and crashes of tasks that share memory, from two threads; run in a process of its own by test_storm.py.

Prints what is left behind, as JSON, and then leaves by the interpreter's ordinary exit.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import taskclone
from taskclone import SHARED, CloneFlags, TaskDied, clone

IN_PLACE = SHARED | CloneFlags.VFORK
library = os.path.join(os.environ["TASKCLONE_BUILD"], "csrc", "testing", "libcrashes.so")
crashes = ctypes.CDLL(library)
crashes_with_lock = ctypes.PyDLL(library)


def spin() -> None:
    while True:
        sum(range(10))


def sleep() -> None:
    time.sleep(3600)


reading, writing = os.pipe()
never = threading.Lock()
never.acquire()


def read_pipe() -> None:
    os.read(reading, 1)


def wait_for_lock() -> None:
    never.acquire()


def segfault() -> None:
    ctypes.string_at(0)


def segfault_without_lock() -> None:
    crashes.write_to(8)


def abort() -> None:
    os.abort()


def overflow_stack() -> None:
    crashes_with_lock.overflow_stack()


ENDS: tuple[Callable[[], None], ...] = (spin, sleep, read_pipe, wait_for_lock)
CRASHES: tuple[Callable[[], None], ...] = (segfault, abort, overflow_stack, segfault_without_lock)


def end(body: Callable[[], None], wait_first: bool) -> None:
    task = clone(body, flags=SHARED)
    if wait_first:
        task.pid  # noqa: B018 (waits for the kernel's answer)
    if random.random() < 0.5:
        task.kill(timeout=60)
    else:
        task.terminate(0.01, timeout=60)
    error = task.exception(60)
    assert isinstance(error, TaskDied), error
    assert error.code == 143 or error.signal == 9, error


def crash(body: Callable[[], None], flags: CloneFlags) -> None:
    error = clone(body, flags=flags).exception(60)
    assert isinstance(error, TaskDied), error
    assert error.signal in (11, 6), error
    assert error.damage == (), error
    assert [frame.name for frame in error.stack][:1] == [body.__name__], error


def main(ends: int, crashes: int) -> None:
    clone(gc.collect, flags=SHARED).wait()
    failures: list[str] = []
    before = left()
    jobs: list[Callable[[], None]] = []
    for number in range(ends):
        body = ENDS[number % len(ENDS)]
        jobs.append(lambda body=body, first=number % 2 == 0: end(body, first))  # type: ignore[misc]
    for number in range(crashes):
        body = CRASHES[number // 2 % len(CRASHES)]
        flags = IN_PLACE if number % 2 else SHARED
        jobs.append(lambda body=body, flags=flags: crash(body, flags))  # type: ignore[misc]
    random.shuffle(jobs)

    def work(mine: list[Callable[[], None]]) -> None:
        for job in mine:
            try:
                job()
            except BaseException as error:
                failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(jobs[half::2],)) for half in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Still an interpreter: collect, allocate, start one more.
    gc.collect()
    del [bytearray(100) for _ in range(100_000)][:]
    assert clone(lambda: "well", flags=SHARED).result(10) == "well"
    print(json.dumps({"failures": failures, "before": before, "after": left(), "stats": taskclone.stats()}), flush=True)


def left() -> dict[str, int]:
    """Descriptors, threads without hosts and keeper, children; once what is on its way out is gone."""
    counts: dict[str, int] = {}
    deadline = time.monotonic() + 10
    stable = 0
    while stable < 3 and time.monotonic() < deadline:
        taskclone._core.hosts_end()
        now = {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
            "children": len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
        }
        stable = stable + 1 if now == counts else 0
        counts = now
        time.sleep(0.02)
    return counts


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
