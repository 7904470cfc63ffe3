"""Copies that libc's fork cannot make: by a relay, which clones its creator's child, and bare, by the creator itself.

Each has its flags from birth, is the creator's own child, and ends as any child does.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest
from ends import by_end, die, leave
from kernel_oracle import Oracle
from probes import assert_left

from proc import PATIENCE, children_of, gone, held, pipe, until
from taskclone import CloneFlags, TaskDied, clone
from taskclone.rule import has_sys_admin

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
NAMESPACES = {
    "mnt": F.NEWNS, "uts": F.NEWUTS, "ipc": F.NEWIPC, "user": F.NEWUSER, "pid": F.NEWPID, "net": F.NEWNET,
    "cgroup": F.NEWCGROUP, "time": F.NEWTIME,
}  # fmt: skip
"""By the name in /proc/PID/ns."""
PRIVILEGE = F(0) if has_sys_admin() else F.NEWUSER
"""What makes namespaces possible for whoever runs the tests."""
FORMS: dict[str, dict[str, Any]] = {"relay": {}, "bare": {"bare": True}}
by_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture(autouse=True)
def _may_make_namespaces(oracle: Oracle) -> None:
    if not (oracle.privileged or oracle.makes_user_namespaces()):
        pytest.skip("this user may make no namespaces")


def namespaces_of(pid: int) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}


@by_form
@pytest.mark.parametrize("name", NAMESPACES)
def test_one_namespace_is_new_from_birth(form: dict[str, Any], name: str) -> None:
    def look() -> dict[str, str]:
        return namespaces_of(int(os.readlink("/proc/self")))  # /proc is of the creator's PID namespace

    flags = NAMESPACES[name] | PRIVILEGE
    with held(flags, body=look, **form) as task:
        assert task.route == "copied"
        assert list(children_of(os.getpid())) == [task.pid]
        own, creators = namespaces_of(task.pid), namespaces_of(os.getpid())
    new = {found for found in NAMESPACES if own[found] != creators[found]}
    assert new == {name} | ({"user"} if PRIVILEGE else set())
    assert task.result(PATIENCE) == own


@by_form
def test_all_at_once(form: dict[str, Any]) -> None:
    flags = F(0)
    for flag in NAMESPACES.values():
        flags |= flag
    with held(flags, body=lambda: (os.getpid(), os.getppid()), **form) as task:
        own, creators = namespaces_of(task.pid), namespaces_of(os.getpid())
    assert all(own[name] != creators[name] for name in NAMESPACES)
    assert task.result(PATIENCE) == (1, 0)


@by_form
@by_end
def test_how_it_ended(form: dict[str, Any], body: Any, code: int | None, number: int | None) -> None:
    status = clone(body, flags=F.NEWUTS | PRIVILEGE, **form).wait(PATIENCE)
    assert (status.code, status.signal, status.source) == (code, number, "wait")


@by_form
@by_end
def test_a_foreign_wait_steals_its_status(
    form: dict[str, Any], body: Any, code: int | None, number: int | None
) -> None:
    with pipe() as (read_end, write_end):

        def when_told() -> object:
            os.read(read_end, 1)
            return body()

        task = clone(when_told, flags=F.NEWUTS | PRIVILEGE, exit_signal=signal.SIGCHLD, **form)
        os.write(write_end, b"x")
        assert os.waitpid(-1, 0)[0] == task.pid
    assert_left(task.wait(PATIENCE), code, number, has_word=body not in (leave, die))


@by_form
@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_init_of_a_pid_namespace_can_be_ended_and_takes_all_with_it(form: dict[str, Any], end: str) -> None:
    with pipe() as (read_end, write_end):

        def body() -> None:
            with subprocess.Popen(["sleep", "3600"]):
                os.write(write_end, b"x")
                signal.pause()

        task = clone(body, flags=F.NEWPID | PRIVILEGE, **form)
        assert os.read(read_end, 1) == b"x"
    (sleeper,) = children_of(task.pid)
    if end == "kill":
        task.kill(timeout=PATIENCE)
    else:
        task.terminate(grace=0.2, timeout=PATIENCE)
    assert isinstance(task.exception(PATIENCE), TaskDied)
    until(lambda: gone(task.pid) and gone(sleeper), "both ended")


@by_form
def test_it_can_become_a_program(form: dict[str, Any]) -> None:
    task = clone(os.execv, "/bin/sh", ["sh", "-c", "exit $$"], flags=F.NEWPID | PRIVILEGE, **form)
    assert task.wait(PATIENCE).code == 1
