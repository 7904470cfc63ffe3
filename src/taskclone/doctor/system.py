"""Kernel, machine, libc, interpreter."""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Iterator
from typing import Final

from taskclone.doctor.finding import Finding, finding
from taskclone.rule import Version, running_kernel

__all__ = ["OLDEST_KERNEL", "look"]

TOPIC: Final = "system"
OLDEST_KERNEL: Final[Version] = (5, 10)
"""The oldest Linux that the routes are made for."""
_CORE_DUMPS_ALONE: Final[Version] = (5, 16)
_PYTHONS: Final = ((3, 11), (3, 15))
"""Oldest and newest whose internals csrc/core/interp.c knows."""
_MACHINES: Final = ("x86_64", "aarch64")


def look() -> Iterator[Finding]:
    """All of the topic."""
    yield kernel(os.uname().release, running_kernel())
    yield machine(platform.machine())
    yield finding(
        TOPIC, "libc", " ".join(platform.libc_ver()).strip() or "unknown", "ok", "fork, threads and malloc are its own"
    )
    yield threads()
    yield python(sys.version_info[:2], sys.implementation.name, has_interpreter_lock())
    yield proc(os.path.exists("/proc/self/status"))


def kernel(release: str, version: Version) -> Finding:
    if version < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        return finding(TOPIC, "kernel", release, "missing", f"taskclone needs Linux {oldest} or later", True)
    if version < _CORE_DUMPS_ALONE:
        meaning = "a core dump ends every task that shares the memory: ChildSetup(core=True) would end the creator"
        return finding(TOPIC, "kernel", release, "limited", meaning, True)
    return finding(TOPIC, "kernel", release, "ok", "all that taskclone starts with is as old as that", True)


def machine(name: str) -> Finding:
    if name in _MACHINES:
        return finding(TOPIC, "machine", name, "ok", "the core has its system calls in assembly for it", True)
    return finding(TOPIC, "machine", name, "missing", f"the core knows {' and '.join(_MACHINES)} only", True)


def threads() -> Finding:
    """Whether libc can make one: hosts of shared tasks are threads."""
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError as error:
        meaning = (
            "shared tasks run on threads of libc, and THREAD is one: under a seccomp filter that answers EPERM to "
            "clone3, or with a limit that is reached, only copied tasks and programs can be started"
        )
        return finding(TOPIC, "threads of libc", str(error), "missing", meaning, True)
    thread.join()
    return finding(TOPIC, "threads of libc", "can be made", "ok", "they are what shared tasks run on", True)


def has_interpreter_lock() -> bool:
    """False in a free-threaded build that runs without."""
    ask = getattr(sys, "_is_gil_enabled", None)
    return bool(ask()) if ask else True


def python(version: tuple[int, int], name: str, lock: bool) -> Finding:
    value = f"{name} {'.'.join(map(str, version))}" + ("" if lock else ", without interpreter lock")
    oldest, newest = _PYTHONS
    if name == "cpython" and lock and oldest <= version <= newest:
        meaning = "every route is supported: the core knows the thread states of this version"
        return finding(TOPIC, "Python", value, "ok", meaning, True)
    span = " to ".join(".".join(map(str, item)) for item in _PYTHONS)
    return finding(TOPIC, "Python", value, "missing", f"the core knows CPython {span} with the interpreter lock", True)


def proc(mounted: bool) -> Finding:
    if mounted:
        return finding(TOPIC, "/proc", "mounted", "ok", "what a task that shall end waits for is read there", True)
    meaning = "kill() and terminate() of a shared task look there before they act, and cannot"
    return finding(TOPIC, "/proc", "not mounted", "missing", meaning, True)
