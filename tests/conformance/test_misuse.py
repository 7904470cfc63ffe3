"""Misuse that Linux's own tests know: the kernel's errno for it, as this package's exception (see upstream.py)."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import fields as fields_of
from typing import Any

import pytest
from ordinary import IN_A_USER_NAMESPACE
from routes import FUNCTIONS, answer_of, refused
from sets import NAMESPACES

from copyforms import IN_NAMESPACES
from taskclone import FlagError, Plan, StartError, UnsupportedOperation, call, clone
from taskclone.flags import ROWS, THREAD, CloneFlags, flag_names
from taskclone.rule import running_kernel

F = CloneFlags
PLAN_FIELDS = {item.name for item in fields_of(Plan)}
BECOME_ORDINARY = "from ordinary import become_ordinary; become_ordinary()"
PRIVILEGED = [new for new in ROWS if new & NAMESPACES and new != F.NEWUSER and running_kernel() >= ROWS[new].since[:2]]

SETS = [
    F.SIGHAND, F.THREAD, F.VM | F.THREAD, F.FS | F.NEWNS, F.FS | F.NEWUSER, F.VM | F.SIGHAND | F.CLEAR_SIGHAND,
    THREAD | F.NEWPID, THREAD | F.NEWUSER, F.SYSVSEM | F.NEWIPC, F.DETACHED, 1 << 40, 1,
]  # fmt: skip


@pytest.mark.parametrize("flags", SETS, ids=flag_names)
def test_sets_that_clone3_refuses(flags: int) -> None:
    for body in (int, ["/bin/true"]):
        with pytest.raises(FlagError) as caught:
            clone(body, flags=flags)
        assert caught.value.errno == errno.EINVAL
        assert caught.value.rule


@pytest.mark.parametrize("number", [-1, 65, 0xF0, 0x100, 1 << 31, 0xBADC0DED << 32])
def test_exit_signals_that_are_none(number: int) -> None:
    """No case for an errno: a field of a plan is checked as any Python argument."""
    with pytest.raises(ValueError, match="exit_signal"):
        clone(int, flags=F.VM, exit_signal=number)


@pytest.mark.parametrize("flags", [F.PARENT, THREAD], ids=["PARENT", "THREAD"])
def test_an_exit_signal_that_is_not_the_callers_to_choose(flags: F) -> None:
    with pytest.raises(FlagError) as caught:
        clone(int, flags=flags, exit_signal=signal.SIGUSR1)
    assert (caught.value.errno, caught.value.rule) == (errno.EINVAL, "exit-signal-parent-thread")


@pytest.mark.parametrize("size", [0, 4, -1, 1 << 41])
def test_stacks_that_are_none(size: int) -> None:
    with pytest.raises(ValueError, match="stack_size"):
        clone(int, flags=F.VM, stack_size=size)


@pytest.mark.parametrize("body", [None, 0, "ls", b"ls", 1.5])
def test_bodies_that_are_none(body: Any) -> None:
    """What a null pointer is to clone(2), where it is EINVAL."""
    with pytest.raises(TypeError):
        clone(body)


@pytest.mark.parametrize("new", PRIVILEGED, ids=flag_names)
def test_a_namespace_without_the_privilege(new: F) -> None:
    """Only the kernel knows for sure who may what, so it is asked: StartError."""
    answers = answer_of(f"{BECOME_ORDINARY}\n{refused(new)}")
    assert {how for how, _ in answers.values()} <= {"StartError", "UnsupportedOperation", "FlagError"}
    carried = {name: number for name, (how, number) in answers.items() if how == "StartError"}
    assert set(carried.values()) == {"EPERM"}
    refusing = {name for name, (how, _) in answers.items() if how == "FlagError"}
    assert {"relay", "bare", "shared", "in place"} <= carried.keys() | refusing


@IN_NAMESPACES
@pytest.mark.parametrize("new", PRIVILEGED, ids=flag_names)
def test_a_user_namespace_beside_it_gives_the_privilege(new: F) -> None:
    answers = answer_of(f"{BECOME_ORDINARY}\n{refused(new | F.NEWUSER)}")
    assert {answers[name][0] for name in ("fork", "relay", "bare", "shared", "in place")} == {"it started"}


@pytest.mark.parametrize("fields", FUNCTIONS.values(), ids=list(FUNCTIONS))
def test_the_environment_is_the_creators(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCLONE_SEEN", "yes")
    assert call(os.getenv, "TASKCLONE_SEEN", **fields) == "yes"


# ---- set_tid and control groups: as soon as a plan can say them ------------------------------------------------------


@IN_NAMESPACES
def test_a_pid_that_is_taken() -> None:
    """EEXIST; asked for in a PID namespace of the asker's own, in which he may choose."""
    script = """
try: answer = clone(int, set_tid=(1,)).result()
except StartError as error: answer = errno.errorcode[error.errno]
except TypeError as error: answer = "set_tid" in str(error)
"""
    answer = answer_of(script, *IN_A_USER_NAMESPACE, "--pid", "--fork", "--mount-proc")
    assert answer == ("EEXIST" if "set_tid" in PLAN_FIELDS else True)


def test_a_pid_without_the_privilege() -> None:
    """EPERM, also beside a new namespace; CAP_CHECKPOINT_RESTORE would do, too."""
    script = f"""
{BECOME_ORDINARY}
answer = []
for flags in ("0", "NEWPID", "NEWUTS"):
    try: clone(int, flags=flags, set_tid=(1,)).result()
    except StartError as error: answer.append(errno.errorcode[error.errno])
    except TypeError as error: answer.append("set_tid" in str(error))
"""
    assert answer_of(script) == (["EPERM"] if "set_tid" in PLAN_FIELDS else [True]) * 3


@pytest.mark.parametrize("pids", [(0,), (-1,), (1,) * 33, ((1 << 22) + 1,)])
def test_pids_that_are_none(pids: tuple[int, ...]) -> None:
    if "set_tid" not in PLAN_FIELDS:
        pids = (0,)
    wrong = (ValueError, FlagError, StartError) if "set_tid" in PLAN_FIELDS else TypeError
    with pytest.raises(wrong) as caught:
        call(int, set_tid=pids)
    if isinstance(caught.value, OSError):
        assert caught.value.errno == errno.EINVAL


def test_a_control_group_that_is_none(tmp_path: os.PathLike[str]) -> None:
    if "cgroup" not in PLAN_FIELDS:
        with pytest.raises(TypeError, match="cgroup"):
            call(int, cgroup=tmp_path)
        with pytest.raises((UnsupportedOperation, FlagError)):
            call(int, flags=F.INTO_CGROUP)
        return
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(StartError) as caught:
            call(int, cgroup=descriptor)
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(descriptor)


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_the_limit_of_processes() -> None:
    """EAGAIN by each route, for an ordinary user whose limit is what he has already."""
    script = f"""
import resource
{BECOME_ORDINARY}
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
{refused(0)}"""
    assert set(map(tuple, answer_of(script).values())) == {("StartError", "EAGAIN")}


@IN_NAMESPACES
@pytest.mark.parametrize("new", [F.NEWUSER, *PRIVILEGED], ids=flag_names)
def test_the_limit_of_namespaces(new: F) -> None:
    """ENOSPC by each route, in a user namespace of its own in which not one more may be made."""
    (name,) = {path.split("/")[1] for path in ROWS[new].proc if path.startswith("ns/") and "_for_" not in path}
    script = f"""
with open("/proc/sys/user/max_{name}_namespaces", "w") as limit: limit.write("0")
{refused(new)}"""
    answers = answer_of(script, *IN_A_USER_NAMESPACE)
    assert {how for how, _ in answers.values()} <= {"StartError", "UnsupportedOperation", "FlagError"}
    assert {number for how, number in answers.values() if how == "StartError"} == {"ENOSPC"}
    assert {"relay", "bare", "shared", "in place"} <= {
        name for name, (how, _) in answers.items() if how == "StartError"
    }


@IN_NAMESPACES
def test_the_limit_of_nested_pid_namespaces() -> None:
    """32 levels (pid_namespaces(7)), counted from that of the machine's init."""
    script = """
def nest(level):
    try:
        return clone(nest, level + 1, flags="NEWPID").result()
    except StartError as error:
        return level, type(error).__name__, errno.errorcode[error.errno]
answer = nest(0)
"""
    level, how, number = answer_of(script, *IN_A_USER_NAMESPACE)
    assert (how, number) == ("StartError", "ENOSPC")
    assert 0 < level <= 32


@IN_NAMESPACES
def test_a_pid_namespace_whose_init_has_ended() -> None:
    """ENOMEM for every later child (pid_namespaces(7)). A thread, and so a host, cannot even be made then: EINVAL."""
    script = f"""
import ctypes
assert ctypes.CDLL(None).unshare({int(F.NEWPID)}) == 0
clone(int).result()
{refused(0)}"""
    answers = answer_of(script, *IN_A_USER_NAMESPACE)
    assert {name: tuple(answers[name]) for name in ("fork", "bare", "program", "thread")} == {
        "fork": ("StartError", "ENOMEM"), "bare": ("StartError", "ENOMEM"), "program": ("StartError", "ENOMEM"),
        "thread": ("StartError", "EINVAL"),
    }  # fmt: skip
