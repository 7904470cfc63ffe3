"""What a body that shares memory, but not the descriptor table, leaves open.

A file or socket object has a number of the table of the task that made it. In the creator that number is another file,
or none yet; when the object goes there, whatever has that number is closed. So such objects are closed in the task,
before it ends. What is looked for: files and sockets that the collector knows. Not known are bare numbers (which nobody
closes), and ``mmap``, ``epoll`` and ``scandir`` objects.
"""

from __future__ import annotations

import _socket
import contextlib
import functools
import gc
import io
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

from taskclone import _core

_KCMP_FILE = 0
"""kcmp(2): are two descriptors one open file description?"""

_KINDS: tuple[tuple[type, ...], ...] = (
    (io.TextIOWrapper,),
    (io.BufferedReader, io.BufferedWriter, io.BufferedRandom),
    (io.FileIO, _socket.socket),
)
"""The outermost first: what its buffer holds is written to where it belongs."""


def looked_for(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The body, with a search at its end where other descriptors are open than at its beginning."""
    creator = os.getpid()

    @functools.wraps(fn, assigned=("__name__", "__qualname__", "__doc__"), updated=())
    def body(*args: Any, **kwargs: Any) -> Any:
        before = _open_descriptors()
        try:
            return fn(*args, **kwargs)
        finally:
            if _open_descriptors() != before:
                _close(creator)

    return body


def _open_descriptors() -> tuple[int, int]:
    """The lowest that is free, and how many are open; -1 for what cannot be known.

    A search takes 18 ms a million objects, this some microseconds."""
    lowest = count = -1
    with contextlib.suppress(OSError):  # none is free
        os.close(lowest := os.eventfd(0))
    with contextlib.suppress(OSError):  # no /proc, or not that of this PID namespace
        count = os.stat("/proc/thread-self/fd").st_size  # 0 before Linux 6.2
    return lowest, count


def _close(creator: int) -> None:
    closed, doubtful = [], []
    for thing in _files():
        number = _number(thing)
        if number < 0 or not _is_open(number):
            continue  # of a file that the creator has opened since
        theirs = _has(creator, number)
        if theirs is False:
            what = _name(thing, number)
            try:  # the kernel closes it with the table; what the object has buffered is written first
                thing.detach() if isinstance(thing, _socket.socket) else thing.close()
            except Exception as error:  # a class derived from it may raise anything: the outcome is the body's
                what += f", not all of it was written: {error}"
            closed.append(what)
        elif theirs is None or not _same_file(creator, number):
            doubtful.append(_name(thing, number))
    if closed or doubtful:
        _warn(closed, doubtful)


def _files() -> list[Any]:
    # By the type and not isinstance(): that would ask any object for its __class__.
    things = gc.get_objects()
    return [thing for kinds in _KINDS for thing in things if issubclass(type(thing), kinds)]


def _number(thing: Any) -> int:
    """The descriptor's; -1 for an object that has none, or none any more, or does not tell."""
    try:
        number = thing.fileno()
    except Exception:  # of a derived class, perhaps
        return -1
    return number if isinstance(number, int) else -1


def _name(thing: Any, number: int) -> str:
    try:
        name = repr(thing)
    except Exception:  # likewise
        name = f"a {type(thing).__name__}"
    return f"{name} (descriptor {number})"


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _has(creator: int, number: int) -> bool | None:
    """Whether the creator has a descriptor of that number; None where it cannot be seen. An object whose number is free
    there is not the creator's, however busy its threads are."""
    try:
        os.lstat(f"/proc/{creator}/fd/{number}")
    except FileNotFoundError:
        return False if os.path.exists(f"/proc/{creator}/fd") else None
    except OSError:
        return None
    return True


def _same_file(creator: int, number: int) -> bool:
    try:
        return _core.kcmp(threading.get_native_id(), creator, _KCMP_FILE, number, number) == 0
    except OSError:  # another PID namespace, or a kernel without it
        try:
            return os.path.samestat(os.fstat(number), os.stat(f"/proc/{creator}/fd/{number}"))
        except OSError:
            return True


def _warn(closed: list[str], doubtful: list[str]) -> None:
    says = []
    if closed:
        says.append(f"the task left open, in a descriptor table of its own, and they were closed: {', '.join(closed)}")
    if doubtful:
        says.append(
            f"these may be the task's or the creator's, and were left: {', '.join(doubtful)}; if the task's, their end "
            "closes what has that number in the creator"
        )
    warnings.warn(
        f"{'; '.join(says)}. Close them in the body, or share the table: FILES, as in SHARED and THREAD",
        ResourceWarning,
        stacklevel=3,
    )
