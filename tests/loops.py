"""Event loops in the same words: asyncio's, trio's, and anyio on each. Whatever runs in one has 20 seconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
import trio

from proc import pipe
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Task, clone

PATIENCE = 20.0


class Asyncio:
    name = "asyncio"

    def run(self, body: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(body(*args), PATIENCE)

        return asyncio.run(bounded())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def at_most(self, seconds: float, awaitable: Awaitable[Any]) -> Any:
        """TimeoutError after that time."""
        return await asyncio.wait_for(awaitable, seconds)

    async def together(self, *bodies: Callable[[], Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*(body() for body in bodies)))


async def _gather(
    nursery: contextlib.AbstractAsyncContextManager[Any], bodies: tuple[Callable[[], Awaitable[Any]], ...]
) -> list[Any]:
    """All results, in order, of bodies that run in a nursery of trio's or a task group of anyio's."""
    results: list[Any] = [None] * len(bodies)

    async def one(index: int) -> None:
        results[index] = await bodies[index]()

    async with nursery as group:
        for index in range(len(bodies)):
            group.start_soon(one, index)
    return results


class Trio:
    name = "trio"

    def run(self, body: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async def bounded() -> Any:
            with trio.fail_after(PATIENCE):
                return await body(*args)

        return trio.run(bounded)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def at_most(self, seconds: float, awaitable: Awaitable[Any]) -> Any:
        with trio.move_on_after(seconds) as scope:
            return await awaitable
        assert scope.cancelled_caught
        raise TimeoutError

    async def together(self, *bodies: Callable[[], Awaitable[Any]]) -> list[Any]:
        return await _gather(trio.open_nursery(), bodies)


class Anyio:
    def __init__(self, backend: str) -> None:
        self.name = f"anyio-{backend}"
        self._backend = backend

    def run(self, body: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async def bounded() -> Any:
            with anyio.fail_after(PATIENCE):
                return await body(*args)

        return anyio.run(bounded, backend=self._backend)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def at_most(self, seconds: float, awaitable: Awaitable[Any]) -> Any:
        with anyio.fail_after(seconds):
            return await awaitable

    async def together(self, *bodies: Callable[[], Awaitable[Any]]) -> list[Any]:
        return await _gather(anyio.create_task_group(), bodies)


Loop = Asyncio | Trio | Anyio
LOOPS: list[Loop] = [Asyncio(), Trio(), Anyio("asyncio"), Anyio("trio")]
EACH = pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)

# ---- what is awaited ------------------------------------------------------------------------------------------------

_VM, _VFORK, _FILES = CloneFlags.VM, CloneFlags.VFORK, CloneFlags.FILES
ROUTES = {
    "PROCESS": PROCESS,
    "relay": CloneFlags.UNTRACED,
    "bare": CloneFlags.FS,
    "SHARED": SHARED,
    "in_place": SHARED | _VFORK,
    "VM": _VM,
    "THREAD": THREAD,
    "THREAD_own_files": THREAD & ~_FILES,
}


def _on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("flags", [ROUTES[name] for name in names], ids=names)


EVERY = _on(*ROUTES)
LIVE = _on(*(name for name in ROUTES if name != "in_place"))
"""Those whose clone() returns before the task's end."""
MORTAL = _on("PROCESS", "relay", "bare", "SHARED", "in_place", "VM")
"""Those that die alone."""
KILLABLE = _on("PROCESS", "relay", "bare", "SHARED", "VM")
SHARING = _on("SHARED", "VM", "THREAD", "THREAD_own_files")
"""Those that run in the creator's memory, beside the caller."""


def _when_readable(fd: int) -> str:
    """Waits for a byte; 10 s at most, so that a loop that is held up fails, and does not hang."""
    return os.read(fd, 1).decode() if select.select([fd], [], [], 10)[0] else "never"


@contextlib.contextmanager
def waiting(flags: CloneFlags) -> Iterator[tuple[Task[str], Callable[[], None]]]:
    """A task whose body returns "x" once the function is called; at the latest at the end of the block."""
    with pipe() as (read_end, write_end):
        sent = []

        def release() -> None:
            if not sent:
                sent.append(os.write(write_end, b"x"))

        task = clone(_when_readable, read_end, flags=flags)
        try:
            yield task, release
        finally:
            release()
            task.wait(10)
