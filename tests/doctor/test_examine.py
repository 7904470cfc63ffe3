"""The doctor on this very system, as it is and with things taken away from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_args

import pytest

from taskclone import _core
from taskclone.doctor.clonable import needed_beside
from taskclone.doctor.examine import examine
from taskclone.doctor.finding import State
from taskclone.flags import ROWS, CloneFlags
from taskclone.rule import has_sys_admin, running_kernel
from taskclone.rules import Context, broken

ExamineIn = Callable[[str], dict[str, dict[str, Any]]]

ORDINARY = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"


@pytest.mark.usefixtures("nothing_left")
def test_each_finding_is_whole() -> None:
    findings = examine()
    assert len({found.name for found in findings}) == len(findings)
    for found in findings:
        assert found.topic, found
        assert found.value, found
        assert found.state in get_args(State)
        assert len(found.meaning) > 8, found
        assert "\n" not in found.name + found.value + found.meaning
    topics = [found.topic for found in findings]
    assert sorted(topics, key=topics.index) == topics, "a topic is not scattered"


def test_what_these_tests_run_on_is_enough() -> None:
    assert [found.name for found in examine() if found.fails] == []


def test_the_flags_that_the_kernel_takes_are_those_of_the_rules() -> None:
    found = {item.name: item for item in examine()}
    for member, row in ROWS.items():
        if row.kind == "obsolete":
            assert f"CLONE_{member.name}" not in found
            continue
        item = found[f"CLONE_{member.name}"]
        rules = [rule.id for rule in broken(needed_beside(member), Context(privileged=has_sys_admin()))]
        if item.state == "ok":
            assert rules == [], item
        elif item.value.startswith("missing, came with"):
            assert running_kernel() < row.since[:2], item
        elif item.value.startswith("yes with"):
            assert rules, item


def test_flags_that_need_others_are_asked_with_them() -> None:
    F = CloneFlags
    assert needed_beside(F.THREAD) == F.THREAD | F.SIGHAND | F.VM
    assert needed_beside(F.PIDFD_AUTOKILL) == F.PIDFD_AUTOKILL | F.AUTOREAP | F.PIDFD
    assert needed_beside(F.FILES) == F.FILES


def test_a_set_that_the_kernel_refuses_is_told_from_one_that_it_takes() -> None:
    F = CloneFlags
    for by_clone3 in (True, False):
        assert _core.probe_flags(int(F.VM | F.SIGHAND), by_clone3) == 0
        assert os.strerror(_core.probe_flags(int(F.SIGHAND), by_clone3)) == "Invalid argument"


def test_a_name_that_is_no_probe_is_an_error() -> None:
    with pytest.raises(ValueError, match="no probe 'clone4'"):
        _core.probe("clone4")


@pytest.mark.root
def test_an_ordinary_user(examine_in: ExamineIn) -> None:
    found = examine_in(ORDINARY)
    assert found["CAP_SYS_ADMIN"]["state"] == "limited"
    if found["a namespace of one's own"]["state"] == "ok":
        for name in ("NEWUTS", "NEWNS", "NEWPID", "NEWNET", "NEWIPC", "NEWCGROUP"):
            assert found[f"CLONE_{name}"]["value"] == "yes with NEWUSER"
    assert not [item for item in found.values() if item["needed"] and item["state"] == "missing"]


def test_without_clone3(examine_in: ExamineIn) -> None:
    found = examine_in("import errno; seccomp.refuse('clone3', errno.ENOSYS)")
    assert found["clone3"]["value"] == "filtered or left out of this kernel (ENOSYS)"
    assert found["clone3"]["state"] == "limited"
    assert "clone(2)" in found["clone3"]["meaning"]
    assert found["seccomp"]["state"] == "limited"
    assert found["seccomp"]["value"].startswith("in force")
    assert found["no_new_privs"]["state"] == "limited"
    assert found["threads of libc"]["state"] == "ok"
    assert (found["CLONE_NEWTIME"]["state"], found["CLONE_INTO_CGROUP"]["state"]) == ("missing", "missing")
    assert found["CLONE_CLEAR_SIGHAND"]["state"] == "limited"
    for name in ("VM", "FILES", "FS", "SIGHAND", "VFORK", "PIDFD", "PARENT_SETTID", "PTRACE"):
        assert found[f"CLONE_{name}"]["state"] == "ok", name
    assert not [item for item in found.values() if item["needed"] and item["state"] == "missing"]


def test_clone3_filtered_by_eperm_leaves_no_threads(examine_in: ExamineIn) -> None:
    found = examine_in("import errno; seccomp.refuse('clone3', errno.EPERM)")
    assert found["clone3"]["value"] == "filtered or left out of this kernel (EPERM)"
    threads = found["threads of libc"]
    assert (threads["needed"], threads["state"]) == (True, "missing"), "glibc falls back for ENOSYS only"


@pytest.mark.parametrize(
    ("call", "name", "state"),
    [
        ("pidfd_open", "pidfd_open", "limited"),
        ("pidfd_open", "pidfd of a thread", "limited"),
        ("kcmp", "kcmp", "missing"),
        ("close_range", "close_range", "missing"),
        ("ioctl", "PIDFD_GET_INFO", "missing"),
        ("ioctl", "exit status in a pidfd", "limited"),
    ],
)
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_without_one_call(examine_in: ExamineIn, call: str, name: str, state: str, error: str) -> None:
    found = examine_in(f"import errno; seccomp.refuse({call!r}, errno.{error})")
    assert found[name]["state"] == state
    expected = "ENODATA" if name.startswith("exit status") else error
    if not found[name]["value"].startswith("missing, came"):
        assert found[name]["value"].endswith(f"({expected})")
    assert found["waitid(P_PIDFD)"]["state"] == "ok", "asked with a descriptor that clone itself made"
    assert not [item for item in found.values() if item["needed"] and item["state"] == "missing"]


def test_without_a_wait_something_needed_is_missing(examine_in: ExamineIn) -> None:
    found = examine_in("import errno; seccomp.refuse('waitid', errno.EPERM, 3)  # P_PIDFD")
    assert (found["waitid(P_PIDFD)"]["needed"], found["waitid(P_PIDFD)"]["state"]) == (True, "missing")


def test_no_user_namespaces_left() -> None:
    if not shutil.which("unshare"):
        pytest.skip("needs util-linux's unshare")
    script = (
        "import errno; from taskclone import _core; from taskclone.doctor.namespaces import look\n"
        "assert _core.probe_user_namespace() == (errno.ENOSPC, 0)\n"
        "print({found.name: found.state for found in look()})"
    )
    inside = f"echo 0 >/proc/sys/user/max_user_namespaces && exec {sys.executable} -c '{script}'"
    done = subprocess.run(["unshare", "-Ur", "sh", "-c", inside], capture_output=True, text=True, timeout=20)
    if "unshare failed" in done.stderr:
        pytest.skip("this user may make no user namespace")
    assert done.stderr == ""
    assert "\"a namespace of one's own\": 'missing'" in done.stdout
    assert "'user.max_user_namespaces': 'missing'" in done.stdout


def test_a_filter_on_clone_is_no_user_namespace(examine_in: ExamineIn) -> None:
    found = examine_in("import errno; seccomp.refuse('clone', errno.EPERM)")
    assert found["a namespace of one's own"]["value"] == "refused (EPERM)"
    assert found["waitid(P_PIDFD)"]["state"] == "missing", "there is no child to wait for"
