"""An exception that no Task can tell any more is told by threading.excepthook, as that of any thread."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator

import pytest

from creator import run
from proc import until
from taskclone import SHARED, THREAD, CloneFlags, Task, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

HOW = pytest.mark.parametrize("flags", [THREAD, THREAD | CloneFlags.IO], ids=["pthread", "clone"])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.ExceptHookArgs]]:
    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    yield seen
    seen.clear()


def fail() -> None:
    raise LookupError("nobody asks")


@HOW
def test_where_the_task_was_let_go_of_the_thread_itself_tells(
    flags: CloneFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []

    def hook(args: threading.ExceptHookArgs) -> None:
        assert args.thread is not None
        alive = args.thread in threading.enumerate() and args.thread.is_alive()
        here = threading.current_thread() is args.thread
        seen.append((args.exc_type, str(args.exc_value), args.thread.name, args.thread.native_id, alive, here))

    monkeypatch.setattr(threading, "excepthook", hook)
    gate = threading.Event()

    def body() -> None:
        gate.wait()
        fail()

    tid = clone(body, flags=flags, name="forgotten one", daemon=True).tid  # any other is warned of
    gate.set()
    until(lambda: seen, "the hook is called")
    assert seen == [(LookupError, "nobody asks", "forgotten one", tid, True, True)]


@HOW
def test_where_the_task_is_let_go_of_later_it_is_told_then(
    flags: CloneFlags, told: list[threading.ExceptHookArgs]
) -> None:
    task = clone(fail, flags=flags, name="later")
    tid = task.tid
    assert task.wait(10).code == 1
    assert task.status is not None
    assert told == []
    del task
    (args,) = told
    assert args.exc_type is LookupError
    assert args.exc_traceback is not None
    assert args.thread is not None
    assert (args.thread.name, args.thread.native_id, args.thread.is_alive()) == ("later", tid, False)
    assert "later" in repr(args.thread)


@HOW
def test_in_a_cycle_it_is_told_by_the_collector(flags: CloneFlags, told: list[threading.ExceptHookArgs]) -> None:
    cycle: list[object] = [clone(fail, flags=flags)]
    task = cycle[0]
    assert isinstance(task, Task)
    task.wait(10)
    cycle.append(cycle)
    del cycle, task
    gc.collect()
    assert [args.exc_type for args in told] == [LookupError]


@HOW
def test_who_has_asked_is_not_told(flags: CloneFlags, told: list[threading.ExceptHookArgs]) -> None:
    task = clone(fail, flags=flags)
    task.exception(10)
    del task
    with pytest.raises(LookupError):
        clone(fail, flags=flags).result(10)
    gc.collect()
    assert told == []


@HOW
def test_an_end_that_was_asked_for_is_no_news(flags: CloneFlags, told: list[threading.ExceptHookArgs]) -> None:
    def body() -> None:
        while True:
            gate.wait(0.001)

    gate = threading.Event()
    task = clone(body, flags=flags)
    task.terminate()
    assert task.wait(10).code == 128 + signal.SIGTERM
    task = clone(body, flags=flags)
    task.terminate()
    del task
    gc.collect()
    assert told == []


def test_a_task_of_its_own_process_is_told_by_its_status(told: list[threading.ExceptHookArgs]) -> None:
    task = clone(fail, flags=SHARED)
    task.wait(10)
    del task
    assert told == []


@HOW
def test_at_the_interpreters_exit(flags: CloneFlags) -> None:
    code, out, err = run(f"""
def fail():
    raise LookupError("nobody asks")
task = clone(fail, flags={int(flags)}, name="last")
def leave():
    raise SystemExit(3)
other = clone(leave, flags={int(flags)})
""")
    assert (code, out) == (0, "")
    assert err.startswith("Exception in thread last:\nTraceback")
    assert err.count("Traceback") == 1
    assert err.endswith("LookupError: nobody asks\n")
