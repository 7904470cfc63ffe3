"""CAPTURE: what a task writes is kept, whoever reads and however it ends."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from typing import Any

import pytest

from proc import descriptors, held, until
from taskclone import (
    CAPTURE,
    SHARED,
    ChildSetup,
    CloneFlags,
    StartError,
    Task,
    TaskDied,
    UnsupportedOperation,
    call,
    clone,
    fork,
)
from taskclone.capture import LAST_WORDS

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
ROUTES = pytest.mark.parametrize(
    ("route", "flags"),
    [
        ("copied", 0),
        ("copied", "VFORK"),
        ("copied", "UNTRACED"),
        ("shared", "VM"),
        ("in_place", "VM|VFORK"),
        ("program", 0),
    ],
)


def speak() -> None:
    os.write(1, b"said\n")
    os.write(2, b"complained\n")


def body_of(route: str) -> Any:
    return ["sh", "-c", "echo said; echo complained >&2"] if route == "program" else speak


@ROUTES
def test_both_streams(route: str, flags: Any) -> None:
    task = clone(body_of(route), flags=flags, stdout=CAPTURE, stderr=CAPTURE)
    task.wait(10)
    assert (task.stdout, task.stderr) == (b"said\n", b"complained\n")
    assert task.stdout == b"said\n", "as often as one likes"


@ROUTES
def test_one_stream_or_both_in_one(route: str, flags: Any) -> None:
    with clone(body_of(route), flags=flags, stdout=CAPTURE, stderr=subprocess.STDOUT) as both:
        pass
    assert (both.stdout, both.stderr) == (b"said\ncomplained\n", None)
    with clone(body_of(route), flags=flags, stdout=subprocess.DEVNULL, stderr=CAPTURE) as one:
        pass
    assert (one.stdout, one.stderr) == (None, b"complained\n")
    with clone(body_of(route), flags=flags, stdout=CAPTURE, stderr=subprocess.DEVNULL) as other:
        pass
    assert (other.stdout, other.stderr) == (b"said\n", None)


def test_without_there_is_none() -> None:
    with clone(int) as task:
        pass
    assert (task.stdout, task.stderr) == (None, None)


@pytest.mark.parametrize("flags", [0, "VM"])
def test_print_is_captured(flags: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(1, "w", closefd=False) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        task = clone(print, "ü", flags=flags, stdout=CAPTURE)
        task.wait(10)
    assert task.stdout == "ü\n".encode()


def test_more_than_a_pipe_holds_and_nobody_reads() -> None:
    argv = [sys.executable, "-c", "import os\nfor _ in range(64): os.write(1, b'x' * (1 << 20))"]
    task = clone(argv, stdout=CAPTURE)
    assert task.result(60) == 0
    assert task.stdout is not None
    assert len(task.stdout) == 64 << 20


def test_what_is_there_so_far() -> None:
    with held(0, body=speak, stdout=CAPTURE) as task:
        until(lambda: task.stdout, "a word")
        assert task.running()
        assert task.stdout == b"said\n"


def test_the_programs_of_a_program_write_behind_each_other() -> None:
    script = "echo one >> /dev/stdout; (echo two); echo three >&2; echo five"
    task = clone(["sh", "-c", script], stdout=CAPTURE, stderr=CAPTURE)
    task.wait(10)
    assert (task.stdout, task.stderr) == (b"one\ntwo\nfive\n", b"three\n")


def test_a_task_in_a_task() -> None:
    def outer() -> bytes | None:
        inner = clone(speak, stdout=CAPTURE)
        inner.wait(10)
        os.write(1, b"outer\n")
        return inner.stdout

    task = clone(outer, stdout=CAPTURE)
    assert task.result(10) == b"said\n"
    assert task.stdout == b"outer\n"


def test_files_are_shared_so_capture_is_refused() -> None:
    before = descriptors()
    for name in ("stdout", "stderr"):
        with pytest.raises((UnsupportedOperation, OSError), match=name):
            clone(speak, flags=SHARED, **{name: CAPTURE})  # type: ignore[arg-type]
    with pytest.raises(StartError):
        clone(["/no/such/program"], stdout=CAPTURE, stderr=CAPTURE)
    assert descriptors() == before


# ---- last words -----------------------------------------------------------------------------------------------------


def complain(data: bytes, number: int) -> None:
    os.write(2, data)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("flags", "how"), [(0, "KILL"), ("VM", "SEGV"), ("VM|VFORK", "SEGV")])
def test_the_last_words_are_in_the_error(flags: Any, how: str) -> None:
    with pytest.raises(TaskDied, match=rf"SIG{how}[\s\S]*last words on stderr:\noh n\\xff$") as caught:
        call(complain, b"oh n\xff\n", signal.Signals[f"SIG{how}"], flags=flags, stderr=CAPTURE)
    assert caught.value.last_words == "oh n\\xff\n"
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.last_words, str(copy)) == (caught.value.last_words, str(caught.value))


def test_of_a_program_and_by_way_of_stdout() -> None:
    script = "echo that was it >&2; kill -9 $$"
    for streams in ({"stderr": CAPTURE}, {"stdout": CAPTURE, "stderr": subprocess.STDOUT}):
        with pytest.raises(TaskDied, match="that was it"):
            call(["sh", "-c", script], **streams)  # type: ignore[arg-type]
    for streams in ({}, {"stdout": CAPTURE, "stderr": subprocess.DEVNULL}):
        with pytest.raises(TaskDied) as caught:
            call(["sh", "-c", script], **streams)  # type: ignore[arg-type]
        assert caught.value.last_words == ""
        assert "last words" not in str(caught.value)


def test_only_the_last_of_many_words() -> None:
    with pytest.raises(TaskDied) as caught:
        call(complain, "ü".encode() * 5000 + b"!", signal.SIGKILL, stderr=CAPTURE)
    assert caught.value.last_words == "ü" * (LAST_WORDS // 2 - 1) + "!"


def test_the_constant_is_one_object() -> None:
    assert pickle.loads(pickle.dumps(CAPTURE)) is CAPTURE
    assert repr(CAPTURE) == "CAPTURE"


# ---- whose the descriptors are --------------------------------------------------------------------------------------


def captured_in_a_memfd() -> tuple[list[Task[Any]], list[int]]:
    """A task that has ended, in a list that holds it alone, and the numbers of its captured files."""
    task = clone(speak, stdout=CAPTURE, stderr=CAPTURE)
    task.wait(10)
    return [task], [fd for fd, file in descriptors().items() if "taskclone-std" in file]


def occupy(numbers: list[int]) -> None:
    for number in numbers:
        os.dup2(0, number)


def still_open(numbers: list[int]) -> bool:
    return all(number in descriptors() for number in numbers)


def test_a_task_with_a_file_table_of_its_own_leaves_them_to_the_creator() -> None:
    holder, numbers = captured_in_a_memfd()
    assert len(numbers) == 2

    def body() -> tuple[str, bool]:
        occupy(numbers)
        with pytest.raises(UnsupportedOperation, match="file table") as caught:
            holder[0].stdout  # noqa: B018
        answer = str(caught.value)
        del caught  # the traceback holds the task
        holder.clear()
        gc.collect()
        return answer, still_open(numbers)

    assert call(body, flags="VM", timeout=10)[1], "the task's own files of these numbers"
    with clone(int):  # a start closes what was left
        pass
    assert not any("taskclone-std" in file for file in descriptors().values())


def test_a_copy_that_has_none_of_them_closes_no_other_file() -> None:
    holder, numbers = captured_in_a_memfd()
    copy = fork(setup=ChildSetup(close_fds=True))
    if copy is None:
        occupy(numbers)
        try:
            holder[0].stdout  # noqa: B018
        except UnsupportedOperation:
            holder.clear()
            gc.collect()
            os._exit(0 if still_open(numbers) else 9)
        os._exit(8)
    assert copy.result(10) == 0
    assert holder[0].stdout == b"said\n"


def test_a_copy_that_shares_them_leaves_them_open() -> None:
    holder, numbers = captured_in_a_memfd()

    def body() -> bytes | None:
        said = holder[0].stdout
        holder.clear()
        gc.collect()
        return said

    assert call(body, flags="FILES", bare=True, timeout=10) == b"said\n"
    assert still_open(numbers)
    assert (holder[0].stdout, holder[0].stderr) == (b"said\n", b"complained\n")
