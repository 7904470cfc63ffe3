"""The launch benchmark: a task that does nothing, by every way there is, as a function of touched heap.

fork and pthread_create in C are the two curves of the article; clone(VM|VFORK) and clone(VM) stand between them. From
Python: this package's routes, and the standard library's ways to the same end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Task, clone
from taskclone.bench.series import Case, Measure, Series, c_loop, python_loop

__all__ = ["CASE"]


def nothing() -> None:
    """The body."""


def route(flags: int) -> Measure:
    """``clone(nothing, flags=flags)`` and its result."""

    def launch() -> Task[Any]:
        return clone(nothing, flags=flags)

    return python_loop(launch, result_of)


def result_of(task: Task[Any]) -> object:
    return task.result()


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


def in_c(key: str, label: str, kind: str, cost_us: tuple[float, float]) -> Series:
    return Series(key, label, "C", kind, c_loop(kind), cost_us, bare=kind)


def in_python(key: str, label: str, name: str, measure: Measure, cost_us: tuple[float, float]) -> Series:
    return Series(key, label, "Python", name, measure, cost_us)


join: Callable[[threading.Thread], object] = threading.Thread.join

CASE = Case(
    name="launch",
    series=(
        in_c("c_fork", "fork (C)", "fork", (70, 11)),
        in_c("c_pthread", "pthread_create (C)", "pthread", (8, 0)),
        in_c("c_vm_vfork", "clone VM|VFORK (C)", "vm_vfork", (10, 0)),
        in_c("c_vm", "clone VM (C)", "vm", (9, 0)),
        in_python("copied", "taskclone copied", "copied", route(PROCESS), (650, 12)),
        in_python("shared", "taskclone shared", "shared", route(SHARED), (25, 0)),
        in_python("in_place", "taskclone shared in place", "in place", route(SHARED | CloneFlags.VFORK), (20, 0)),
        in_python("thread", "taskclone thread", "thread", route(THREAD), (50, 0)),
        in_python("program", "taskclone /bin/true", "program", python_loop(launch_program, result_of), (500, 0)),
        in_python("py_fork", "os.fork", "os.fork", python_loop(launch_fork, reap), (600, 12)),
        in_python("py_thread", "threading.Thread", "threading.Thread", python_loop(launch_thread, join), (35, 0)),
    ),
    # Apart, because a fork makes every page of the process read-only, and whoever comes next pays for the faults: what
    # does not fork would be charged for what does.
    together=(
        ("in_place", "py_thread", "shared", "thread", "c_pthread", "c_vm_vfork"),
        ("copied", "py_fork", "c_fork"),
    ),
)
