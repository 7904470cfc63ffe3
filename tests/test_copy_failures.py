"""Copies that cannot be made: the error names the step, its likely cause, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from creator import run
from proc import children_of, until
from taskclone import ChildSetup, CloneFlags, StartError, call, clone
from test_corners import no_descriptors_left

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
RELAY_AND_BARE = pytest.mark.parametrize("fields", [{}, {"bare": True}], ids=["relay", "bare"])

PRELUDE = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import ctypes, errno, seccomp
from proc import children_of, descriptors
libc = ctypes.CDLL(None, use_errno=True)
def never(): say("a body ran")
def attempt(**fields):
    before = descriptors()
    try:
        clone(never, **fields).wait()
    except StartError as error:
        say(error.step, errno.errorcode[error.errno], error.advice)
    assert descriptors() == before, (before, descriptors())
    assert children_of(os.getpid()) == {{}}
    try: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | 0x40000000)
    except ChildProcessError: pass
    else: say("something is left")
"""


def lines_of(script: str, *options: str) -> list[str]:
    status, out, err = run(PRELUDE + script, *options)
    assert (status, err) == (0, "")
    return out.splitlines()


def test_a_namespace_that_an_ordinary_user_may_not_have() -> None:
    script = """
if os.geteuid() == 0: os.setuid(65534)
attempt(flags="NEWNET")
attempt(flags="NEWUTS", bare=True)
"""
    lines = lines_of(script)
    assert [line.split()[:2] for line in lines] == [["clone3", "EPERM"]] * 2
    assert all("NEWUSER" in line for line in lines)


def test_the_limit_of_namespaces() -> None:
    """In a user namespace of its own, where it may set the limit."""
    if subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make user namespaces here")
    script = """
ids = os.getuid(), os.getgid()
assert libc.unshare(0x10000000) == 0, ctypes.get_errno()
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write(f"0 {ids[0]} 1")
open("/proc/self/gid_map", "w").write(f"0 {ids[1]} 1")
open("/proc/sys/user/max_uts_namespaces", "w").write("0")
attempt(flags="NEWUTS")
attempt(flags="NEWUTS", bare=True)
say(call(abs, -1, flags="NEWIPC"))
"""
    *failed, fine = lines_of(script)
    assert [line.split()[:2] for line in failed] == [["clone3", "ENOSPC"]] * 2
    assert all("user.max_" in line for line in failed)
    assert fine == "1"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EINVAL])
def test_a_clone3_that_is_refused(number: int) -> None:
    script = f"""
seccomp.refuse("clone3", {number})
attempt(flags="UNTRACED")
attempt(flags="VFORK")
attempt(bare=True)
attempt(flags="FILES")
try: fork("UNTRACED")
except StartError as error: say(error.step, errno.errorcode[error.errno])
say(call(abs, -1))
"""
    *failed, fine = lines_of(script)
    assert [line.split()[:2] for line in failed] == [["clone3", errno.errorcode[number]]] * 5
    assert fine == "1", "a plain fork has nothing to do with it"


def test_a_fork_that_is_refused() -> None:
    script = """
seccomp.refuse("clone", errno.EAGAIN)
attempt()
attempt(flags="UNTRACED")
say(call(abs, -1, bare=True))
"""
    *failed, fine = lines_of(script)
    assert [line.split()[:2] for line in failed] == [["fork", "EAGAIN"]] * 2
    assert fine == "1"


@pytest.mark.parametrize("flags", [F.UNTRACED, F.VFORK, F.NEWUSER | F.NEWPID], ids=str)
def test_without_a_descriptor_for_the_pidfd_a_relay_leaves_nothing(flags: F) -> None:
    ran: list[int] = []
    with no_descriptors_left(), pytest.raises((StartError, OSError)) as refused:
        clone(ran.append, 1, flags=flags)
    assert refused.value.errno == errno.EMFILE
    assert children_of(os.getpid()) == {}
    assert not ran


@RELAY_AND_BARE
def test_a_handler_that_fails_is_the_setups_failure(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(dict[str, str]):
        def clear(self) -> None:
            raise RuntimeError("no")

    monkeypatch.setattr(os, "environ", Broken(os.environ))
    with pytest.raises(StartError) as caught:
        clone(int, setup=ChildSetup(environment={"A": "b"}), **{"flags": F.UNTRACED, **fields})
    assert (caught.value.step, caught.value.errno) == ("environment", errno.EINVAL)
    assert "RuntimeError: no" in capfd.readouterr().err


# ---- libc's id of the thread ----------------------------------------------------------------------------------------


def test_without_the_kernels_word_glibcs_own_says_where_the_id_is() -> None:
    """PR_GET_TID_ADDRESS comes with CONFIG_CHECKPOINT_RESTORE; without it, what glibc tells debuggers."""
    if "TASKCLONE_BUILD" not in os.environ:
        pytest.skip("needs the C test library: `make test`")
    script = """
library = ctypes.CDLL(os.environ["TASKCLONE_BUILD"] + "/csrc/testing/libcopies.so")
seccomp.refuse("prctl", errno.EINVAL, 40)
place = ctypes.c_void_p()
assert libc.prctl(40, ctypes.byref(place)) == -1
for fields in ({"flags": "UNTRACED"}, {"flags": "NEWUSER|NEWPID"}, {"bare": True}, {"flags": "FILES"}):
    say(call(lambda: library.owner_of_a_lock() == threading.get_native_id(), **fields))
"""
    assert lines_of(script) == ["True"] * 4


# ---- where the creator's children are elsewhere ---------------------------------------------------------------------


@pytest.mark.root
def test_after_unshare_of_the_pid_namespace() -> None:
    """The ids that the process in the middle sees mean nothing to the creator: said, not guessed."""
    for fields in ("flags=''", "bare=True"):
        script = f"""
assert libc.unshare(0x20000000) == 0, ctypes.get_errno()
attempt(flags="UNTRACED")
say(call(os.getpid, {fields}))
"""
        refused, plain = lines_of(script)
        assert refused.startswith("relay ESRCH the creator's children go to another PID namespace")
        assert plain == "1", "the namespace is still to be had"


@pytest.mark.root
def test_a_task_in_a_pid_namespace_makes_relays_of_its_own() -> None:
    def inner() -> tuple[int, int]:
        task = clone(os.getppid, flags=F.UNTRACED)
        return task.pid, task.result(10)

    def outer() -> tuple[int, int, int]:
        return (*inner(), os.getpid())

    pid, parent, own = call(outer, flags=F.NEWPID, timeout=20)
    assert (parent, own) == (1, 1)
    assert pid in (2, 3, 4), "numbers of that namespace"


def test_a_creator_that_is_init_does_not_take_its_childs_tasks_for_its_own() -> None:
    """A copy in a new PID namespace has the same id as a creator that is init: 1."""
    script = """
def init():
    me = os.getpid()
    with open(os.devnull) as file:
        r, w = os.pipe()
        other = clone(os.read, r, 1)
        def inner():
            try: other.wait()
            except ChildProcessError: return os.getpid()
        seen = call(inner, flags="NEWPID")
        os.write(w, b"x")
        other.result()
        return me, seen
say(call(init, flags="NEWUSER|NEWPID", timeout=15))
"""
    if subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make user namespaces here")
    assert lines_of(script) == ["(1, 1)"]


def test_a_relay_whose_middle_is_killed_is_a_failed_start() -> None:
    """By a hook of the C library's kind: nothing else runs in the middle. Here a filter that kills at its clone3."""
    script = """
import struct
def kill_at_clone3():
    BPF = struct.Struct("HBBI").pack
    code = BPF(0x20, 0, 0, 0) + BPF(0x15, 0, 1, 435) + BPF(0x06, 0, 0, 0x80000000) + BPF(0x06, 0, 0, 0x7FFF0000)
    program = ctypes.create_string_buffer(code)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(program)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(317 if os.uname().machine == "x86_64" else 277, 1, 0, header) == 0
kill_at_clone3()
began = time.monotonic()
attempt(flags="UNTRACED")
attempt(flags="VFORK")
assert time.monotonic() - began < 5
say(call(abs, -1))
"""
    *failed, fine = lines_of(script)
    assert [line.split()[:2] for line in failed] == [["relay", "ECHILD"]] * 2
    assert "was killed" in failed[0]
    assert fine == "1"


def test_a_foreign_wait_may_take_the_one_in_the_middle() -> None:
    """Another thread that waits for any child: the start goes on, and the task's status is what the pidfd kept."""
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
stop = False
taken = []
def reaper():
    while not stop:
        try: taken.append(os.waitpid(-1, os.WNOHANG)[0])
        except ChildProcessError: pass
thread = threading.Thread(target=reaper)
thread.start()
for _ in range(30):
    assert call(abs, -1, flags="UNTRACED") == 1
stop = True
thread.join()
say(len({pid for pid in taken if pid}) > 0)
"""
    assert lines_of(script) == ["True"]


def test_with_sigchld_ignored() -> None:
    script = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for fields in ({"flags": "UNTRACED"}, {"flags": "VFORK"}, {"bare": True}):
    task = clone(abs, -1, **fields)
    say(task.result(10), task.wait(10).code)
"""
    assert lines_of(script) == ["1 0"] * 3


def test_starts_are_not_slow_where_they_fail() -> None:
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(StartError):
            clone(int, flags=F.UNTRACED, stdout=98765)
    assert time.monotonic() - began < 5
    until(lambda: children_of(os.getpid()) == {}, "reaped")
    assert call(abs, -1, flags=F.UNTRACED) == 1
