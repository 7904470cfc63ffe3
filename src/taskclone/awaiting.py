"""Waiting for a task in an event loop: asyncio's, or trio's. (anyio runs on one of the two.)

Neither is imported here: what runs the caller has been imported.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from taskclone._core import generation

if TYPE_CHECKING:
    import asyncio

__all__ = ["Bell", "Rings", "until_done"]


class Bell(Protocol):
    """A descriptor, the caller's own until it is closed."""

    def fileno(self) -> int:
        """Readable once the outcome is there."""

    def close(self) -> None: ...


class Rings(Protocol):
    """What can be waited for here."""

    def done(self) -> bool: ...
    def bell(self) -> Bell: ...


async def until_done(source: Rings) -> None:
    """Returns once ``source.done()``. Under trio it is a checkpoint in any case.

    Raises:
        RuntimeError: neither loop runs the caller, or the loop cannot watch descriptors.
        OSError: EMFILE, ENFILE: no descriptor is to be had.
        UnsupportedOperation: the caller is a task or a thread with a file table of its own.
    """
    loop = _loop()
    if source.done():
        await loop.checkpoint()
        return
    bell = source.bell()
    try:
        await loop.readable(bell.fileno())
        while not source.done():
            await loop.sleep(0.001)  # a tracer hears of a child's end before its parent does (ptrace(2))
    finally:
        bell.close()


class _Loop(NamedTuple):
    readable: Callable[[int], Awaitable[Any]]
    checkpoint: Callable[[], Awaitable[Any]]
    sleep: Callable[[float], Awaitable[Any]]


def _loop() -> _Loop:
    """That which runs the calling coroutine."""
    trio, asyncio = sys.modules.get("trio.lowlevel"), sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()
    if trio is not None and trio.in_trio_task() and (loop is None or _inner_loop() == "trio"):
        return _Loop(trio.wait_readable, trio.checkpoint, sys.modules["trio"].sleep)
    if asyncio is not None and loop is not None:
        return _Loop(lambda fd: _asyncio_readable(loop, fd), _nothing, asyncio.sleep)
    raise RuntimeError(
        "a task can be awaited under asyncio and trio (anyio runs on either), and neither runs this coroutine; "
        "elsewhere task.result() waits"
    )


def _inner_loop() -> str:
    """Where both run, the one whose frame is nearer: trio is a guest of asyncio, or one has been started in a task of
    the other (in a copy of a program that runs trio, say)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in ("trio", "asyncio", "uvloop"):
            return package
        frame = frame.f_back
    return ""


async def _nothing() -> None:
    """Asyncio's awaits need not let others run."""


async def _asyncio_readable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    waiter: asyncio.Future[None] = loop.create_future()
    here = generation()

    def wake() -> None:
        if not waiter.done():  # cancelled meanwhile; or called again, as the descriptor stays readable
            waiter.set_result(None)

    try:
        loop.add_reader(fd, wake)
    except NotImplementedError:
        raise RuntimeError(f"{type(loop).__name__} cannot watch descriptors: it has no add_reader") from None
    try:
        await waiter
    finally:
        # A copy of this process that drops the coroutine has the same epoll(7) instance: it would be removed there.
        # (No comparison of process ids: the copy of a pid 1 in a PID namespace of its own is pid 1, too.)
        if generation() == here:
            loop.remove_reader(fd)
