"""Each route: what it returns and raises, who the task is, what its handle says."""

from __future__ import annotations

import contextvars
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from proc import held, state_of, until
from taskclone import PROCESS, SHARED, THREAD, ChildSetup, CloneFlags, Plan, TaskDied, call, clone
from taskclone.flags import ROWS

pytestmark = pytest.mark.usefixtures("nothing_left")

IN_PLACE = SHARED | CloneFlags.VFORK
CLONED = THREAD | CloneFlags.IO
"""A thread whose task the caller has cloned."""
ROUTES = {"copied": PROCESS, "shared": SHARED, "in_place": IN_PLACE, "thread": THREAD, "cloned": CLONED}
LIVE = {name: flags for name, flags in ROUTES.items() if name != "in_place"}
MEMORY_SHARED = {name: flags for name, flags in ROUTES.items() if name != "copied"}


def by_route(table: dict[str, CloneFlags]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("flags", table.values(), ids=table)


# ---- results --------------------------------------------------------------------------------------------------------


@by_route(ROUTES)
def test_a_value_comes_back(flags: CloneFlags) -> None:
    task = clone(divmod, 17, 5, flags=flags)
    assert task.result(10) == (3, 2)
    assert task.result() == (3, 2)
    assert task.exception() is None
    assert task.done()
    assert not task.running()


@by_route(ROUTES)
def test_none_and_large_values_come_back(flags: CloneFlags) -> None:
    assert call(lambda: None, flags=flags) is None
    assert call(lambda: b"x" * 3_000_000, flags=flags) == b"x" * 3_000_000


@by_route(MEMORY_SHARED)
def test_where_memory_is_shared_it_is_the_object_itself(flags: CloneFlags) -> None:
    box: list[object] = []

    def body(given: list[object]) -> object:
        made = object()
        given.append(made)
        return made

    made = clone(body, box, flags=flags).result(10)
    assert box[0] is made


def test_where_memory_is_copied_it_is_a_copy() -> None:
    box = [1]

    def body() -> list[int]:
        box.append(2)
        return box

    assert call(body) == [1, 2]
    assert box == [1]


@by_route(ROUTES)
def test_a_plan_starts_with_keywords(flags: CloneFlags) -> None:
    assert Plan(flags).start(int, "ff", base=16).result(10) == 255


@by_route(ROUTES)
def test_many_starts_of_one_plan(flags: CloneFlags) -> None:
    plan = Plan(flags)
    assert [plan.start(abs, -i).result(10) for i in range(50)] == list(range(50))


@by_route(LIVE)
def test_many_at_once(flags: CloneFlags) -> None:
    gate_r, gate_w = os.pipe()
    tasks = [clone(os.read, gate_r, 1, flags=SHARED if flags == PROCESS else flags) for _ in range(12)]
    assert not any(task.done() for task in tasks)
    os.write(gate_w, b"x" * 12)
    assert [task.result(10) for task in tasks] == [b"x"] * 12
    os.close(gate_r)
    os.close(gate_w)


def test_a_program_ends_with_its_exit_code() -> None:
    task = clone([sys.executable, "-c", "import sys; sys.exit(7)"])
    assert task.result(10) == 7
    assert task.route == "program"
    assert task.wait().code == 7


def test_a_program_has_streams_directory_and_environment_of_the_plan(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        setup = ChildSetup(cwd=tmp_path, environment={"WHO": "me", "PATH": os.defpath})
        argv = ["sh", "-c", "pwd; echo $WHO; echo wrong >&2; cat"]
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        assert call(argv, setup=setup, **streams) == 0
    assert out.read_text() == f"{tmp_path}\nme\nwrong\n"


# ---- who it is ------------------------------------------------------------------------------------------------------


@by_route(ROUTES)
def test_ids_as_the_task_sees_them(flags: CloneFlags) -> None:
    task = clone(lambda: (os.getpid(), threading.get_native_id(), os.getppid()), flags=flags)
    pid, tid, parent = task.result(10)
    assert (task.pid, task.tid) == (pid, tid)
    if flags & CloneFlags.THREAD:
        assert (pid, parent) == (os.getpid(), os.getppid())
        assert tid != pid
    else:
        assert pid == tid != os.getpid()
        assert parent == os.getpid()


@by_route(ROUTES)
def test_routes_are_named(flags: CloneFlags) -> None:
    task = clone(int, flags=flags)
    task.wait(10)
    assert task.route == {PROCESS: "copied", THREAD: "thread", CLONED: "thread"}.get(flags, "shared")
    assert task.flags == flags
    assert task.plan == Plan(flags)


@by_route(LIVE)
def test_a_name_is_the_kernels_name_too(flags: CloneFlags) -> None:
    def comm() -> str:
        return Path("/proc/thread-self/comm").read_text()

    with held(flags, body=comm, name="a-name-of-17-byt") as task:
        assert task.name == "a-name-of-17-byt"
        comm_file = Path(f"/proc/{task.pid}/task/{task.tid}/comm")
        until(lambda: comm_file.read_text() == "a-name-of-17-by\n", f"{comm_file} has the name")
    assert task.result() == "a-name-of-17-by\n"


def test_the_creator_keeps_its_own_name() -> None:
    before = Path("/proc/self/comm").read_text()
    call(int, flags=SHARED, name="other")
    call(int, flags=IN_PLACE, name="other")
    call(int, flags=THREAD, name="other")
    assert Path("/proc/self/comm").read_text() == before


@by_route(ROUTES)
def test_a_body_runs_in_a_copy_of_the_callers_context(flags: CloneFlags) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="default")

    def body() -> str:
        seen = var.get()
        var.set("the task's")
        return seen

    token = var.set("the caller's")
    assert call(body, flags=flags) == "the caller's"
    assert var.get() == "the caller's"
    var.reset(token)


@by_route(MEMORY_SHARED)
def test_current_thread_in_a_task_is_gone_afterwards(flags: CloneFlags) -> None:
    before = threading.enumerate()

    def body() -> tuple[int, bool]:
        me = threading.current_thread()
        return me.native_id or 0, me in threading.enumerate() and me is not threading.main_thread()

    task = clone(body, flags=flags)
    assert task.result(10) == (task.tid, True)
    task.wait(10)
    assert threading.enumerate() == before
    assert call(body, flags=flags)[1], "the next task, perhaps on the same host"


# ---- what the handle says -------------------------------------------------------------------------------------------


def test_granted_of_each_route() -> None:
    for flags in ROUTES.values():
        task = clone(int, flags=flags)
        task.result(10)
        granted = int(task.granted.flags)
        assert granted & flags == flags
        more = [member for member, row in ROWS.items() if granted & ~int(flags) & member and row.kind == "share"]
        assert more == [], "nothing is shared but what was asked for"
        assert task.granted.exit_signal == (signal.SIGCHLD if flags == PROCESS else 0)
        assert granted == THREAD or flags != THREAD


def test_granted_of_a_program() -> None:
    task = clone(["true"])
    assert task.result(10) == 0
    assert task.granted.flags & (CloneFlags.VM | CloneFlags.VFORK) == CloneFlags.VM | CloneFlags.VFORK
    assert task.granted.exit_signal == signal.SIGCHLD
    assert str(task.granted).endswith(" exit SIGCHLD")


def test_repr() -> None:
    with held("VM|FILES", name="w") as task:
        assert re.fullmatch(rf"<Task {task.pid} 'w' shared VM\|FILES running \d+\.\d s>", repr(task))
    assert repr(task) == f"<Task {task.pid} 'w' shared VM|FILES ended 0>"
    copied = clone(int)
    copied.wait(10)
    assert repr(copied) == f"<Task {copied.pid} copied ended 0>"
    program = clone(["sh", "-c", "exit 3"])
    program.wait(10)
    assert repr(program) == f"<Task {program.pid} program ended 3>"
    program = clone(["sh", "-c", "kill -9 $$"])
    program.wait(10)
    assert repr(program) == f"<Task {program.pid} program ended SIGKILL>"


@by_route(LIVE)
def test_fileno_is_readable_at_the_end_and_not_before(flags: CloneFlags) -> None:
    poll = select.poll()
    with held(flags) as task:
        poll.register(task.fileno(), select.POLLIN)
        assert poll.poll(0) == []
        assert not os.get_inheritable(task.fileno())
    assert poll.poll(10_000) == [(task.fileno(), select.POLLIN)] or poll.poll(0)[0][1] & select.POLLIN


@by_route(LIVE)
def test_status_and_times(flags: CloneFlags) -> None:
    with held(flags) as task:
        assert task.running()
        assert task.status is None
        with pytest.raises(TimeoutError, match=str(task.tid)):
            task.result(0)
        with pytest.raises(TimeoutError):
            task.wait(0.01)
    status = task.wait(10)
    assert (status.code, status.signal, status.lost) == (0, None, False)
    assert task.status == status
    if not flags & CloneFlags.THREAD:
        assert status.source == "wait"
        assert status.rusage.ru_stime >= 0


@by_route(LIVE)
def test_a_with_block_waits(flags: CloneFlags) -> None:
    with clone(time.sleep, 0.02, flags=flags) as task:
        pass
    assert task.status is not None
    assert flags & CloneFlags.THREAD or state_of(task.pid) == ""


@by_route(LIVE)
def test_a_with_block_that_raises_ends_the_task(flags: CloneFlags) -> None:
    def for_ever() -> None:
        while True:
            time.sleep(0.01)

    with pytest.raises(LookupError, match="mine"), clone(for_ever, flags=flags) as task:
        raise LookupError("mine")
    assert task.status is not None
    with pytest.raises(TaskDied):
        task.result(0)
