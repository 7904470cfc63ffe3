"""The creator's end, by whatever way: the interpreter's exit, sys.exit, os._exit, a signal, execve. And its forks."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from creator import TIMEOUT, finish, run, start
from proc import gone, until

ROUTES = pytest.mark.parametrize("flags", ["PROCESS", "SHARED", "THREAD"])


# ---- the interpreter's exit -----------------------------------------------------------------------------------------


@ROUTES
def test_exit_waits_for_tasks(flags: str) -> None:
    script = f"""
def body():
    time.sleep(0.3)
    say("body done")
task = clone(body, flags={flags})
say("main done")
"""
    assert run(script) == (0, "main done\nbody done\n", "")


def test_exit_waits_for_programs() -> None:
    assert run('task = clone(["sh", "-c", "sleep 0.2; echo program done"]); say("main done")') == (
        0,
        "main done\nprogram done\n",
        "",
    )


@pytest.mark.parametrize("flags", ["PROCESS", "SHARED", "THREAD", "program"])
def test_exit_ends_daemons_at_once(flags: str) -> None:
    body, flags = ('["sleep", "100"]', "PROCESS") if flags == "program" else ("time.sleep, 100", flags)
    began = time.monotonic()
    status, out, err = run(f"task = clone({body}, flags={flags}, daemon=True); say(task.pid, os.getpid())")
    assert (status, err) == (0, "")
    assert time.monotonic() - began < 5
    pid, creator = map(int, out.split())
    assert gone(pid)
    assert gone(creator)


def test_exit_ends_a_daemon_that_computes() -> None:
    script = """
def spin():
    while True:
        pass
task = clone(spin, flags=SHARED, daemon=True)
say(task.pid)
"""
    status, out, err = run(script)
    assert (status, err) == (0, "")
    assert gone(int(out))


def test_exit_after_all_sorts_of_tasks_is_quick() -> None:
    script = """
import ctypes
for flags in (PROCESS, SHARED, SHARED | VFORK, THREAD):
    assert call(abs, -1, flags=flags) == 1
for flags in (PROCESS, SHARED, SHARED | VFORK):
    for body in (lambda: ctypes.string_at(0), lambda: os._exit(3), lambda: os.abort()):
        assert isinstance(clone(body, flags=flags).exception(), TaskDied)
task = clone(time.sleep, 100, flags=SHARED)
task.kill()
say("at the end", time.monotonic())
"""
    status, out, err = run(script)
    assert (status, err) == (0, "")
    assert time.monotonic() - float(out.split()[-1]) < 5


def test_a_daemon_that_cannot_be_ended_does_not_hold_up_the_exit_for_ever() -> None:
    script = """
from taskclone.routes import shared
shared.END_TIMEOUT = 0.5
def busy():
    while True:
        pass
begun = []
def stubborn():
    begun.append(1)
    while True:
        try:
            while True:
                try:
                    busy()
                except BaseException:
                    pass
        except BaseException:
            pass
task = clone(stubborn, flags=SHARED, daemon=True)
say(task.pid)
while not begun: time.sleep(0.001)
time.sleep(0.1)
"""
    status, out, err = run(script)
    assert status == 1
    assert "stubborn" in err
    assert "without finalizing" in err
    until(lambda: gone(int(out)), "the task ended with its creator")


def test_no_shared_task_is_started_during_the_exit() -> None:
    script = """
import atexit
def late():
    try:
        call(abs, -1, flags=SHARED)
    except UnsupportedOperation as error:
        say(error)
atexit.register(late)
import taskclone.routes.shared as shared
atexit.unregister(shared.end_all)
atexit.register(shared.end_all)
"""
    status, out, err = run(script)
    assert (status, err) == (0, "")
    assert "interpreter is ending" in out


@pytest.mark.parametrize("flags", ["SHARED", "PROCESS", "THREAD"])
def test_ctrl_c_while_waiting_for_a_result(flags: str) -> None:
    script = f"""
signal.signal(signal.SIGINT, signal.default_int_handler)
task = clone(time.sleep, 0.5, flags={flags})
try:
    say(task.pid)
    task.result()
except KeyboardInterrupt:
    say("interrupted")
say(task.result())
"""
    process = start(script)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "interrupted\nNone\n", "")


# ---- abrupt ends ----------------------------------------------------------------------------------------------------

SLEEPERS = """
def spin():
    while True:
        pass
tasks = [clone(time.sleep, 100, flags=flags) for flags in (SHARED, CloneFlags.VM, SHARED | CloneFlags.FS)]
tasks += [clone(spin, flags=SHARED), clone(os.read, os.pipe()[0], 1, flags=SHARED)]
say(*[task.pid for task in tasks])
"""

IN_EVERY_WAY = (
    """
dies = ChildSetup(parent_death_signal=signal.SIGKILL)
copies = [clone(time.sleep, 100, setup=dies), clone(time.sleep, 100, bare=True, setup=dies)]
say(*[task.pid for task in [*copies, clone(["sleep", "100"], setup=dies)]])
"""
    + SLEEPERS
    + """
own = THREAD & ~(CloneFlags.FS | CloneFlags.FILES)
say(*[clone(time.sleep, 100, flags=flags).tid for flags in (THREAD, own)])
def in_place():
    clone(lambda: (say(os.getpid()), time.sleep(100)), flags=SHARED | VFORK)
threading.Thread(target=in_place).start()
sys.stdin.readline()
"""
)
"""Copies and a program, which live on unless they are asked not to; a task of each way to share memory, two threads."""


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("os._exit(5)", 5),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.execv('/bin/sh', ['sh', '-c', 'exit 6'])", 6),
        ("os.execv('/bin/sleep', ['sleep', '0.5'])", 0),
        ("threading.Thread(target=os._exit, args=(7,)).start(); time.sleep(100)", 7),
    ],
)
def test_no_task_outlives_its_creator(how: str, status: int) -> None:
    process = start(IN_EVERY_WAY + how, stdin=subprocess.PIPE)
    assert process.stdout is not None
    pids = [int(pid) for _ in range(4) for pid in process.stdout.readline().split()]
    assert len(pids) == 3 + 5 + 2 + 1
    assert not any(map(gone, pids))
    copies = pids[:3] if "exec" in how else []  # their creator lives on, with another program in it
    out, err = process.communicate("go on\n", timeout=TIMEOUT)
    assert (process.returncode, out, err) == (status, "", "")
    until(lambda: all(map(gone, set(pids) - set(copies))), "all tasks ended")
    until(lambda: all(map(gone, pids)), "and the copies, with the program that took their creator's place")


def test_sys_exit_ends_daemons() -> None:
    script = SLEEPERS.replace("flags=flags", "flags=flags, daemon=True")
    script = script.replace("flags=SHARED)", "flags=SHARED, daemon=True)")
    status, out, err = run(script + "sys.exit(4)")
    assert (status, err) == (4, "")
    assert all(gone(int(pid)) for pid in out.split())


# ---- forks of the creator -------------------------------------------------------------------------------------------


def test_idle_hosts_do_not_make_a_fork_warn_and_starts_work_on_both_sides() -> None:
    script = """
clone(abs, -1, flags=SHARED).wait()  # the host is parked by then
assert stats()["idle_hosts"] == 1
for round in range(3):
    pid = os.fork()
    if not pid:
        assert stats()["hosts"] == 0, stats()
        assert call(abs, -2, flags=SHARED) == 2
        assert call(abs, -2, flags=SHARED | VFORK) == 2
        assert call(abs, -2) == 2
        assert call(["true"]) == 0
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert clone(abs, -3, flags=SHARED).wait().code == 0
say("fine")
"""
    assert run(script, "-W", "always") == (0, "fine\n", "")


def test_a_fork_right_after_a_result_does_not_warn() -> None:
    """The host has not parked yet when the result is there."""
    script = """
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for round in range(200):
        assert call(abs, -1, flags=SHARED) == 1
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
say("warned", len(seen))
"""
    assert run(script) == (0, "warned 0\n", "")


def test_a_copied_start_after_shared_ones_does_not_warn() -> None:
    script = """
for round in range(3):
    assert call(abs, -1, flags=SHARED) == 1
    assert call(abs, -2) == 2
say("fine")
"""
    assert run(script, "-W", "always") == (0, "fine\n", "")


def test_a_fork_beside_a_living_task() -> None:
    script = """
r, w = os.pipe()
task = clone(os.read, r, 1, flags=SHARED)
task.pid
pid = os.fork()
if not pid:
    assert call(abs, -2, flags=SHARED) == 2
    os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
os.write(w, b"x")
assert task.result(10) == b"x"
say("fine")
"""
    assert run(script, "-W", "ignore::DeprecationWarning") == (0, "fine\n", "")


def test_a_task_of_the_parent_cannot_be_used_in_a_forks_child() -> None:
    script = """
r, w = os.pipe()
tasks = [clone(os.read, r, 1, flags=SHARED), clone(os.read, r, 1), clone(["cat"], stdin=r)]
[task.pid for task in tasks]
pid = os.fork()
if not pid:
    for task in tasks:
        for use in (task.wait, task.result, task.kill, task.terminate, lambda: task.send_signal(0)):
            try:
                use()
            except ChildProcessError as error:
                say(task.route, "refused")
            except BaseException as error:
                say(task.route, use, "gave", repr(error))
            else:
                say(task.route, use, "gave no error")
    os._exit(0)
os.waitpid(pid, 0)
[task.kill() for task in tasks]
"""
    status, out, err = run(script, "-W", "ignore::DeprecationWarning")
    assert (status, err) == (0, "")
    assert out == "shared refused\n" * 5 + "copied refused\n" * 5 + "program refused\n" * 5
