"""NNP and EMPTY_MNTNS, which came with Linux 7.1: the first is done another way before, the second is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from kernel_oracle import Oracle, Question

from proc import PATIENCE
from taskclone import SHARED, THREAD, CloneFlags, FlagError, StartError, call, clone
from taskclone.rule import has_sys_admin

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
PRIVILEGE = F(0) if has_sys_admin() else F.NEWUSER
COPIES: dict[str, dict[str, Any]] = {
    "relay": {"flags": F(0)},
    "bare": {"flags": F(0), "bare": True},
    "shared": {"flags": SHARED},
    "in place": {"flags": SHARED | F.VFORK},
}
by_route = pytest.mark.parametrize("fields", COPIES.values(), ids=COPIES)


@pytest.fixture(scope="module")
def new(oracle: Oracle) -> bool:
    """Whether the kernel knows the flags."""
    (answer,) = oracle.ask([Question("clone3", F.NNP)])
    assert answer in (0, errno.EINVAL)
    return answer == 0


def has_no_new_privs() -> bool:
    return "NoNewPrivs:\t1" in Path("/proc/thread-self/status").read_text()


@by_route
def test_no_new_privileges_by_the_flag_or_by_prctl(fields: dict[str, Any], new: bool) -> None:
    task = clone(has_no_new_privs, **fields | {"flags": fields["flags"] | F.NNP})
    assert task.result(PATIENCE)
    assert not has_no_new_privs()
    if new:
        assert (task.granted.flags & F.NNP, task.emulated) == (F.NNP, {})
    else:
        assert not task.granted.flags & F.NNP
        assert "came with Linux 7.1" in task.emulated["NNP"]


def test_no_new_privileges_for_a_program() -> None:
    script = 'while read -r name value; do [ "$name" = NoNewPrivs: ] && exit "$value"; done </proc/self/status; exit 9'
    assert call(["sh", "-c", script], flags="NNP") == 1
    assert call(["sh", "-c", script]) == 0


EMPTY = {name: fields | {"flags": fields["flags"] | F.EMPTY_MNTNS | PRIVILEGE} for name, fields in COPIES.items()}
THREADS = pytest.param({"flags": THREAD & ~F.FS | F.EMPTY_MNTNS}, marks=pytest.mark.root, id="thread")


@pytest.mark.parametrize("fields", [*(pytest.param(f, id=n) for n, f in EMPTY.items()), THREADS])
def test_a_root_directory_with_nothing_in_it(fields: dict[str, Any], new: bool, oracle: Oracle) -> None:
    if PRIVILEGE and not oracle.makes_user_namespaces():
        pytest.skip("this user may make no namespaces")
    ran: list[int] = []
    if new:
        assert call(os.listdir, "/", **fields) == []
        assert "proc" in os.listdir("/")
        return
    with pytest.raises(FlagError, match=r"CLONE_EMPTY_MNTNS came with Linux 7\.1") as caught:
        clone(ran.append, 1, **fields)
    assert (caught.value.errno, caught.value.rule, ran) == (errno.EINVAL, "since-7.1", [])


def test_no_program_is_found_in_it(new: bool, oracle: Oracle) -> None:
    if new and (not PRIVILEGE or oracle.makes_user_namespaces()):
        with pytest.raises(StartError) as caught:
            clone(["true"], flags=F.EMPTY_MNTNS | PRIVILEGE)
        assert (caught.value.step, caught.value.errno) == ("execve", errno.ENOENT)
    else:
        with pytest.raises(FlagError, match=r"CLONE_EMPTY_MNTNS|NEWUSER"):
            clone(["true"], flags=F.EMPTY_MNTNS | PRIVILEGE)


@pytest.mark.root
def test_an_ordinary_user_has_one_with_a_user_namespace(new: bool, oracle: Oracle) -> None:
    if not (new and Oracle(oracle.program, 65534).makes_user_namespaces()):
        pytest.skip("an ordinary user has none here")

    def look() -> list[list[str]]:
        os.setgid(65534)
        os.setuid(65534)
        return [call(os.listdir, "/", flags=F.EMPTY_MNTNS | F.NEWUSER | more) for more in (F(0), F.FILES, F.VM, SHARED)]

    assert call(look) == [[]] * 4
