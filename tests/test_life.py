"""A Task over an interpreter's life: forgotten, used by other threads, robbed of its status, alive at the exit."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from creator import run
from proc import children_of, gone, held, pipe, state_of, until
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Task, TaskDied, call, clone
from taskclone._core import copied_start
from taskclone.routes.copied import CopiedHandle

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.filterwarnings("ignore:.*has other threads:DeprecationWarning"),
]

F = CloneFlags
ROUTES: list[Any] = [
    pytest.param(PROCESS, id="copied"),
    pytest.param(SHARED, id="shared"),
    pytest.param(THREAD, id="thread"),
    pytest.param(None, id="program"),
]
every_route = pytest.mark.parametrize("flags", ROUTES)


def reader(flags: CloneFlags | None, fd: int, **fields: Any) -> Task[Any]:
    """A task that ends when it can read a byte."""
    if flags is None:
        return clone(["/bin/sh", "-c", "read line"], stdin=fd, **fields)
    return clone(os.read, fd, 2, flags=flags, **fields)


# ---- forgotten ------------------------------------------------------------------------------------------------------


@every_route
def test_a_task_that_is_forgotten_while_it_runs_is_said_once_and_reaped_later(flags: CloneFlags | None) -> None:
    with pipe() as (read_end, write_end):
        task = reader(flags, read_end)
        tid, text = task.tid, f"<Task {task.tid} {task.route}"
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            del task
            gc.collect()
        assert [w.category for w in seen] == [ResourceWarning]
        assert str(seen[0].message).startswith(text)
        assert "was forgotten while it runs" in str(seen[0].message)
        assert seen[0].filename == __file__
        assert state_of(tid)  # nothing was done to it
        os.write(write_end, b"x\n")
        until(lambda: gone(tid), "its end")
        reaped_by_a_start(tid)


def reaped_by_a_start(tid: int) -> None:
    until(lambda: call(["/bin/true"]) == 0 and tid not in children_of(os.getpid()), "reaped by a later start")


@every_route
def test_a_daemon_may_be_forgotten(flags: CloneFlags | None) -> None:
    with pipe() as (read_end, write_end):
        task = reader(flags, read_end, daemon=True)
        tid = task.tid
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del task
            gc.collect()
        os.write(write_end, b"x\n")
        until(lambda: gone(tid), "its end")
        reaped_by_a_start(tid)


def test_many_forgotten_children_do_not_pile_up() -> None:
    with pipe() as (read_end, write_end), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pids = [reader(PROCESS, read_end).pid for _ in range(100)]
        for _ in pids:
            os.write(write_end, b"xx")
        for pid in pids:
            until(lambda pid=pid: gone(pid), "its end")  # type: ignore[misc]
        for _ in range(20):  # the sweep comes once in that many starts, while a hundred are forgotten
            assert call(int) == 0
        assert set(children_of(os.getpid())).isdisjoint(pids)


def test_a_child_whose_holder_could_not_say_that_it_goes_is_reaped_too() -> None:
    """As when the exception that ends a task rises in Task.__del__."""
    handle = copied_start(CopiedHandle, None, False, int, (), None)
    pid = handle.pid
    until(lambda: gone(pid), "its end")
    del handle
    for _ in range(2):  # the first forgets it, the next reaps what was forgotten
        assert call(["/bin/true"]) == 0
    assert pid not in children_of(os.getpid())


# ---- several threads ------------------------------------------------------------------------------------------------


@every_route
def test_a_task_serves_several_threads_at_once(flags: CloneFlags | None) -> None:
    with pipe() as (read_end, write_end):
        task = reader(flags, read_end)
        seen: list[object] = []
        threads = [
            threading.Thread(target=lambda use=use: seen.append(use(20)))  # type: ignore[misc]
            for use in (task.result, task.result, task.exception, lambda t: task.wait(t).code)
        ]
        for thread in threads:
            thread.start()
        os.write(write_end, b"x\n")
        for thread in threads:
            thread.join(20)
        value = 0 if flags is None else b"x\n"
        assert sorted(map(repr, seen)) == sorted(map(repr, [value, value, None, 0]))


def test_a_task_that_a_thread_has_started_outlives_the_thread() -> None:
    for flags in (PROCESS, SHARED, THREAD, None):
        with pipe() as (read_end, write_end):
            tasks: list[Task[Any]] = []
            starter = threading.Thread(target=lambda: tasks.append(reader(flags, read_end)))  # noqa: B023
            starter.start()
            starter.join()
            assert tasks[0].running()
            os.write(write_end, b"x\n")
            assert tasks[0].result(20) == (0 if flags is None else b"x\n")


# ---- who takes the status -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sigchld_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def exits_with_7(kind: str) -> Task[Any]:
    if kind == "program":
        return clone(["/bin/sh", "-c", "exit 7"])
    return clone(sys.exit, 7, flags=SHARED if kind != "copied" else PROCESS, **EXTRA.get(kind, {}))


def dies_of_sigkill(kind: str) -> Task[Any]:
    if kind == "program":
        return clone(["/bin/sh", "-c", "kill -9 $$"])
    flags = SHARED if kind != "copied" else PROCESS
    return clone(lambda: os.kill(os.getpid(), signal.SIGKILL), flags=flags, **EXTRA.get(kind, {}))


EXTRA: dict[str, dict[str, Any]] = {"shared SIGCHLD": {"exit_signal": signal.SIGCHLD}}
# What keeps the status when somebody else takes it: the kernel since 6.15, or what the task has left.
pidfd_keeps_status = pytest.mark.skipif(
    tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (6, 15), reason="a pidfd keeps it from 6.15 on"
)
kinds = pytest.mark.parametrize("kind", ["copied", "program", "shared SIGCHLD"])


@kinds
@pytest.mark.parametrize("make", [exits_with_7, dies_of_sigkill], ids=["exit", "kill"])
@pidfd_keeps_status
def test_a_foreign_wait_cannot_steal_a_status(kind: str, make: Callable[[str], Task[Any]]) -> None:
    task = make(kind)
    assert os.waitpid(task.pid, 0)[0] == task.pid
    check_status(task, make)
    assert task.wait().source in (
        ["pidfd"] if task.route != "shared" else ["pidfd", "wait"]
    )  # its host may have looked


@kinds
@pytest.mark.parametrize("make", [exits_with_7, dies_of_sigkill], ids=["exit", "kill"])
@pidfd_keeps_status
def test_sigchld_ignored_loses_no_status(kind: str, make: Callable[[str], Task[Any]]) -> None:
    with sigchld_ignored():
        task = make(kind)
        check_status(task, make)


@pytest.mark.parametrize("make", [exits_with_7, dies_of_sigkill], ids=["exit", "kill"])
def test_a_plain_wait_does_not_even_see_a_shared_task(make: Callable[[str], Task[Any]]) -> None:
    task = make("shared")
    task.exception(20)
    with pytest.raises(ChildProcessError):
        os.waitpid(task.pid, 0)
    check_status(task, make)


def check_status(task: Task[Any], make: Callable[[str], Task[Any]]) -> None:
    status = task.wait(20)
    assert (status.code, status.signal) == ((7, None) if make is exits_with_7 else (None, signal.SIGKILL))
    if task.route == "program" and make is exits_with_7:
        assert task.result() == 7
    else:
        error = task.exception()
        assert isinstance(error, TaskDied)
        assert (error.code, error.signal) == (status.code, status.signal)


def test_where_no_pidfd_keeps_it_a_stolen_status_is_the_tasks_own_word_or_lost() -> None:
    """As before Linux 6.15: a filter refuses the ioctl that asks the pidfd."""
    script = f"""
import errno
sys.path.insert(0, {str(Path(__file__).parent)!r})
from seccomp import refuse
refuse("ioctl", errno.ENOTTY)
def left(task):
    os.waitpid(task.pid, 0)
    error, status = task.exception(20), task.wait()
    text = str(error).partition(str(task.pid))[2].partition(chr(10))[0].strip(", ")
    source = "kept" if task.route == "shared" else status.source  # its host may have looked before
    say(task.route, source, status.code, "|", text, "|", repr(task)[-8:])
left(clone(sys.exit, 7))
left(clone(int))
left(clone(os._exit, 7))
left(clone(["/bin/sh", "-c", "exit 7"]))
left(clone(sys.exit, 7, flags=SHARED, exit_signal=signal.SIGCHLD))
left(clone(os.abort, flags=SHARED, exit_signal=signal.SIGCHLD))
"""
    code, out, err = run(script)
    assert (code, err) == (0, "")
    lost = "ended, but its exit status was taken by somebody else (a foreign wait, or SIGCHLD ignored)"
    assert out.splitlines() == [
        "copied record 7 | exited with status 7 | ended 7>",
        "copied record 0 |  | ended 0>",
        f"copied lost None | {lost} | ended ?>",
        f"program lost None | {lost} | ended ?>",
        "shared kept 7 | exited with status 7 | ended 7>",
        "shared kept None | died of SIGABRT | SIGABRT>",
    ]


# ---- the interpreter's exit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("daemon", [False, True])
def test_exit_with_a_task_of_every_route_alive(daemon: bool) -> None:
    """A task in place holds its caller, so it is a daemon thread that calls it."""
    script = f"""
def body(name, fd):
    os.read(fd, 1)
    say(name, "done")
def in_place():
    clone(time.sleep, 0.2, flags=SHARED | VFORK)
fields = dict(daemon={daemon})
pipes = [os.pipe() for _ in range(4)]
copied, shared, thread, program = [read_end for read_end, _ in pipes]
tasks = [clone(body, "copied", copied, **fields), clone(body, "shared", shared, flags=SHARED, **fields),
         clone(body, "thread", thread, flags=THREAD, **fields),
         clone(["/bin/sh", "-c", "read line; echo program done"], stdin=program, **fields)]
threading.Thread(target=in_place, daemon=True).start()
say(*[task.tid for task in tasks])
if not {daemon}:
    threading.Timer(0.3, lambda: [os.write(write_end, b"\\n") for _, write_end in pipes]).start()
"""
    status, out, err = run(script, "-W", "ignore::DeprecationWarning")
    assert (status, err) == (0, "")
    tids, *words = out.splitlines()
    for tid in map(int, tids.split()):
        assert gone(tid)
    assert sorted(words) == ([] if daemon else ["copied done", "program done", "shared done", "thread done"])


# ---- sub-interpreters -----------------------------------------------------------------------------------------------


def test_a_sub_interpreter_may_live_beside_but_not_import() -> None:
    script = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
code = '''
try:
    import taskclone
except ImportError as error:
    text = str(error)
else:
    text = "imported"
import os
os.write(1, (text + "\\\\n").encode())
'''
interpreters.run_string(other, code)
for flags in (SHARED, SHARED | VFORK, THREAD):
    say(call(abs, -3, flags=flags))
say(call(["/bin/sh", "-c", "exit 3"]))
try:
    clone(abs, -3)
except UnsupportedOperation as error:
    say(error)
task = clone(time.sleep, 100, flags=SHARED)
task.kill()
say(clone(os.abort, flags=SHARED).exception(20))
interpreters.run_string(other, "import os; os.write(1, b'still there\\\\n')")
interpreters.destroy(other)
say(call(abs, -4, flags=SHARED))
"""
    status, out, err = run(script, "-W", "ignore::DeprecationWarning")
    assert (status, err) == (0, "")
    first, *values, refused, death, alive, last = out.splitlines()
    assert "main interpreter only" in first or "does not support loading in subinterpreters" in first
    assert values == ["3"] * 4
    assert "a sub-interpreter is alive" in refused
    assert "SIGABRT" in death
    assert (alive, last) == ("still there", "4")


# ---- what was done another way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [PROCESS, SHARED, SHARED | F.VFORK, THREAD])
def test_nothing_is_emulated_where_the_kernel_was_asked(flags: CloneFlags) -> None:
    task = clone(int, flags=flags)
    assert task.result(20) == 0
    assert task.emulated == {}
    with clone(["/bin/true"]) as program:
        assert program.emulated == {}


def test_what_a_thread_has_of_its_own_is_said_to_be_unshared() -> None:
    with held(THREAD & ~F.FS & ~F.SYSVSEM) as task:
        assert list(task.emulated) == ["FS", "SYSVSEM"]
        assert all("unshare" in how for how in task.emulated.values())
