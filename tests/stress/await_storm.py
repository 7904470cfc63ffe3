"""Ends and crashes of tasks that are awaited; run in a process of its own by test_await_storm.py.

    await_storm.py asyncio|trio kill|terminate|crash COUNT

Prints what is left behind, as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from storm import CRASHES, ENDS, left

from taskclone import SHARED, CloneFlags, Task, TaskDied, clone

loop, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sleep: Callable[[float], Awaitable[Any]] = trio.sleep if loop == "trio" else asyncio.sleep
OWN_FILES = CloneFlags.VM
BODIES = CRASHES if kind == "crash" else ENDS


async def one(number: int) -> None:
    flags = OWN_FILES if number % 5 == 0 else SHARED
    task = clone(BODIES[number % len(BODIES)], flags=flags)
    ender = None
    if kind != "crash":
        ender = threading.Thread(target=end, args=(task, number))
        ender.start()
    if number % 3 == 0:
        await sleep(0)
    try:
        await task
    except TaskDied as error:
        died = error
    assert died is task.exception()
    while ender is not None and ender.is_alive():
        await sleep(0.0005)


def end(task: Task[Any], number: int) -> None:
    time.sleep(0.001 * (number % 4))
    if kind == "kill":
        task.kill(timeout=60)
    else:
        task.terminate(0.01, timeout=60)


async def main() -> None:
    """Two at a time: what one does finds the loop in poll as well as in Python."""
    limit = iter(range(count))
    failures = []

    async def some() -> None:
        for number in limit:
            try:
                await one(number)
            except Exception as error:
                failures.append(f"{number}: {type(error).__name__}: {error}")

    if loop == "trio":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(some)
            nursery.start_soon(some)
    else:
        await asyncio.gather(some(), some())
    gc.collect()
    seen.update(failures=failures)


seen: dict[str, Any] = {}
clone(gc.collect, flags=SHARED).wait()
seen["before"] = left()
if loop == "trio":
    trio.run(main)
else:
    asyncio.run(main())
assert clone(lambda: "well", flags=SHARED).result(10) == "well"
seen["after"] = left()
print(json.dumps(seen), flush=True)
