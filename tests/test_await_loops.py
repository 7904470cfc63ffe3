"""``await task`` and the loop: it goes on, several may wait at once, and who gives up leaves nothing behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import resource
import select
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import trio

from copyforms import IN_NAMESPACES
from creator import run
from loops import EACH, LIVE, ROUTES, Loop, waiting
from proc import descriptors, pipe, threads
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Task, UnsupportedOperation, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags


# ---- a wait that is given up ----------------------------------------------------------------------------------------


@EACH
@LIVE
def test_a_timeout_leaves_the_task_running_and_nothing_behind(loop: Loop, flags: F) -> None:
    async def body() -> None:
        with waiting(flags) as (task, release):
            task.fileno()  # is the Task's own
            await loop.sleep(0)
            before = descriptors()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await loop.at_most(0.02, task)
                assert descriptors() == before
                assert task.running()
            release()
            assert await loop.at_most(10, task) == "x"
            assert descriptors().items() <= before.items(), "a copied one's memory is let go"

    loop.run(body)


@EACH
@LIVE
def test_a_task_whose_await_was_cancelled_can_be_let_go(loop: Loop, flags: F) -> None:
    async def body() -> None:
        with waiting(flags) as (task, release):
            with pytest.raises(TimeoutError):
                await loop.at_most(0.02, task)
            release()
            task.wait(10)
            gone = weakref.ref(task)
        del task
        await loop.sleep(0)
        gc.collect()  # the frames of the TimeoutError
        assert gone() is None

    loop.run(body)


# ---- several ---------------------------------------------------------------------------------------------------------


@EACH
@LIVE
def test_several_awaits_of_one_task(loop: Loop, flags: F) -> None:
    async def body() -> None:
        with waiting(flags) as (task, release):
            before = descriptors()

            async def wait() -> str:
                return await task

            given_up: list[int] = []

            async def give_up() -> str:
                with pytest.raises(TimeoutError):
                    await loop.at_most(0.01, task)
                given_up.append(1)
                return "given up"

            async def let_go() -> str:
                while len(given_up) < 3:
                    await loop.sleep(0.001)
                release()
                return "let go"

            values = await loop.together(*[wait] * 5, *[give_up] * 3, *[wait] * 5, let_go)
            assert values == ["x"] * 5 + ["given up"] * 3 + ["x"] * 5 + ["let go"]
            assert len({id(value) for value in values if value == "x"}) == 1, "one outcome"
            bells = set(descriptors().values()) - set(before.values())
            assert bells <= {"anon_inode:[pidfd]"}, "a thread's with files of its own is the Task's now"

    loop.run(body)


@LIVE
def test_awaits_in_two_loops_at_once(flags: F) -> None:
    values: list[object] = []
    with waiting(flags) as (task, release):

        async def wait() -> None:
            values.append(await task)

        runners = [threading.Thread(target=asyncio.run, args=(wait(),)) for _ in range(3)]
        runners += [threading.Thread(target=trio.run, args=(wait,)) for _ in range(3)]
        for runner in runners:
            runner.start()
        time.sleep(0.05)
        release()
        for runner in runners:
            runner.join(10)
    assert values == ["x"] * 6
    assert len(set(map(id, values))) == 1, "one outcome"


MANY = 500


@EACH
@pytest.mark.parametrize("flags", [PROCESS, SHARED, THREAD], ids=["PROCESS", "SHARED", "THREAD"])
def test_many_tasks_at_once(loop: Loop, flags: F) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MANY
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors")
    count = MANY if flags != PROCESS else 100  # a copy of pytest takes its time

    async def body() -> None:
        before = descriptors()
        with pipe() as (read_end, write_end):

            def wait(number: int) -> int:
                return number if select.select([read_end], [], [], 20)[0] else -1

            async def each(number: int) -> object:
                return await clone(wait, number, flags=flags)

            async def let_go() -> None:
                await loop.sleep(0.05)
                os.write(write_end, b"x")

            bodies = [lambda number=number: each(number) for number in range(count)]  # type: ignore[misc]
            values = await loop.together(*bodies, let_go)
            assert values == [*range(count), None]
        gc.collect()
        assert descriptors() == before

    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        loop.run(body)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- the loop --------------------------------------------------------------------------------------------------------


@EACH
@LIVE
def test_the_loop_goes_on_and_no_thread_is_started(loop: Loop, flags: F) -> None:
    """The task ends because the loop has gone on."""

    async def body() -> None:
        with waiting(flags) as (task, release):
            assert task.tid
            before = threads()
            during: set[int] = set()

            async def tick() -> None:
                for _ in range(20):
                    await loop.sleep(0.002)
                    during.update(threads())
                release()

            async def wait() -> str:
                return await task

            assert (await loop.together(wait, tick))[0] == "x"
            assert during - before == set()

    loop.run(body)


def test_gather_and_a_task_group_of_asyncio() -> None:
    async def value(task: Task[int]) -> int:
        return await task

    async def in_a_group(*tasks: Task[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(value(task))

    async def body() -> None:
        tasks = [clone(abs, -number, flags=flags) for number, flags in enumerate(ROUTES.values())]
        assert await asyncio.gather(*tasks) == [*range(len(ROUTES))]
        assert await asyncio.wait_for(asyncio.ensure_future(tasks[1]), 10) == 1
        async with asyncio.TaskGroup() as group:
            futures = [group.create_task(value(clone(abs, -number, flags=SHARED))) for number in range(5)]
        assert [future.result() for future in futures] == [*range(5)]
        with waiting(SHARED) as (task, _):
            with pytest.raises(BaseExceptionGroup) as caught:
                await in_a_group(task, clone([].remove, 1, flags=SHARED))
            assert caught.group_contains(ValueError)
            assert task.running(), "its await was cancelled"

    asyncio.run(body())


def test_an_await_under_trio_is_a_checkpoint() -> None:
    async def body() -> None:
        task = clone(int, flags=SHARED)
        task.wait()
        with trio.CancelScope() as scope:
            scope.cancel()
            await task
        assert scope.cancelled_caught

    trio.run(body)


def test_trio_as_the_guest_of_asyncio() -> None:
    """Both loops run in one thread: each coroutine is awaited by its own."""
    out = run("""
import asyncio, trio
def slow(value):
    time.sleep(0.05)
    return value
async def of_trio():
    with trio.fail_after(10):
        return await clone(slow, "trio's", flags=SHARED)
async def of_asyncio():
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    trio.lowlevel.start_guest_run(
        of_trio,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=ended.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    say(await asyncio.wait_for(clone(slow, "asyncio's", flags=SHARED), 10))
    say((await asyncio.wait_for(ended, 10)).unwrap())
asyncio.run(of_asyncio())
""")
    assert out == (0, "asyncio's\ntrio's\n", "")


@pytest.mark.parametrize("flags", [PROCESS, SHARED], ids=["PROCESS", "SHARED"])
def test_a_loop_in_a_task_of_the_other(flags: F) -> None:
    """In a copy trio believes that it still runs."""

    async def inner() -> int:
        return await clone(lambda: (time.sleep(0.02), 7)[1])

    async def outer(run: Any, *args: Any) -> tuple[int, int]:
        body = functools.partial(run, *args)
        here = body()
        return here, await clone(body, flags=flags)

    assert asyncio.run(outer(trio.run, inner)) == (7, 7)
    assert trio.run(outer, lambda: asyncio.run(inner())) == (7, 7)


def test_under_uvloop() -> None:
    out = run(f"""
sys.path.append({str(Path(__file__).parent)!r})
import asyncio, uvloop
from loops import ROUTES, waiting
async def main():
    for flags in ROUTES.values():
        assert await asyncio.wait_for(clone(time.sleep, 0.02, flags=flags), 10) is None
        with waiting(flags & ~VFORK) as (task, release):
            try: await asyncio.wait_for(task, 0.02)
            except TimeoutError: say("running")
            release()
            assert task.wait().code == 0  # libuv has made the pidfd nonblocking
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
""")
    assert out == (0, "running\n" * len(ROUTES), "")


def test_a_nonblocking_pidfd_is_waited_for_too() -> None:
    with waiting(PROCESS) as (task, release):
        os.set_blocking(task.fileno(), False)
        threading.Timer(0.05, release).start()
        assert task.wait().code == 0
        assert task.result() == "x"


def test_without_a_loop_an_await_says_so() -> None:
    async def wait() -> str:
        return await task

    with waiting(SHARED) as (task, release):
        with pytest.raises(RuntimeError, match="asyncio and trio"):
            wait().send(None)
        release()
        task.wait()
        with pytest.raises(RuntimeError, match="asyncio and trio"):
            wait().send(None)


def test_a_loop_that_cannot_watch_descriptors_is_named() -> None:
    class Blind(asyncio.SelectorEventLoop):
        def add_reader(self, *args: Any) -> None:
            raise NotImplementedError

    async def body() -> None:
        with waiting(SHARED) as (task, _), pytest.raises(RuntimeError, match="Blind cannot watch descriptors"):
            await task

    with asyncio.Runner(loop_factory=Blind) as runner:
        runner.run(body())


@pytest.mark.parametrize(("used", "other"), [("asyncio", "trio"), ("trio", "asyncio")])
def test_only_the_loop_that_runs_is_imported(used: str, other: str) -> None:
    out = run(f"""
import {used}
before = set(sys.modules)
async def main():
    say(await clone(abs, -1), await clone(abs, -2, flags=SHARED))
{used}.run(main{"()" if used == "asyncio" else ""})
say(sorted(name for name in set(sys.modules) - before if name.split(".")[0] in ("asyncio", "trio", "sniffio", "anyio")))
say("{other}" in sys.modules)
""")
    assert out == (0, f"1 2\n[]\n{other in modules_of(used)}\n", "")


def modules_of(name: str) -> set[str]:
    """What an import of that module brings along."""
    code, out, _ = run(f"import {name}\nfor name in sys.modules: say(name)")
    assert code == 0
    return set(out.split())


# ---- by whom ---------------------------------------------------------------------------------------------------------


def test_a_task_that_shares_memory_awaits_its_own() -> None:
    async def inner() -> list[int]:
        return [await clone(abs, -number, flags=flags) for number, flags in enumerate((PROCESS, SHARED))]

    assert call(lambda: asyncio.run(inner()), flags=SHARED, timeout=20) == [0, 1]
    assert call(lambda: trio.run(inner), flags=SHARED, timeout=20) == [0, 1]


@pytest.mark.parametrize("flags", [F.VM, THREAD & ~F.FILES], ids=["VM", "THREAD_own_files"])
def test_with_files_of_its_own_a_body_cannot_await_tasks_of_the_creator(flags: F) -> None:
    with waiting(SHARED) as (task, _):

        async def inner() -> None:
            await task

        error = clone(lambda: asyncio.run(inner()), flags=flags).exception(20)
        assert isinstance(error, UnsupportedOperation)
        assert "file table" in str(error)


def test_a_body_with_files_of_its_own_awaits_its_own_child() -> None:
    async def inner() -> int:
        before = len(os.listdir("/proc/thread-self/fd"))
        task = clone(["sh", "-c", "sleep 0.05; exit 3"])
        code = await task
        del task
        assert len(os.listdir("/proc/thread-self/fd")) == before
        return code

    assert call(lambda: asyncio.run(inner()), flags=F.VM, timeout=20) == 3


@EACH
def test_a_copy_does_not_await_the_tasks_of_its_creator(loop: Loop) -> None:
    with waiting(SHARED) as (shared, _), waiting(PROCESS) as (copied, _):

        async def inner(task: Task[str]) -> None:
            await task

        for task in (shared, copied):
            with pytest.raises(ChildProcessError):
                call(loop.run, inner, task, timeout=20)


@IN_NAMESPACES
def test_the_copy_of_a_pid_1_that_is_a_pid_1_leaves_the_creators_await_alone() -> None:
    """It has the creator's epoll(7) instance, and drops the coroutine that waits in it."""
    script = """
import asyncio
async def outcome_of(task):
    return await task
async def main():
    task = clone(os.read, held, 1, flags=SHARED)
    waiter = asyncio.ensure_future(outcome_of(task))
    await asyncio.sleep(0)
    copy = fork("NEWPID")
    if copy is None:
        waiter.get_coro().close()
        os._exit(os.getpid())
    say(os.getpid(), copy.result(10))
    os.write(release, b"x")
    say(await asyncio.wait_for(waiter, 5))
container = fork("NEWUSER|NEWPID")
if container is None:
    held, release = os.pipe()
    asyncio.run(main())
    sys.exit(0)
container.wait()
"""
    assert run(script) == (0, "1 1\nb'x'\n", "")
