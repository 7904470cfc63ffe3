"""The launch benchmark: a task that does nothing, by every way there is, as a function of touched heap.

fork and pthread_create in C are the two curves of the article; clone(VM|VFORK) and clone(VM) stand between them. From
Python: this package's routes, and the standard library's ways to the same end.

The parts explain the curves: what else a start costs more of (mappings, descriptors), whether it is the page tables
that count (the heap in huge pages), when the body begins, and the bill that comes after a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import Any

from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Plan, Task, clone
from taskclone.bench.axes import LEFT_OUT as LEFT_OUT_BUFFERS
from taskclone.bench.series import Case, Measure, Part, Samples, Series, c_loop, python_loop
from taskclone.bench.verdict import judge

__all__ = ["CASE", "EXPLAINING", "HUGE", "LEFT_OUT"]


def nothing() -> None:
    """The body."""


def route(flags: int, finish: Callable[[Task[Any]], object] | None = None) -> Measure:
    """``clone(nothing, flags=flags)`` and its result, or its end."""

    def launch() -> Task[Any]:
        return clone(nothing, flags=flags)

    return python_loop(launch, finish or result_of)


def bare() -> Task[Any]:
    return BARE.start(nothing)


BARE = Plan(bare=True)


def left_out(count: int, seconds: float, size: int) -> Samples:
    """Copied, without the memory that the process has got at this point."""
    plan = Plan(leave_out=LEFT_OUT_BUFFERS)
    return python_loop(lambda: plan.start(nothing), result_of)(count, seconds, size)


def result_of(task: Task[Any]) -> object:
    return task.result()


def end_of(task: Task[Any]) -> object:
    return task.wait()


def launch_program() -> Task[Any]:
    return clone(["/bin/true"])


def launch_thread() -> threading.Thread:
    thread = threading.Thread(target=nothing)
    thread.start()
    return thread


def launch_fork() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


def reap(pid: int) -> object:
    return os.waitpid(pid, 0)


def launch_process() -> ForkProcess:
    process = multiprocessing.get_context("fork").Process(target=nothing)
    process.start()
    return process


def in_c(key: str, label: str, kind: str, cost_us: tuple[float, float]) -> Series:
    return Series(key, label, "C", kind, c_loop(kind), cost_us, bare=kind)


def in_program(key: str, label: str, kind: str, cost_us: tuple[float, float]) -> Series:
    """What needs the C program's own heap."""
    return Series(key, label, "C", kind, None, cost_us, bare=kind)


def first(kind: str, label: str, cost_us: tuple[float, float]) -> Series:
    measure = c_loop(f"{kind}_first", ("start", "total", "first"))
    return Series(f"c_{kind}_first", label, "C", kind, measure, cost_us, bare=f"{kind}_first")


def in_python(key: str, label: str, name: str, measure: Measure, cost_us: tuple[float, float]) -> Series:
    return Series(key, label, "Python", name, measure, cost_us)


join: Callable[[threading.Thread], object] = threading.Thread.join
join_process: Callable[[ForkProcess], object] = ForkProcess.join

EXPLAINING = (
    Part(
        "mappings",
        "mappings",
        (
            in_c("c_fork", "fork (C)", "fork", (70, 3)),
            in_c("c_vm_vfork", "clone VM|VFORK (C)", "vm_vfork", (10, 0.03)),
            in_c("c_pthread", "pthread_create (C)", "pthread", (8, 0)),
        ),
        (0, 250, 500, 1000),
    ),
    Part(
        "descriptors",
        "descriptors",
        (
            in_c("c_fork", "fork (C)", "fork", (70, 0.06)),
            in_c("c_vm_vfork", "clone VM|VFORK (C)", "vm_vfork", (10, 0.06)),
            in_c("c_pthread", "pthread_create (C)", "pthread", (8, 0)),
        ),
        (0, 1000, 4000, 10_000),
    ),
    Part(
        "first",
        "heap",
        (
            first("fork", "fork (C)", (110, 11)),
            first("pthread", "pthread_create (C)", (8, 0)),
            first("vm_vfork", "clone VM|VFORK (C)", (10, 0)),
            first("vm", "clone VM (C)", (9, 0)),
        ),
        (0, 32),
    ),
    Part(
        "rewrite",
        "heap",
        (
            in_program("rewrite", "no fork before", "rewrite", (0, 5)),
            in_program("rewrite_after", "after a fork, the child gone", "rewrite_after", (100, 400)),
            in_program("rewrite_beside", "after a fork, the child alive", "rewrite_beside", (100, 1000)),
        ),
        (2, 8, 16),
    ),
)
HUGE = Part(
    "huge",
    "huge",
    (
        in_c("c_fork", "fork (C)", "fork", (70, 0.5)),
        in_c("c_pthread", "pthread_create (C)", "pthread", (8, 0)),
    ),
    (),
)
"""At the sizes of the run."""

LEFT_OUT = Part(
    "left_out",
    "left_out",
    (in_python("left_out", "taskclone copied, heap left out", "copied", left_out, (650, 0)),),
    (),
)
"""At no size, and at the largest of the run."""

CASE = Case(
    name="launch",
    series=(
        in_c("c_fork", "fork (C)", "fork", (70, 11)),
        in_c("c_pthread", "pthread_create (C)", "pthread", (8, 0)),
        in_c("c_vm_vfork", "clone VM|VFORK (C)", "vm_vfork", (10, 0)),
        in_c("c_vm", "clone VM (C)", "vm", (9, 0)),
        in_python("copied", "taskclone copied", "copied", route(PROCESS), (650, 12)),
        in_python("bare", "taskclone bare copy", "bare", python_loop(bare, result_of), (300, 12)),
        in_python("shared", "taskclone shared", "shared", route(SHARED), (25, 0)),
        in_python("in_place", "taskclone shared in place", "in place", route(SHARED | CloneFlags.VFORK), (20, 0)),
        in_python("shared_reaped", "taskclone shared, reaped", "shared", route(SHARED, end_of), (30, 0)),
        in_python("thread", "taskclone thread", "thread", route(THREAD), (25, 0)),
        in_python("thread_joined", "taskclone thread, joined", "thread", route(THREAD, end_of), (40, 0)),
        in_python("program", "taskclone /bin/true", "program", python_loop(launch_program, result_of), (500, 0)),
        in_python("py_fork", "os.fork", "os.fork", python_loop(launch_fork, reap), (600, 12)),
        in_python(
            "mp_process", "multiprocessing.Process", "fork", python_loop(launch_process, join_process), (1500, 12)
        ),
        in_python("py_thread", "threading.Thread", "threading.Thread", python_loop(launch_thread, join), (35, 0)),
    ),
    # Apart, because a fork makes every page of the process read-only, and whoever comes next pays for the faults: what
    # does not fork would be charged for what does.
    together=(
        ("in_place", "py_thread", "shared", "shared_reaped", "thread", "thread_joined", "c_pthread", "c_vm_vfork"),
        ("copied", "bare", "py_fork", "c_fork"),
    ),
    parts=(LEFT_OUT, *EXPLAINING, HUGE),
    judge=judge,
)
