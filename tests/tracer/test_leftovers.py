"""Nothing that was traced outlives its trace, whatever ends that; and no trace takes for ever."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts import PRELUDE, start

from proc import WALL, children_of, gone, in_call, state_of, until
from taskclone.errors import TaskDied
from taskclone.tracer.records import Call, Record
from taskclone.tracer.trace import Trace

pytestmark = pytest.mark.usefixtures("nothing_left")

WRITE = {"x86_64": 1, "aarch64": 64}[platform.machine()]

FAMILY = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    os.setsid()
    if not os.fork():
        threading.Thread(target=signal.pause).start()
        while True: time.sleep(60)
    os.kill(os.getpid(), signal.SIGSTOP)
while True: time.sleep(60)
"""
"""A child that has stopped, its child in a session of its own with two threads; nobody ends by himself."""


@contextlib.contextmanager
def tracing(script: str, **options: Any) -> Iterator[Trace]:
    with open(os.devnull, "r+") as none:
        fd = none.fileno()
        with Trace([sys.executable, "-c", PRELUDE + script], streams=(fd, fd, fd), **options) as trace:
            yield trace


def family(records: Iterator[Record]) -> list[int]:
    """The ids of the four tasks of FAMILY, once they are there and the child has stopped."""
    found: list[int] = []
    for item in records:
        if isinstance(item, Call):
            found += [] if found else [item.tid]
            found.append(item.child)
        if len(found) == 4:
            break
    until(lambda: state_of(found[1]) in "tT", "the stop")
    return found


def reaped(pid: int) -> bool:
    return state_of(pid) == ""


def test_leaving_the_block_ends_all_of_them() -> None:
    with tracing(FAMILY) as trace:
        tasks = family(trace.records())
        assert not any(map(gone, tasks))
    assert all(map(reaped, tasks)), "at once, and no zombie is left to others"


def test_an_exception_in_the_block_ends_all_of_them() -> None:
    def interrupted() -> None:
        with tracing(FAMILY) as trace:
            tasks.extend(family(trace.records()))
            raise KeyboardInterrupt

    tasks: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(tasks) == 4
    assert all(map(reaped, tasks))


def test_the_time_is_up() -> None:
    began = time.monotonic()
    tasks: list[int] = []
    with tracing(FAMILY, timeout=1.5) as trace, pytest.raises(TimeoutError, match=r"after 1\.5 s"):
        tasks.extend(item.child for item in trace.records() if isinstance(item, Call))
    assert 1.5 <= time.monotonic() - began < 6
    assert tasks
    assert all(map(reaped, tasks))


def test_what_outlives_the_program_is_ended() -> None:
    script = "if not os.fork():\n    os.setsid()\n    signal.pause()\n"
    with tracing(script, linger=0.2) as trace:
        (call,) = (item for item in trace.records() if isinstance(item, Call))
        assert trace.status == 0
        assert not gone(call.child)
    assert reaped(call.child)


def test_a_program_that_makes_tasks_as_fast_as_it_can() -> None:
    """Those that are made while the others are killed are killed too."""
    with tracing("while True:\n    if not os.fork(): os.fork(); os._exit(0)\n    os.waitpid(-1, 0)\n") as trace:
        records = trace.records()
        tasks = [item.child for item in (next(records) for _ in range(200)) if isinstance(item, Call)]
    assert tasks
    assert all(map(reaped, tasks))


def test_the_tracer_is_killed() -> None:
    with tracing(FAMILY) as trace:
        records = trace.records()
        tasks = family(records)
        (tracer,) = children_of(os.getpid())
        os.kill(tracer, signal.SIGKILL)
        with pytest.raises(
            TaskDied, match=f"the tracer, process {tracer}, ended of SIGKILL; what it traced was killed"
        ):
            list(records)
        until(lambda: all(map(gone, tasks)), "the kernel's kill")


def test_the_tracer_is_killed_and_reaped_by_somebody_else() -> None:
    with tracing(FAMILY) as trace:
        records = trace.records()
        tasks = family(records)
        (tracer,) = children_of(os.getpid())
        os.kill(tracer, signal.SIGKILL)
        os.waitpid(tracer, WALL)
        with pytest.raises(TaskDied, match="was taken by somebody else"):
            list(records)
        until(lambda: all(map(gone, tasks)), "the kernel's kill")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_creator_is_killed(number: signal.Signals) -> None:
    creator = start(f"""
with Trace([sys.executable, "-c", {PRELUDE + FAMILY!r}]) as trace:
    for item in trace.records():
        if hasattr(item, "child"): say(item.tid, item.child)
""")
    assert creator.stdout is not None
    tasks = {int(word) for _ in range(3) for word in creator.stdout.readline().split()}
    assert len(tasks) == 4
    (tracer,) = children_of(creator.pid)
    creator.send_signal(number)
    creator.communicate(timeout=20)
    until(lambda: gone(tracer) and all(map(gone, tasks)), "the end of all")


def test_the_thread_that_traces_ends() -> None:
    creator = start(f"""
def trace():
    trace = Trace([sys.executable, "-c", {PRELUDE + FAMILY!r}])
    trace.__enter__()
    records = trace.records()
    tasks = [item for item in (next(records) for _ in range(4)) if hasattr(item, "child")]
    say(*(item.child for item in tasks))
thread = threading.Thread(target=trace)
thread.start(); thread.join()
time.sleep(60)
""")
    assert creator.stdout is not None
    tasks = [int(word) for word in creator.stdout.readline().split()]
    assert len(tasks) == 3
    until(lambda: all(map(gone, tasks)), "the end of all")
    creator.kill()
    creator.communicate(timeout=20)


def test_the_creators_other_waits_are_not_disturbed() -> None:
    """An os.wait() of the creator sees its own children alone, and the trace loses none of its stops to it."""
    creator = start("""
script = "import os\\nfor _ in range(100):\\n    if not os.fork(): os._exit(0)\\n    os.wait()"
with Trace([sys.executable, "-c", script]) as trace:
    mine = os.fork()
    if not mine: time.sleep(0.2); os._exit(3)
    seen = []
    waiter = threading.Thread(target=lambda: seen.append(os.wait()))
    waiter.start()
    calls = [item for item in trace.records() if hasattr(item, "child")]
    waiter.join()
say(seen == [(mine, 3 << 8)], len(calls), trace.status)
""")
    out, err = creator.communicate(timeout=60)
    assert (out, err) == ("True 100 0\n", "")


def test_no_descriptor_of_the_creator_is_held_by_the_tracer() -> None:
    with tracing(FAMILY) as trace:
        family(trace.records())
        (tracer,) = children_of(os.getpid())
        (kept,) = os.listdir(f"/proc/{tracer}/fd")
        assert os.readlink(f"/proc/{tracer}/fd/{kept}").startswith("pipe:")
        assert Path(f"/proc/{tracer}/comm").read_text() == "taskclone-trace\n"


def test_a_reader_that_does_not_read_stops_nobody_for_ever() -> None:
    """The pipe is full, the tracer sleeps in its write; it is ended all the same."""
    with tracing("while True:\n    if not os.fork(): os._exit(0)\n    os.wait()\n") as trace:
        (tracer,) = children_of(os.getpid())
        until(lambda: in_call(tracer, WRITE), "a full pipe")
        (program,) = (pid for pid in children_of(tracer))
    assert reaped(program)
    assert trace.status is None


def test_the_interpreter_of_the_creator_is_not_needed() -> None:
    """A trace that nobody has closed ends with its creator."""
    done = subprocess.run(
        [sys.executable, "-c", f"""{PRELUDE}
from taskclone.tracer.trace import Trace
trace = Trace([sys.executable, "-c", "import time; time.sleep(60)"])
trace.__enter__()
say(next(trace.records()).tid)
os._exit(0)
"""],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    until(lambda: gone(int(done.stdout)), "its end")
