"""What each case must show: its flags, and what a route adds to them by design, in terms of the observations.

An observation that a case cannot make is not among its expectations (a program does not write to its creator's memory).
"""

from __future__ import annotations

from typing import Any, Final

from sets import Case

from proc import Kcmp
from taskclone.flags import ROWS, CloneFlags, flag_names
from taskclone.rule import running_kernel

F = CloneFlags

KCMP: Final = [F[kind.name] for kind in Kcmp]
AFTER_EXECVE: Final = F.FS | F.SYSVSEM | F.IO
"""What a program still shares: execve(2) gives it memory, descriptors and handlers of its own."""
EXECVE_ENTERS_TIME: Final = (6, 3)
"""Since then execve moves a task that shared memory into its time namespace (fs/exec.c, exec_task_namespaces)."""

ADDED: Final = {
    "copied by relay": F.PARENT,
    "fork() by relay": F.PARENT,
    "shared": F.CLEAR_SIGHAND,
    "shared in place": F.CLEAR_SIGHAND,
    "program": F.VM | F.VFORK | F.CLEAR_SIGHAND,
}
"""What a route gives the kernel of its own accord: a handler in Python would run in the creator's interpreter, a
program needs its creator's memory until execve, and a relay is the task's elder brother."""

ALWAYS: Final = frozenset({"ignored kept"})
"""Observations that no flag changes: a control of its own shows that they can come out otherwise."""


def part_of(observation: str) -> str:
    """The part of the proof in whose sets it must give more than one answer: ``sharing`` or ``namespaces``."""
    of_namespaces = observation.startswith("new ") or observation in ("is init", "semaphore is there")
    return "namespaces" if of_namespaces else "sharing"


def expected(case: Case) -> dict[str, Any]:
    """By the observation's name: what it must say."""
    flags, is_program = F(case.flags), case.door == "program"
    shared = flags & AFTER_EXECVE if is_program else flags
    found: dict[str, Any] = {f"kcmp {flag.name}": bool(shared & flag) for flag in KCMP}
    found |= {f"new {name}": is_new for name, is_new in _namespaces(case).items()}
    found |= {
        "in the creator's group": bool(flags & F.THREAD),
        "the creator's parent": bool(flags & (F.PARENT | F.THREAD)),
        "handler kept": _keeps_handlers(case),
        "ignored kept": True,
        "cwd is the creator's": bool(flags & F.FS),
        "umask is the creator's": bool(flags & F.FS),
        "descriptor is the creator's": bool(shared & F.FILES),
        "granted": "as asked",
    }
    if not is_program:
        found |= {
            "creator slept": bool(flags & F.VFORK),
            "memory is the creator's": bool(flags & F.VM),
            "disposition is the creator's": bool(flags & F.SIGHAND),
            "semaphore is there": not flags & F.NEWIPC,
            "undo outlives the task": bool(flags & F.SYSVSEM),
            "is init": bool(flags & F.NEWPID),
            "getppid": _parent(flags),
        }
    return found


def _namespaces(case: Case) -> dict[str, bool]:
    """Of each file below /proc/PID/ns whether it leads elsewhere than the creator's."""
    found = {}
    for flag, row in ROWS.items():
        for path in row.proc:
            if path.startswith("ns/"):
                found[path[3:]] = found.get(path[3:], False) or bool(flag & case.flags)
    if case.flags & F.NEWTIME and case.door == "program":
        found["time"] = running_kernel() >= EXECVE_ENTERS_TIME
    elif case.flags & F.VM:
        found["time"] = False  # one memory, one mapping of the clocks: for the children only
    return found


def _parent(flags: F) -> str:
    """Whom the task takes for its parent (getppid(2)); a number of another PID namespace is shown as 0."""
    if flags & F.NEWPID:
        return "of another namespace"
    return "the creator's" if flags & (F.PARENT | F.THREAD) else "the creator"


def _keeps_handlers(case: Case) -> bool:
    if case.door == "program":
        return False
    if case.flags & F.VM:
        return bool(case.flags & F.SIGHAND)
    return not case.flags & F.CLEAR_SIGHAND


def granted_as_asked(case: Case, granted: int, mask: int) -> str:
    """``as asked``, or what is missing and what is too much, among the flags of ``mask``."""
    missing = case.flags & ~granted
    extra = granted & mask & ~(case.flags | int(ADDED.get(case.route, 0)))
    if not missing and not extra:
        return "as asked"
    return f"without {flag_names(missing)}, with {flag_names(extra)}"
