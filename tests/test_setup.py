"""ChildSetup and streams: every field on every route that carries it, as the kernel sees the task."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import creator
from proc import held, pipe
from taskclone import (
    PROCESS,
    SHARED,
    ChildSetup,
    CloneFlags,
    StartError,
    Task,
    UnsupportedOperation,
    call,
    clone,
)
from taskclone.childsetup import NOTHING

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
FUNCTIONS = pytest.mark.parametrize(
    "flags",
    [PROCESS, F.NEWUSER | F.NEWPID, F.VFORK, F.VM, SHARED & ~F.FILES | F.NEWUSER | F.NEWPID | F.SYSVSEM],
    ids=["copied", "relay", "VFORK", "VM", "namespaces"],
)
FIELDS: dict[str, dict[str, Any]] = {
    "copied": {"flags": PROCESS},
    "relay": {"flags": F.NEWUSER | F.NEWPID},
    "bare": {"flags": PROCESS, "bare": True},
    "bare-FILES": {"flags": F.FILES, "bare": True},
    "bare-NEWPID": {"flags": F.NEWUSER | F.NEWPID, "bare": True},
    "shared": {"flags": F.VM},
}
ROUTES = pytest.mark.parametrize("how", [*FIELDS, "program"])
COPIES = [how for how in FIELDS if how != "shared"]
WAITER = "import sys; sys.stdin.read(1)"


@contextlib.contextmanager
def alive(how: str, setup: ChildSetup) -> Iterator[Task[Any]]:
    """A task of that route with that setup, which waits for the end of the block."""
    if how != "program":
        with held(**FIELDS[how], setup=setup) as task:
            yield task
        return
    with pipe() as (read_end, write_end):
        task = clone([sys.executable, "-c", WAITER], setup=setup, stdin=read_end)
        try:
            yield task
        finally:
            os.write(write_end, b"x")
            task.wait(10)


def masks(pid: int) -> dict[str, int]:
    """SigBlk, SigIgn and SigCgt of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line[:6]: int(line[8:], 16) for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))}


def bit(number: int) -> int:
    return 1 << (number - 1)


# ---- each field, on each route --------------------------------------------------------------------------------------


@ROUTES
def test_cwd(how: str, tmp_path: Path) -> None:
    here = os.getcwd()
    with alive(how, ChildSetup(cwd=tmp_path)) as task:
        assert os.readlink(f"/proc/{task.pid}/cwd") == str(tmp_path)
        assert os.getcwd() == here


@ROUTES
def test_sigmask(how: str) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with alive(how, ChildSetup(sigmask={signal.SIGUSR1, signal.SIGRTMAX})) as task:
        assert masks(task.pid)["SigBlk"] == bit(signal.SIGUSR1) | bit(signal.SIGRTMAX)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@ROUTES
def test_without_one_the_mask_is_the_callers(how: str) -> None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
    try:
        for setup, blocked in ((NOTHING, True), (ChildSetup(cwd="/"), True), (ChildSetup(sigmask=()), False)):
            with alive(how, setup) as task:
                assert bool(masks(task.pid)["SigBlk"] & bit(signal.SIGWINCH)) == blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


@ROUTES
def test_signals(how: str) -> None:
    """Ignored ones are, and defaulted ones do as by default what the creator has another mind of."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN) if how == "shared" else None
    try:
        setup = ChildSetup(signals={signal.SIGUSR1: "ignore", signal.SIGTERM: "ignore", signal.SIGCHLD: "default"})
        with alive(how, setup) as task:
            seen = masks(task.pid)
            ignored = bit(signal.SIGUSR1) | bit(signal.SIGTERM)
            assert seen["SigIgn"] & (ignored | bit(signal.SIGCHLD)) == ignored
            assert not seen["SigCgt"] & (ignored | bit(signal.SIGCHLD))
            task.send_signal(signal.SIGUSR1)
            task.send_signal(signal.SIGTERM)
    finally:
        if how == "shared":
            signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("how", ["copied", "bare", "bare-FILES", "program"])
def test_a_defaulted_signal_ends_the_task(how: str) -> None:
    with alive(how, ChildSetup(signals={signal.SIGTERM: "default"})) as task:
        task.send_signal(signal.SIGTERM)
        assert task.wait(10).signal == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGRTMIN])
def test_no_signal_may_end_a_task_that_shares_memory_wherever_it_is(number: int) -> None:
    """A task that died where it waited for the interpreter lock has hung its creator."""
    with pytest.raises(UnsupportedOperation, match="by default"):
        clone(int, flags=F.VM, setup=ChildSetup(signals={number: "default"}))


@pytest.mark.parametrize("how", COPIES)
def test_the_interpreter_of_a_copied_task_knows_its_signals(how: str) -> None:
    def body() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)]

    setup = ChildSetup(signals={signal.SIGUSR1: "ignore", signal.SIGTERM: "default", signal.SIGINT: "ignore"})
    assert call(body, setup=setup, **FIELDS[how]) == [signal.SIG_IGN, signal.SIG_DFL, signal.SIG_IGN]


def parent_death_signal() -> int:
    """PR_GET_PDEATHSIG of the calling task."""
    number = ctypes.c_int(-1)
    assert ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0) == 0
    return number.value


def test_parent_death_signal_of_functions() -> None:
    assert call(parent_death_signal) == 0
    for number in (signal.SIGUSR1, signal.SIGKILL, signal.SIGRTMIN):
        for how in COPIES:
            assert call(parent_death_signal, setup=ChildSetup(parent_death_signal=number), **FIELDS[how]) == number
    assert call(parent_death_signal, flags=SHARED, setup=ChildSetup(parent_death_signal=signal.SIGKILL)) == 9
    with pytest.raises(UnsupportedOperation, match="SIGKILL"):
        clone(parent_death_signal, flags=SHARED, setup=ChildSetup(parent_death_signal=signal.SIGTERM))


@pytest.mark.parametrize("flags", [0, F.NEWUSER | F.NEWPID], ids=["plain", "NEWPID"])
def test_parent_death_signal_of_a_program(flags: F) -> None:
    """With NEWPID it has no parent that it could ask for."""
    script = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n), 0, 0, 0); exit(n.value)"
    setup = ChildSetup(parent_death_signal=signal.SIGUSR2)
    assert call([sys.executable, "-c", script], flags=flags, setup=setup) == signal.SIGUSR2
    assert call([sys.executable, "-c", script], flags=flags) == 0


@pytest.mark.parametrize("body", ["time.sleep, 60", "['sleep', '60']"])
@pytest.mark.parametrize("dies", ["process", "thread"])
def test_the_death_of_the_creator_is_told(body: str, dies: str) -> None:
    """Of the creator, or of the thread of it that has started the task."""
    code, out, err = creator.run(f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # a fork with a thread beside it
def begin():
    global task
    task = clone({body}, setup=ChildSetup(parent_death_signal=signal.SIGKILL))
def inner():
    begin()
    say(task.pid)
    os._exit(0)
if {dies == "thread"}:
    starter = threading.Thread(target=begin)
    starter.start()
    starter.join()
    say(task.wait(10).signal)
else:
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    clone(inner).wait()
    say(os.WTERMSIG(os.wait()[1]))
""")
    assert (code, err) == (0, "")
    assert out.split()[-1] == "9"


@pytest.mark.parametrize("how", COPIES)
def test_environment_of_a_program_and_of_a_copied_function(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "x")
    setup = ChildSetup(environment={"ONLY": "this", "ÿ": "ü"})

    def body() -> tuple[dict[str, str], str]:
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_char_p
        return dict(os.environ), str([getenv(b"OLD"), getenv(b"ONLY")])

    assert call(body, setup=setup, **FIELDS[how]) == ({"ONLY": "this", "ÿ": "ü"}, "[None, b'this']")
    assert os.environ["OLD"] == "x"
    assert call(lambda: dict(os.environ), setup=ChildSetup(environment={}), **FIELDS[how]) == {}
    argv = ["/bin/sh", "-c", 'test "$ONLY" = this && test -z "$OLD"']
    assert call(argv, setup=setup) == 0


class Broken(dict[str, str]):
    def clear(self) -> None:
        raise RuntimeError("no")


def test_an_environment_that_cannot_be_set_is_a_failed_step(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", Broken(os.environ))
    with pytest.raises(StartError) as caught:
        clone(int, setup=ChildSetup(environment={"A": "b"}))
    assert (caught.value.step, caught.value.errno) == ("environment", errno.EINVAL)
    assert "RuntimeError: no" in capfd.readouterr().err


def test_close_fds_of_a_program() -> None:
    with pipe() as ends:
        os.set_inheritable(ends[0], True)
        argv = ["/bin/sh", "-c", f"test ! -e /proc/self/fd/{ends[0]}"]
        assert call(argv, setup=ChildSetup(close_fds=True)) == 0
        assert call(argv) == 1
        argv = [sys.executable, "-c", "import os; print(*os.listdir('/proc/self/fd')); input()"]
        with pipe() as (out_r, out_w), pipe() as (in_r, in_w):
            task = clone(argv, setup=ChildSetup(close_fds=True), stdin=in_r, stdout=out_w)
            os.write(in_w, b"\n")
            assert task.result(10) == 0
            assert os.read(out_r, 100).split() == [b"0", b"1", b"2", b"3"], "and the folder that it lists"
        os.fstat(ends[0])


@pytest.mark.parametrize("how", ["copied", "relay", "bare", "bare-NEWPID"])
def test_close_fds_of_a_copied_function(how: str) -> None:
    """All but the descriptor that its own outcome goes through: also one that does not fit into a page."""
    with pipe() as ends:

        def body() -> tuple[list[str], bytes]:
            for end in ends:
                with pytest.raises(OSError, match="Bad file"):
                    os.fstat(end)
            opened = filter(_is_open, os.listdir("/proc/self/fd"))
            return [os.readlink(f"/proc/self/fd/{fd}") for fd in opened], b"x" * 99999

        names, data = clone(body, setup=ChildSetup(close_fds=True), **FIELDS[how]).result(10)
        assert [name for name in names[3:] if not name.startswith("/proc")] == ["/memfd:taskclone (deleted)"]
        assert len(data) == 99999
        os.fstat(ends[0])


def _is_open(fd: str) -> bool:
    try:
        os.fstat(int(fd))
    except OSError:
        return False
    return True


# ---- streams of functions -------------------------------------------------------------------------------------------


@FUNCTIONS
def test_streams_of_a_function(flags: F, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a line")

    def body() -> bytes:
        os.write(1, b"out")
        os.write(2, b"err")
        return os.read(0, 100)

    inode = os.fstat(1).st_ino
    with (tmp_path / "in").open() as stdin, (tmp_path / "out").open("w") as stdout:
        assert call(body, flags=flags, stdin=stdin, stdout=stdout, stderr=subprocess.STDOUT) == b"a line"
    assert (tmp_path / "out").read_text() == "outerr"
    assert os.fstat(1).st_ino == inode
    assert call(os.read, 0, 1, flags=flags, stdin=subprocess.DEVNULL) == b""


@FUNCTIONS
def test_print_goes_where_the_streams_go(flags: F, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the creator's buffer gets there, and nothing of the task's to the creator's stream."""
    with (tmp_path / "mine").open("w") as mine, open(1, "w", closefd=False) as stdout:
        keep = os.dup(1)
        os.dup2(mine.fileno(), 1)
        try:
            monkeypatch.setattr(sys, "stdout", stdout)
            stdout.write("before,")
            with (tmp_path / "out").open("w") as out:
                call(print, "in the task", flags=flags, stdout=out)
            print("after")
            stdout.flush()
        finally:
            os.dup2(keep, 1)
            os.close(keep)
    assert (tmp_path / "out").read_text() == "in the task\n"
    assert (tmp_path / "mine").read_text() == "before,after\n"
