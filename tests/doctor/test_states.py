"""Each state of what is only read, or what no test can make: the doctor's judgement of made-up answers."""

from __future__ import annotations

import errno

import pytest

from taskclone.doctor import groups, namespaces, security, system
from taskclone.doctor.calls import CALLS, judge
from taskclone.doctor.clonable import look as look_at_flags
from taskclone.doctor.finding import Finding, Read
from taskclone.rule import running_kernel


def files(table: dict[str, str]) -> Read:
    """A system that has these files only."""
    return table.get


def named(findings: list[Finding], name: str) -> Finding:
    (found,) = [item for item in findings if item.name == name]
    return found


def test_kernels() -> None:
    assert system.kernel("5.9.1-old", (5, 9)).fails
    assert system.kernel("5.10.1", (5, 10)).state == "limited"
    assert system.kernel("6.18.44-x", (6, 18)).state == "ok"


def test_machines_and_interpreters() -> None:
    assert system.machine("riscv64").fails
    assert system.machine("aarch64").state == "ok"
    assert system.python((3, 11), "cpython", True).state == "ok"
    assert system.python((3, 10), "cpython", True).fails
    assert system.python((3, 13), "cpython", False).fails
    assert system.python((3, 11), "pypy", True).fails
    assert system.proc(False).fails


def test_no_thread_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    found = system.threads()
    assert found.fails
    assert found.value == "can't start new thread"


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.probe)
def test_a_call_is_there_too_old_or_filtered(call: object) -> None:
    from taskclone.doctor.calls import Call

    assert isinstance(call, Call)
    assert judge(call, 0, (5, 10)).state == "ok"
    filtered, old = judge(call, errno.EPERM, (7, 3)), judge(call, errno.ENOSYS, (2, 6))
    assert filtered.state == old.state == call.without
    assert filtered.value == "filtered or left out of this kernel (EPERM)"
    assert old.value == f"missing, came with Linux {call.since[0]}.{call.since[1]} (ENOSYS)"
    assert judge(call, errno.EMFILE, (7, 3)).value == "fails (EMFILE)"
    assert filtered.fails == call.needed


def test_flags_by_their_errno() -> None:
    answers = {0: ("yes", "ok"), errno.EAGAIN: ("not now: a limit is reached (EAGAIN)", "limited"),
               errno.EINVAL: ("left out of this kernel (EINVAL)", "missing"),
               errno.EACCES: ("refused (EACCES)", "missing")}  # fmt: skip
    for answer, expected in answers.items():
        found = list(look_at_flags(lambda flags, clone3, answer=answer: answer, lambda name: 0))  # type: ignore[misc]
        shown = {(item.value, item.state) for item in found if "came with Linux" not in item.value}
        assert shown == {expected}


def test_a_flag_that_an_old_kernel_lacks_is_missing_unless_the_task_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskclone.doctor.clonable.running_kernel", lambda: (7, 0))
    found = {item.name: item for item in look_at_flags(lambda flags, clone3: 0, lambda name: 0)}
    new = {"CLONE_AUTOREAP", "CLONE_PIDFD_AUTOKILL", "CLONE_EMPTY_MNTNS"}
    assert {name for name, item in found.items() if item.value == "missing, came with Linux 7.1"} == new
    assert {found[name].state for name in new} == {"missing"}
    assert found["CLONE_NNP"].value == "done in the task: came with Linux 7.1"
    assert found["CLONE_NNP"].state == "limited"


def test_flags_without_clone3_are_asked_of_clone() -> None:
    asked: list[bool] = []

    def probe(flags: int, clone3: bool) -> int:
        asked.append(clone3)
        assert not flags >> 32, "clone(2) would not see it"
        assert not flags & 0xFF
        return 0

    found = {item.name: item for item in look_at_flags(probe, lambda name: errno.ENOSYS)}
    assert set(asked) == {False}
    assert found["CLONE_NEWTIME"].state == "missing"
    assert "exit signal" in found["CLONE_NEWTIME"].value
    assert found["CLONE_PARENT_SETTID"].value.startswith("yes (not tried")
    if running_kernel() >= (7, 1):
        assert found["CLONE_AUTOREAP"].value == "no: clone(2) cannot say it: its flags have 32 bits"


def test_user_namespaces_by_their_errno() -> None:
    assert namespaces.tried(0, 0).state == "ok"
    powerless = namespaces.tried(0, errno.EPERM)
    assert (powerless.state, powerless.value) == ("limited", "made, powerless (EPERM)")
    for number, word in ((errno.EPERM, "filter"), (errno.ENOSPC, "max_user_namespaces"), (errno.EINVAL, "built")):
        found = namespaces.tried(number, 0)
        assert found.state == "missing"
        assert word in found.meaning


def test_switches_of_user_namespaces() -> None:
    read = files({"/proc/sys/user/max_user_namespaces": "0", "/proc/sys/kernel/unprivileged_userns_clone": "0",
                  "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"})  # fmt: skip
    found = list(namespaces.look(read, lambda: (0, 0), lambda name: None))
    assert named(found, "user.max_user_namespaces").state == "missing"
    assert named(found, "kernel.unprivileged_userns_clone").state == "limited"
    assert named(found, "kernel.apparmor_restrict_unprivileged_userns").state == "limited"
    assert named(found, "newuidmap").state == "limited"
    found = list(namespaces.look(files({}), lambda: (0, 0), lambda name: f"/usr/bin/{name}"))
    assert {item.state for item in found if item.name.startswith(("kernel", "user.", "new"))} == {"ok"}


def test_ranges_of_this_user_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_names", lambda: ("ada", "1815"))
    read = files({"/etc/subuid": "bob:1:2\nada:100000:65536\n1815:7:1\nbroken", "/etc/subgid": "bob:1:2"})
    found = list(namespaces.look(read, lambda: (0, 0), lambda name: None))
    assert named(found, "/etc/subuid").value == "100000+65536, 7+1"
    assert named(found, "/etc/subgid").state == "limited"


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "31 23 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids"


def test_control_groups_of_version_2() -> None:
    read = files({"/proc/self/mountinfo": V2, "/proc/self/cgroup": "0::/user/ada",
                  "/sys/fs/cgroup/user/ada/cgroup.controllers": "memory pids",
                  "/sys/fs/cgroup/user/ada/cgroup.subtree_control": ""})  # fmt: skip
    found = list(groups.look(read, lambda path: path == "/sys/fs/cgroup/user/ada/cgroup.procs"))
    assert (named(found, "version").value, named(found, "version").state) == ("2", "ok")
    assert named(found, "own group").value == "/user/ada"
    assert named(found, "delegated").state == "ok"
    assert named(found, "controllers").value == "memory pids"
    assert named(found, "controllers passed on").state == "limited"
    assert named(list(groups.look(read, lambda path: False)), "delegated").state == "limited"


def test_control_groups_of_version_1_both_and_none() -> None:
    assert named(list(groups.look(files({"/proc/self/mountinfo": V1}))), "version").value == "1"
    assert named(list(groups.look(files({"/proc/self/mountinfo": f"{V1}\n{V2}"}))), "version").value == "2 beside 1"
    found = list(groups.look(files({})))
    assert (named(found, "version").value, named(found, "own group").value) == ("none mounted", "none")


def test_a_group_below_what_is_mounted() -> None:
    """As in a container that has a part of the tree."""
    mounted = V2.replace(" / /sys", " /docker/x /sys")
    read = files({"/proc/self/mountinfo": mounted, "/proc/self/cgroup": "3:pids:/p\n0::/docker/x/y"})
    assert groups.group_folder(read) == "/sys/fs/cgroup/y"
    assert groups.group_folder(read, "pids") is None
    assert groups.group_folder(files({"/proc/self/mountinfo": mounted, "/proc/self/cgroup": "0::/docker/xy"})) is None
    both = files({"/proc/self/mountinfo": f"{V2}\n{V1}", "/proc/self/cgroup": "3:pids:/p\n0::/"})
    assert groups.group_folder(both, "pids") == "/sys/fs/cgroup/pids/p"


def test_filters_and_who_may_trace() -> None:
    read = files({"/proc/self/status": "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t3\nNoNewPrivs:\t1",
                  "/proc/sys/kernel/yama/ptrace_scope": "3", "/proc/sys/kernel/perf_event_paranoid": "4"})  # fmt: skip
    found = list(security.look(read))
    assert named(found, "seccomp").value == "in force, 3 filters"
    assert named(found, "no_new_privs").state == "limited"
    assert named(found, "kernel.yama.ptrace_scope").state == "missing"
    assert named(found, "kernel.perf_event_paranoid").state == "limited"
    found = list(security.look(files({"/proc/sys/kernel/perf_event_paranoid": "-1"})))
    assert named(found, "seccomp").state == named(found, "no_new_privs").state == "ok"
    assert named(found, "kernel.yama.ptrace_scope").state == named(found, "kernel.perf_event_paranoid").state == "ok"


def test_limits() -> None:
    read = files({"/proc/self/mountinfo": V2, "/proc/self/cgroup": "0::/a", "/sys/fs/cgroup/a/pids.max": "512",
                  "/proc/sys/kernel/pid_max": "32768"})  # fmt: skip
    found = list(security.look(read))
    assert named(found, "pids.max").value == "512"
    assert named(found, "kernel.pid_max").value == "32768"
    assert named(found, "kernel.threads-max").value == "-"
