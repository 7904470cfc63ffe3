"""What keeps back: filters, privileges, who may look at whom, and how much of everything there may be."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Final

from taskclone.doctor.finding import Finding, Read, State, finding, read_file
from taskclone.doctor.groups import group_folder
from taskclone.rule import has_sys_admin

__all__ = ["look"]

TOPIC: Final = "security"
LIMITS: Final = "limits"
_PTRACE: Final = {
    "0": ("ok", "every task of this user may be traced"),
    "1": ("ok", "own descendants may be traced"),
    "2": ("limited", "tracing needs CAP_SYS_PTRACE"),
    "3": ("missing", "nobody may trace, until the next boot"),
}  # fmt: skip


def look(read: Read = read_file) -> Iterator[Finding]:
    """Both topics."""
    yield from _powers(read)
    yield from _limits(read)


def _powers(read: Read) -> Iterator[Finding]:
    status = _status(read)
    if has_sys_admin():
        yield finding(TOPIC, "CAP_SYS_ADMIN", "yes", "ok", "namespaces can be asked for without NEWUSER")
    else:
        yield finding(TOPIC, "CAP_SYS_ADMIN", "no", "limited", "namespaces need NEWUSER beside them")
    if status.get("Seccomp", "0") == "0":
        yield finding(TOPIC, "seccomp", "no filter", "ok", "no system call is kept back")
    else:
        filters = status.get("Seccomp_filters")
        value = "in force" + (f", {filters} filters" if filters else "")
        meaning = "a filter may keep back or falsify system calls: the rest of this table was asked through it"
        yield finding(TOPIC, "seccomp", value, "limited", meaning)
    if status.get("NoNewPrivs", "0") == "0":
        yield finding(TOPIC, "no_new_privs", "off", "ok", "set-user-id programs keep their effect in tasks")
    else:
        meaning = "every task inherits it: set-user-id programs have no effect, newuidmap among them"
        yield finding(TOPIC, "no_new_privs", "on", "limited", meaning)
    scope = read("/proc/sys/kernel/yama/ptrace_scope")
    state, meaning = _PTRACE.get(scope or "0", ("limited", "a value that nobody knows"))
    told: State = "ok" if state == "ok" else "missing" if state == "missing" else "limited"
    yield finding(TOPIC, "kernel.yama.ptrace_scope", scope or "-", told, f"{meaning}; no start needs it")
    paranoid = read("/proc/sys/kernel/perf_event_paranoid")
    closed = paranoid is None or int(paranoid) > 2
    meaning = "an ordinary user has no hardware counters" if closed else "own tasks can be counted"
    yield finding(
        TOPIC,
        "kernel.perf_event_paranoid",
        paranoid or "-",
        "limited" if closed else "ok",
        f"{meaning}; no start needs it",
    )
    pattern = read("/proc/sys/kernel/core_pattern")
    meaning = "where a core dump goes that ChildSetup(core=True) allows; a shared task dumps its creator's memory"
    yield finding(TOPIC, "kernel.core_pattern", pattern or "-", "ok", meaning)
    chosen = (read("/sys/kernel/mm/transparent_hugepage/enabled") or "").partition("[")[2].partition("]")[0]
    meaning = "huge pages make copies of a big process cheaper, and the first write in one dearer"
    yield finding(TOPIC, "transparent huge pages", chosen or "-", "ok", meaning)


def _status(read: Read) -> dict[str, str]:
    lines = (line.partition(":") for line in (read("/proc/self/status") or "").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _limits(read: Read) -> Iterator[Finding]:
    tasks, files = resource.getrlimit(resource.RLIMIT_NPROC)[0], resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    exempt = " (root is exempt)" if os.geteuid() == 0 else ""
    yield finding(LIMITS, "RLIMIT_NPROC", _limit(tasks) + exempt, "ok", "so many tasks may this user have, threads too")
    meaning = "each copied task and program holds two descriptors at most, a shared one none until it is asked for one"
    yield finding(LIMITS, "RLIMIT_NOFILE", _limit(files), "ok" if files > 64 or files < 0 else "limited", meaning)
    for name, text in (("kernel.pid_max", "ids are used again from there"), ("kernel.threads-max", "of all users")):
        value = read(f"/proc/sys/{name.replace('.', '/')}")
        yield finding(LIMITS, name, value or "-", "ok", f"the most tasks that there can be; {text}")
    most = _pids_max(read)
    meaning = (
        "so many tasks may be in the own control group" if most else "no limit of the own control group is to be seen"
    )
    yield finding(LIMITS, "pids.max", most or "-", "ok", meaning)


def _pids_max(read: Read) -> str | None:
    """Of version 2, or of version 1 where that has the controller."""
    folders = filter(None, (group_folder(read), group_folder(read, "pids")))
    return next(filter(None, (read(f"{folder}/pids.max") for folder in folders)), None)


def _limit(number: int) -> str:
    return "unlimited" if number == resource.RLIM_INFINITY else str(number)
