"""Deaths of tasks that share memory: what the creator sees, and that it goes on.

Each in a process of its own, because a death inside malloc is for good.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from taskclone.rule import running_kernel

pytestmark = pytest.mark.skipif("TASKCLONE_BUILD" not in os.environ, reason="needs the C test library: `make test`")

PRELUDE = """
import ctypes, gc, os, signal, sys, threading, time, warnings
import taskclone
from taskclone import PROCESS, SHARED, CloneFlags, ChildSetup, TaskDied, UnsupportedOperation, call, clone
IN_PLACE = SHARED | CloneFlags.VFORK
library = os.environ["TASKCLONE_BUILD"] + "/csrc/testing/libcrashes.so"
without_lock, with_lock = ctypes.CDLL(library), ctypes.PyDLL(library)
"""


def run(code: str) -> str:
    """Stdout of a script that must exit 0 within 60 s."""
    script = PRELUDE + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("place", ["SHARED", "IN_PLACE"])
@pytest.mark.parametrize("lock", ["with_lock", "without_lock"])
@pytest.mark.parametrize(
    ("crash", "name", "address"),
    [
        ("write_to(16)", "SIGSEGV", 16),
        ("overflow_stack()", "SIGSEGV", None),
        ("raise_signal(signal.SIGABRT)", "SIGABRT", None),
        ("raise_signal(signal.SIGFPE)", "SIGFPE", None),
        ("raise_signal(signal.SIGXCPU)", "SIGXCPU", None),
    ],
)
def test_a_crash_is_reported_with_signal_and_stack(place: str, lock: str, crash: str, name: str, address: int) -> None:
    out = run(f"""
        def body(): {lock}.{crash}
        error = clone(body, flags={place}).exception(10)
        assert isinstance(error, TaskDied), error
        assert error.signal == signal.{name} and error.code is None, error
        assert error.stack[-1].name == "body", error.stack
        assert error.damage == (), error
        assert {address} is None or error.address == {address}, error.address
        assert taskclone.stats()["abandoned_states"] == 1
        for flags in (SHARED, IN_PLACE, PROCESS, taskclone.THREAD):
            assert call(lambda: 7, flags=flags, **({{}} if flags is IN_PLACE else {{"timeout": 10}})) == 7
        gc.collect()
        print("goes on")
    """)
    assert out == "goes on\n"


def test_a_death_inside_malloc_is_named_and_costs_no_more_than_it_says() -> None:
    out = run("""
        def body(): without_lock.corrupt_heap()
        limit = taskclone.stats()["malloc_limit"]
        for number in range(limit):
            error = clone(body, flags=SHARED).exception(10)
            assert error.damage == ("malloc",), error
            assert "malloc" in str(error)
        try: clone(body, flags=SHARED)
        except UnsupportedOperation as refused: assert "Restart this process" in str(refused)
        try: clone(body, flags=PROCESS)
        except UnsupportedOperation as refused: assert "fork() takes" in str(refused)
        assert clone(["true"]).result(10) == 0
        thread = threading.Thread(target=lambda: bytearray(10**6)); thread.start(); thread.join()
        gc.collect()
        print("exits")
    """)
    assert out == "exits\n"


def test_objects_of_a_lost_arena_can_be_let_go() -> None:
    """A buffer that a task made lies in the arena of its host: freeing it must not wait for the lock."""
    out = run("""
        kept = []
        def body():
            kept.extend(bytearray(50_000) for _ in range(20))
            without_lock.corrupt_heap()
        assert clone(body, flags=SHARED).exception(10).damage == ("malloc",)
        kept[0].extend(bytes(200_000))
        kept.clear()
        gc.collect()
        print("freed")
    """)
    assert out == "freed\n"


def test_a_strangers_sigkill_without_contention() -> None:
    out = run("""
        ready = []
        def body():
            ready.append(1)
            time.sleep(60)
        task = clone(body, flags=SHARED)
        while not ready: time.sleep(0.001)
        call(["kill", "-9", str(task.pid)])
        error = task.exception(10)
        assert error.signal == signal.SIGKILL and error.stack[-1].name == "body", error
        assert call(lambda: 7, flags=SHARED) == 7
        print("goes on")
    """)
    assert out == "goes on\n"


def test_threads_of_a_c_library_are_ended_after_a_second() -> None:
    out = run("""
        task = clone(without_lock.start_thread, 3600, flags=SHARED)
        assert task.result(10) == 0
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            began = time.monotonic()
            assert task.wait().code == 0
            assert 0.9 < time.monotonic() - began < 5
        assert [w.category for w in seen] == [ResourceWarning], seen
        print("ended")
    """)
    assert out == "ended\n"


def test_endless_c_code_is_killed_after_a_while() -> None:
    out = run("""
        running = threading.Event()
        def body():
            running.set()
            without_lock.spin_for_ever()
        task = clone(body, flags=SHARED)
        running.wait()
        task.kill()
        error = task.exception()
        assert error.signal == signal.SIGKILL and error.stack[-1].name == "body", error
        print("killed")
    """)
    assert out == "killed\n"


@pytest.mark.skipif(running_kernel() < (5, 16), reason="before Linux 5.16 a signal with a core ends every sharer")
def test_core_leaves_the_signal_to_the_kernel(tmp_path: Path) -> None:
    out = run(f"""
        import resource
        os.chdir({str(tmp_path)!r})
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        def body(): without_lock.write_to(16)
        task = clone(body, flags=SHARED, setup=ChildSetup(core=True))
        error = task.exception(10)
        assert error.signal == signal.SIGSEGV and error.address is None, error
        print("goes on")
    """)
    assert out == "goes on\n"


def test_execve_in_a_body_in_place() -> None:
    """The clone call returns at the execve; the interpreter lock must not stay with the program."""
    out = run("""
        read_end, write_end = os.pipe()
        os.set_inheritable(read_end, True)
        pids = []
        def body():
            pids.append(os.getpid())
            os.execv("/bin/sh", ["sh", "-c", f"read x <&{read_end}; exit 3"])
        def is_program(): return open(f"/proc/{pids[0]}/comm").read() == "sh\\n"
        def let_go():
            while not (pids and is_program()): time.sleep(0.001)
            os.write(write_end, b"x\\n")
        thread = threading.Thread(target=let_go); thread.start()
        task = clone(body, flags=IN_PLACE)
        assert task.wait(10).code == 3
        thread.join()
        assert isinstance(task.exception(), TaskDied) and task.exception().code == 3
        print("goes on")
    """)
    assert out == "goes on\n"
