"""The watchdog: a wait that will never end is named; no other is."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from creator import PRELUDE
from proc import SLOWNESS, threads, until
from taskclone import SHARED, TaskDied, _core, call

TIMEOUT = 60 * SLOWNESS


@contextmanager
def creator(script: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """One that may hang for ever; it is ended at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TASKCLONE_WATCHDOG": "1", **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it has ended and is reaped
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def what_is_said(process: subprocess.Popen[str], last: bytes = b"in body\n") -> str:
    """All of stderr up to the last words (the end of a Python stack), or to the end of the process."""
    assert process.stderr is not None
    text, deadline = b"", time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and last not in text:
        if select.select([process.stderr], [], [], 1)[0]:
            more = os.read(process.stderr.fileno(), 4096)
            text += more
            if not more:
                process.wait(10 * SLOWNESS)
                break
    return text.decode()


STRUCK_FROM_OUTSIDE = """
import subprocess
def body():
    while True: pass
def spin():
    while True: pass
task = clone(body, flags=SHARED, name="victim", daemon=True)
pid = task.pid
threading.Thread(target=spin, daemon=True).start()
subprocess.Popen(["/bin/sh", "-c", f"sleep 0.05; kill -9 {pid}"])
end = time.monotonic() + 1
while time.monotonic() < end: pass
os._exit(0)
"""


@pytest.mark.stress
def test_a_kill_from_outside_that_wedges_the_interpreter_lock_is_named() -> None:
    """Most do, where three threads want the lock; the others must not be named. (None with the condition variables of
    glibc 2.41 and later.)"""
    for _ in range(20):
        with creator(STRUCK_FROM_OUTSIDE) as process:
            said = what_is_said(process)
            if process.returncode == 0:
                assert said == ""
                continue
        break
    if not said:
        pytest.skip("none of 20 kills wedged it")
    assert "has waited for the interpreter's own locks for 1 s, and nobody will open it: task " in said
    assert "'victim', which shared this memory, died of SIGKILL while it took or gave back the interpreter lock" in said
    assert said.endswith("in body\n")


# Not right after a write that tells of it: where both have one processor, it always finds the victim outside of malloc.
# And not often: each dead keeps its arena, and in the end the next victim is served from the main thread's.
DIES_IN_MALLOC = """
import ctypes
library = ctypes.CDLL(TESTS)
churned = ctypes.c_ulong.in_dll(library, "churned")
locks = []
def body():
    locks.append(threading.Lock())  # the interpreter's part of it is a block of this task's arena (before 3.14)
    library.churn()
def one_dies_in_malloc():
    while not stats()["malloc_deaths"]:
        before = churned.value
        task = clone(body, flags=SHARED, name="victim")
        while churned.value < before + 1000: time.sleep(0.0001)  # then it has given back the interpreter lock
        os.kill(task.pid, signal.SIGKILL)
        task.wait(10)
"""

WAITS_FOR_MALLOC = """
dead = threading.Event()
def use():
    kept = [bytes(20_000 + n) for n in range(4)]  # which arena it is is decided now
    dead.wait()
    kept += [bytes(30_000 + n) for n in range(100)]
threads = [threading.Thread(target=use) for _ in range(6)]
for thread in threads: thread.start()
one_dies_in_malloc()  # this very thread may be the one that waits
dead.set()
for thread in threads: thread.join()
"""
needs_crashes = pytest.mark.skipif(
    "TASKCLONE_BUILD" not in os.environ, reason="needs the C test library: run by `make test`"
)


def with_crashes(script: str) -> str:
    (library,) = (Path(os.environ["TASKCLONE_BUILD"]) / "csrc" / "testing").glob("*crashes*.so")
    return f"TESTS = {str(library)!r}\n" + DIES_IN_MALLOC + script


@pytest.mark.stress
@needs_crashes
def test_a_thread_that_waits_for_a_lost_arena_is_named() -> None:
    with creator(with_crashes(WAITS_FOR_MALLOC), MALLOC_ARENA_MAX="2") as process:
        said = what_is_said(process, b"\n")
    assert "has waited for a lock of malloc for 1 s, and nobody will open it: task " in said
    assert "'victim', which shared this memory, died of SIGKILL inside malloc" in said


WAITS_FOR_A_LOCK_IN_THE_ARENA = """
one_dies_in_malloc()
locks[-1].acquire()
def wait(): locks[-1].acquire()
thread = threading.Thread(target=wait)
thread.start()
time.sleep(3.5)
locks[-1].release()
thread.join()
say("it went on")
"""


@pytest.mark.stress
@needs_crashes
def test_a_thread_that_waits_for_a_lock_which_lies_in_a_lost_arena_is_not_named() -> None:
    with creator(with_crashes(WAITS_FOR_A_LOCK_IN_THE_ARENA)) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out, err) == (0, "it went on\n", "")


LONG_CALL = """
import ctypes
try: call(os.abort, flags=SHARED)
except TaskDied as died: say(died.signal)
other = threading.Thread(target=lambda: [None for _ in range(10)])
usleep = ctypes.PyDLL(None).usleep  # with the interpreter lock
usleep(10)
lock = threading.Lock()
lock.acquire()
waits = threading.Thread(target=lock.acquire)  # a lock of Python's own: not the watchdog's affair
waits.start()
other.start()
for _ in range(8): usleep(500_000)
lock.release()
other.join(), waits.join()
"""


def test_what_only_takes_long_is_not_named() -> None:
    with creator(LONG_CALL) as process:
        out, err = process.communicate(timeout=30 * SLOWNESS)
        assert (process.returncode, out, err) == (0, f"{int(signal.SIGABRT)}\n", "")


def test_there_is_none_before_a_death_and_none_after_a_fork() -> None:
    _core.hosts_end()
    before = threads()
    assert call(abs, -1, flags=SHARED) == 1
    until(lambda: (_core.hosts_end(), threads() <= before)[1], "the end of the host")
    with pytest.raises(TaskDied):
        call(os.abort, flags=SHARED)
    until(lambda: (_core.hosts_end(), threads() <= before)[1], "the end of the watchdog, as before a fork")


def test_it_can_be_left_out() -> None:
    script = """
try: call(os.abort, flags=SHARED)
except TaskDied: pass
# The dead's host leaves at once, or watches.
deadline = time.monotonic() + 10
while not stats()["retired_hosts"] and time.monotonic() < deadline: time.sleep(0.01)
while WANTED and not stats()["watchdog"] and time.monotonic() < deadline: time.sleep(0.01)
time.sleep(0.05)
say(stats()["watchdog"])
"""
    for seconds, watches in (("0", 0), ("5", 1)):
        with creator(f"WANTED = {watches}\n{script}", TASKCLONE_WATCHDOG=seconds) as process:
            out, err = process.communicate(timeout=20 * SLOWNESS)
            assert (out, err) == (f"{watches}\n", "")
