"""fork(): both go on from the call, in every form; as os.fork where it is that, and with a Task to wait for."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest

from creator import run
from proc import children_of, pipe, state_of, until
from taskclone import ChildSetup, CloneFlags, StartError, Task, TaskDied, clone, fork

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
FLAGS = pytest.mark.parametrize("flags", [F(0), F.UNTRACED, F.NEWUSER | F.NEWPID], ids=["fork", "relay", "namespaces"])
"""Bare forms are in processes of their own, below: other threads may be alive in this one."""


def leave(code: int) -> NoReturn:
    """The end of a copy: nothing of pytest's must run in it."""
    os._exit(code)


@FLAGS
def test_both_go_on_and_the_task_gives_the_exit_code(flags: F) -> None:
    local = ["before"]
    task = fork(flags)
    if task is None:
        local.append("in the copy")
        leave(len(local) + 40)
    assert local == ["before"]
    assert isinstance(task, Task)
    assert set(children_of(os.getpid())) == {task.pid}
    assert task.result(10) == 42
    assert (task.wait().code, task.wait().source) == (42, "wait")
    assert task.granted.exit_signal == signal.SIGCHLD
    assert task.granted.flags & flags == flags
    assert (task.route, task.flags) == ("copied", flags)


@FLAGS
def test_the_copy_is_alone_and_knows_itself(flags: F) -> None:
    with pipe() as (read_end, write_end):
        task = fork(flags)
        if task is None:
            here = [
                len(threading.enumerate()),
                threading.current_thread() is threading.main_thread(),
                os.getppid(),
                threading.get_native_id() == os.getpid(),
            ]
            os.write(write_end, repr(here).encode())
            leave(0)
        assert task.result(10) == 0
        expected = [1, True, 0 if flags & F.NEWPID else os.getpid(), True]
        assert os.read(read_end, 1000) == repr(expected).encode()


@FLAGS
def test_random_numbers_are_its_own(flags: F) -> None:
    random.seed(5)
    expected = random.getstate()
    random.seed(5)
    task = fork(flags)
    if task is None:
        leave(random.getstate() == expected)
    assert task.result(10) == 0


@FLAGS
def test_a_death_by_a_signal(flags: F) -> None:
    task = fork(flags)
    if task is None:
        signal.pause()
        leave(1)
    task.kill()
    with pytest.raises(TaskDied) as died:
        task.result(10)
    assert died.value.signal == signal.SIGKILL
    task = fork(flags & ~F.NEWPID)
    if task is None:
        signal.pause()
        leave(1)
    task.terminate()
    assert task.wait(0).signal == signal.SIGTERM, "what os.fork's child would do"


@FLAGS
def test_a_setup_is_done_before_the_copy_goes_on(flags: F, tmp_path: Path) -> None:
    setup = ChildSetup(
        cwd="/",
        environment={"ONLY": "this"},
        signals={signal.SIGUSR1: "ignore"},
        sigmask={signal.SIGUSR2},
        parent_death_signal=signal.SIGKILL,
    )
    task = fork(flags, setup)
    if task is None:
        good = (
            os.getcwd() == "/"
            and dict(os.environ) == {"ONLY": "this"}
            and signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
            and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR2}
        )
        leave(20 if good else 1)
    assert task.result(10) == 20
    assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@FLAGS
def test_a_step_that_fails_leaves_no_copy(flags: F, tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        fork(flags, ChildSetup(cwd=tmp_path / "missing"))
    assert (caught.value.step, caught.value.errno) == ("chdir", errno.ENOENT)
    assert caught.value.filename == str(tmp_path / "missing")
    assert children_of(os.getpid()) == {}


@FLAGS
def test_the_creators_tasks_are_not_the_copys(flags: F) -> None:
    with pipe() as (read_end, write_end):
        tasks = [clone(os.read, read_end, 1, flags=which) for which in (0, "VM|FILES", "UNTRACED")]
        ended = clone(abs, -3)
        ended.wait(10)
        task = fork(flags)
        if task is None:
            refused = 0
            for other in tasks:
                for use in (other.wait, other.result, other.kill):
                    try:
                        use()
                    except ChildProcessError:
                        refused += 1
            leave(100 + refused + (ended.result() if ended.wait().code == 0 else 0))
        os.write(write_end, b"xxx")
        assert [other.result(10) for other in tasks] == [b"x"] * 3
        assert task.result(20) == 112
        for other in tasks:
            other.wait(10)


@FLAGS
def test_the_copy_has_tasks_of_its_own(flags: F) -> None:
    clone(int, flags="VM|FILES").wait(10)  # its host idles, and is not in the copy
    task = fork(flags)
    if task is None:
        inner = fork()
        if inner is None:
            leave(3)
        leave(inner.result() + clone(abs, -4, flags="VM|FILES").result() + clone(abs, -5).result())
    assert task.result(20) == 12


def test_streams_are_flushed_first(capfd: pytest.CaptureFixture[str]) -> None:
    print("once", end="")
    task = fork()
    if task is None:
        print(",copy", end="", flush=True)
        leave(0)
    task.wait(10)
    print(",here", end="", flush=True)
    assert capfd.readouterr().out == "once,copy,here"


def test_a_thread_may_fork_and_is_warned() -> None:
    results: list[Any] = []

    def work() -> None:
        with pytest.warns(DeprecationWarning, match="other threads"):
            task = fork()
        if task is None:
            leave(50 + (threading.current_thread() is threading.main_thread()))
        results.append(task.result(10))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [51]


def test_where_there_are_no_descriptors_there_is_no_copy() -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
for flags in ("", "UNTRACED", "FILES", "NEWUSER|NEWPID"):
    try:
        if fork(flags) is None: say("a copy went on")
    except StartError as error: say(error.step, error.errno)
    try: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | 0x40000000)
    except ChildProcessError: pass
    else: say("something is left")
"""
    lines = "pidfd_open 24\npidfd_open 24\nclone3 24\npidfd_open 24\n"
    assert run(script) == (0, lines, "")


# ---- bare -----------------------------------------------------------------------------------------------------------


def test_bare_copies_share_what_they_say_and_run_hooks_that_close_nothing() -> None:
    script = """
creator = os.getpid()
import random
seen = []
os.register_at_fork(before=lambda: seen.append("before"), after_in_child=lambda: seen.append("child"))
call(int, flags=SHARED)
with open(os.devnull) as file:
    state = random.getstate()
    task = fork("FILES|FS")
    if task is None:
        os.chdir("/")
        os.close(file.fileno())
        assert random.getstate() != state
        assert call(abs, -2, flags=SHARED) == 2
        say(*seen, threading.current_thread() is threading.main_thread(), os.getppid() == creator)
        os._exit(6)
    say(task.result(10), os.getcwd(), task.granted)
    try: os.fstat(file.fileno())
    except OSError as error: say(error.strerror)
    os.open(os.devnull, os.O_RDONLY)
"""
    status, out, err = run(script)
    granted = "FS|FILES|PIDFD|CHILD_CLEARTID|CHILD_SETTID"
    assert (status, err) == (0, "")
    assert out == f"before True True\n6 / {granted}\nBad file descriptor\n"


def test_a_copy_ends_as_a_program_does() -> None:
    """Its atexit functions run, its threads are waited for, and it does not wait for its creator's tasks."""
    script = """
import atexit
me = os.getpid()
atexit.register(lambda: say("end of the", "creator" if os.getpid() == me else "copy"))
waits = clone(time.sleep, 0.5)
for flags in ("", "UNTRACED", "FS"):
    task = fork(flags)
    if task is None:
        threading.Thread(target=lambda: (time.sleep(0.05), say("thread"))).start()
        sys.exit(4)
    say(task.result(10))
"""
    assert run(script, "-W", "ignore::DeprecationWarning") == (
        0,
        "thread\nend of the copy\n4\n" * 3 + "end of the creator\n",
        "",
    )


def test_a_copy_that_goes_on_while_its_creator_dies() -> None:
    """It waits for its creator to have a pidfd, and not for ever."""
    script = """
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
def creator():
    for flags in ("", "UNTRACED", "NEWUSER|NEWPID"):
        if fork(flags) is None:
            say("goes on")
            os._exit(0)
    os._exit(0)
clone(creator).wait()
while True:
    try: os.wait()
    except ChildProcessError: break
"""
    status, out, err = run(script, "-W", "ignore::ResourceWarning")
    assert (status, out, err) == (0, "goes on\n" * 3, "")


def test_a_copy_waits_until_its_creator_knows_it() -> None:
    """A hook holds the creator up between the fork and the pidfd; the copy must not have gone on meanwhile."""
    script = """
r, w = os.pipe()
def late():
    time.sleep(0.3)
    os.set_blocking(r, False)
    try: say(os.read(r, 1))
    except BlockingIOError: say("nothing yet")
os.register_at_fork(after_in_parent=late)
task = fork("UNTRACED")
if task is None:
    os.write(w, b"x")
    os._exit(0)
task.wait()
say(os.read(r, 1))
"""
    assert run(script) == (0, "nothing yet\nb'x'\n", "")


def test_a_forgotten_one_is_reaped() -> None:
    task = fork()
    if task is None:
        leave(0)
    pid = task.pid
    until(lambda: state_of(pid) == "Z", "its end")
    del task
    assert state_of(pid) == ""
