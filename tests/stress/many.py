"""Many tasks in a row, and many alive at once: what is left of memory, descriptors, threads and children is as before.

By hand: ``python tests/stress/many.py row 100000 20000`` and ``python tests/stress/many.py alive 2000``. Run by
test_many.py with less. Prints a line for each route and leaves by the interpreter's ordinary exit; exit status 1 when
something has grown.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

from taskclone import PROCESS, SHARED, THREAD, CloneFlags, _core, clone

ROUTES = {"shared": SHARED, "in place": SHARED | CloneFlags.VFORK, "thread": THREAD, "copied": PROCESS}
GROWTH = 2 << 20
"""Bytes of resident memory that may come and go by themselves."""


class Left(NamedTuple):
    rss: int
    descriptors: int
    threads: int
    children: int


def left() -> Left:
    """What there is, once nothing of it is on its way out."""
    deadline = time.monotonic() + 10
    before, same = None, 0
    while same < 5 and time.monotonic() < deadline:
        _core.hosts_end()
        now = Left(
            int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
            len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
        )
        same = same + 1 if now == before else 0
        before = now
        time.sleep(0.01)
    assert before is not None
    return before


def nothing() -> None:
    pass


def in_a_row(flags: CloneFlags, count: int) -> None:
    for _ in range(count):
        clone(nothing, flags=flags).result()


def alive_at_once(flags: CloneFlags, count: int) -> None:
    read_end, write_end = os.pipe()
    tasks = [clone(os.read, read_end, 1, flags=flags) for _ in range(count)]
    assert len({task.tid for task in tasks}) == count
    assert not any(task.done() for task in tasks)
    for _ in tasks:
        os.write(write_end, b"x")
    assert all(task.result(120) == b"x" for task in tasks)
    assert all(task.wait(120).code == 0 for task in tasks)
    del tasks
    os.close(read_end)
    os.close(write_end)


def report(name: str, before: Left, after: Left, seconds: float) -> bool:
    flat = after[1:] == before[1:] and after.rss - before.rss < GROWTH
    grown = f"memory {(after.rss - before.rss) >> 10:+d} kB of {after.rss >> 10}"
    rest = ", ".join(f"{a} {field}" for field, a in zip(Left._fields[1:], after[1:], strict=True))
    print(f"{name:9} {seconds:6.1f} s  {grown}, {rest}: {'flat' if flat else f'grown from {before}'}", flush=True)
    return flat


def main(what: str, counts: list[int]) -> bool:
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later, of a fork beside threads
    run = {"row": in_a_row, "alive": alive_at_once}[what]
    flat = []
    for name, flags in ROUTES.items():
        if what == "alive" and flags & CloneFlags.VFORK:
            continue  # its creator sleeps until it ends: one at a time
        count = counts[-1] if name == "copied" else counts[0]
        run(flags, max(10, count // 10))
        if what == "alive":
            run(flags, count)  # malloc keeps what so many stacks and records took
        gc.collect()
        before, began = left(), time.monotonic()
        run(flags, count)
        took = time.monotonic() - began
        gc.collect()
        flat.append(report(name, before, left(), took))
    return all(flat)


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1], [int(count) for count in sys.argv[2:]]))
