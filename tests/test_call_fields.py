"""What the call itself is given beside the flags: ids that are asked for, a control group; and NNP, which may be done
another way."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from taskclone import CAPTURE, THREAD, CloneFlags, FlagError, Plan, StartError, call, clone
from taskclone.rule import running_kernel

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
ROUTES = {
    "plain": F(0),
    "relay": F.UNTRACED,
    "bare": F.FILES,
    "shared": F.VM | F.FILES,
    "in_place": F.VM | F.VFORK,
    "thread": THREAD,
    "thread_by_clone": THREAD | F.UNTRACED,
}
BY_ROUTE = pytest.mark.parametrize("flags", ROUTES.values(), ids=ROUTES.keys())
NO_THREADS = pytest.mark.parametrize("flags", list(ROUTES.values())[:5], ids=list(ROUTES)[:5])

# ---- set_tid --------------------------------------------------------------------------------------------------------


def free_id() -> int:
    """One that nobody has had lately."""
    top = int(Path("/proc/sys/kernel/pid_max").read_text())
    return next(number for number in range(top - 1, 1, -7) if not Path(f"/proc/{number}").exists())


@pytest.mark.root
@BY_ROUTE
def test_an_id_of_ones_choice(flags: F) -> None:
    number = free_id()
    task = clone(threading.get_native_id, flags=flags, set_tid=number)
    assert task.result(10) == number == task.tid
    task.wait(10)


@pytest.mark.root
@BY_ROUTE
def test_an_id_that_is_taken(flags: F) -> None:
    ran: list[int] = []
    for number in (1, os.getpid()):
        with pytest.raises(StartError, match="another task's") as caught:
            call(ran.append, 1, flags=flags, set_tid=number)
        assert (caught.value.errno, caught.value.step) == (errno.EEXIST, "clone3")
    with pytest.raises(StartError, match="PID namespaces") as caught:
        call(ran.append, 1, flags=flags, set_tid=[free_id()] * 32)
    assert caught.value.errno == errno.EINVAL
    assert ran == []


@pytest.mark.root
def test_ids_in_several_namespaces_and_for_programs() -> None:
    number = free_id()
    task = clone(os.getpid, flags=F.NEWPID, set_tid=[1, number])
    assert (task.result(10), task.pid) == (1, number)
    task.wait(10)
    with clone(["sh", "-c", "echo $$"], set_tid=free_id(), stdout=CAPTURE) as program:
        assert program.result(10) == 0
        assert program.stdout is not None
        assert int(program.stdout) == program.pid


@BY_ROUTE
def test_an_ordinary_user_may_not_choose(flags: F) -> None:
    if os.geteuid() == 0:
        pytest.skip("for who has the privilege, see above")
    with pytest.raises(StartError) as caught:
        call(int, flags=flags, set_tid=free_id())
    assert caught.value.errno == errno.EPERM


BAD_IDS: list[tuple[Any, type[Exception]]] = [
    (0, ValueError), (-4, ValueError), ((1 << 22) + 1, ValueError), ([], ValueError), ([5] * 33, ValueError),
    ("5", TypeError), (True, TypeError), ([5, "6"], TypeError), (5.0, TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("value", "error"), BAD_IDS, ids=str)
def test_bad_ids(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="set_tid"):
        Plan(set_tid=value)


# ---- control groups -------------------------------------------------------------------------------------------------


def own_group() -> str:
    return next(line for line in Path("/proc/thread-self/cgroup").read_text().splitlines() if line.startswith("0::"))


@NO_THREADS
def test_in_a_group_from_birth(group: Path, flags: F) -> None:
    before = own_group()
    for given in (group, str(group), os.fsencode(group)):
        assert call(own_group, flags=flags, cgroup=given).endswith(f"/{group.name}")
    fd = os.open(group, os.O_PATH)
    try:
        task = clone(own_group, flags=flags, cgroup=fd)
        assert task.result(10).endswith(f"/{group.name}")
        assert task.granted.flags & F.INTO_CGROUP
        task.wait(10)
    finally:
        os.close(fd)
    assert own_group() == before


def test_a_program_in_a_group(group: Path) -> None:
    with clone(["cat", "/proc/self/cgroup"], cgroup=group, stdout=CAPTURE) as task:
        assert task.result(10) == 0
        assert task.stdout is not None
        assert f"/{group.name}\n" in task.stdout.decode()


@NO_THREADS
def test_what_is_no_group(tmp_path: Path, flags: F) -> None:
    ran: list[int] = []
    for given, step, number in (
        (tmp_path, "clone3", errno.EBADF),
        (1 << 20, "clone3", errno.EBADF),
        (tmp_path / "none", "cgroup", errno.ENOENT),
        ("/dev/null", "cgroup", errno.ENOTDIR),
    ):
        with pytest.raises(StartError) as caught:
            call(ran.append, 1, flags=flags, cgroup=given)
        assert (caught.value.step, caught.value.errno) == (step, number)
    assert ran == []


def test_a_group_that_is_gone(group: Path) -> None:
    inner = group / "inner"
    inner.mkdir()
    fd = os.open(inner, os.O_RDONLY | os.O_DIRECTORY)
    inner.rmdir()
    try:
        with pytest.raises(StartError, match="removed") as caught:
            call(int, cgroup=fd)
    finally:
        os.close(fd)
    assert caught.value.errno in (errno.ENODEV, errno.ENOENT)


def test_the_flag_and_the_group_belong_together() -> None:
    with pytest.raises(FlagError, match="cgroup=") as caught:
        Plan("INTO_CGROUP")
    assert (caught.value.errno, caught.value.rule) == (errno.EBADF, "cgroup-descriptor")
    with pytest.raises(FlagError, match=r"cgroup\.threads") as caught:
        Plan(THREAD, cgroup="/sys/fs/cgroup")
    assert (caught.value.errno, caught.value.rule) == (errno.EOPNOTSUPP, "thread-into-cgroup")
    plan = Plan("NEWUTS", cgroup="/sys/fs/cgroup")
    assert plan.flags == F.NEWUTS | F.INTO_CGROUP
    assert plan == Plan("NEWUTS|INTO_CGROUP", cgroup="/sys/fs/cgroup") != Plan("NEWUTS")
    for value, error in ((-1, ValueError), (True, TypeError), (1.5, TypeError), ("a\0b", ValueError)):
        with pytest.raises(error, match="cgroup"):
            Plan(cgroup=value)  # type: ignore[arg-type]


# ---- NNP ------------------------------------------------------------------------------------------------------------


def has_no_new_privs() -> bool:
    return "NoNewPrivs:\t1" in Path("/proc/thread-self/status").read_text()


@NO_THREADS
def test_no_new_privileges(flags: F) -> None:
    task = clone(has_no_new_privs, flags=flags | F.NNP)
    assert task.result(10)
    assert task.flags & F.NNP
    by_flag = running_kernel() >= (7, 1)
    assert bool(task.granted.flags & F.NNP) == by_flag
    assert ("NNP" in task.emulated) != by_flag
    assert by_flag or "PR_SET_NO_NEW_PRIVS" in task.emulated["NNP"]
    task.wait(10)
    assert not has_no_new_privs()


def test_no_new_privileges_for_programs() -> None:
    with clone(["grep", "-q", "NoNewPrivs:.1", "/proc/self/status"], flags="NNP") as task:
        assert task.result(10) == 0


def test_not_for_a_thread() -> None:
    with pytest.raises(FlagError, match="CLONE_NNP is not for a single thread"):
        Plan(THREAD | F.NNP)


def test_explain_says_how_it_is_done() -> None:
    if running_kernel() < (7, 1):
        text = Plan("NNP").explain()
        assert "CLONE_NNP: by prctl(2)" in text
        assert "rules: none is broken" in text
        assert "a function: fork" in text
    assert "cannot say set_tid" in Plan(THREAD, set_tid=5).explain()
