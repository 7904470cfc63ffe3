"""The flags of the table: each is put to the kernel in a call that fails once the flags have been looked at."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Final

from taskclone import _core
from taskclone.doctor.finding import Finding, State, finding, word
from taskclone.flags import ROWS, CloneFlags, Row, call_note
from taskclone.rule import Version, running_kernel
from taskclone.rules import Context, broken, emulated

__all__ = ["look", "needed_beside"]

TOPIC: Final = "flags"
_F = CloneFlags
_LIMITS: Final = (errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EUSERS)

Probe = Callable[[int, bool], int]
"""The errno that clone3 (True) or clone(2) gives for a set, 0 where it would start a task."""


def look(probe: Probe = _core.probe_flags, there: Callable[[str], int] = _core.probe) -> Iterator[Finding]:
    """All of the topic; by clone(2) where clone3 is not to be had, as the routes do it."""
    by_clone3 = not there("clone3")
    for member, row in ROWS.items():
        if row.kind != "obsolete":
            value, state = _ask(member, row, probe, by_clone3, running_kernel())
            yield finding(TOPIC, f"CLONE_{member.name}", value, state, row.full_meaning)


def needed_beside(member: CloneFlags) -> CloneFlags:
    """The flag with those that it requires, and those that they require."""
    flags = member
    while True:
        more = flags
        for other in ROWS:
            if other & flags:
                more |= ROWS[other].requires
        if more == flags:
            return flags
        flags = more


def _ask(member: CloneFlags, row: Row, probe: Probe, by_clone3: bool, kernel: Version) -> tuple[str, State]:
    if kernel < row.since[:2]:
        came = f"came with Linux {'.'.join(map(str, row.since[:2]))}"
        return (f"done in the task: {came}", "limited") if emulated(member) else (f"missing, {came}", "missing")
    flags = needed_beside(member)
    if not by_clone3:
        if "clone" not in row.accepted_by:
            if member == _F.CLEAR_SIGHAND:
                return "done in the child: clone3 is missing", "limited"
            return f"no: {call_note(member, 'clone')}", "missing"
        if broken(flags | _F.PIDFD, Context(call="clone", kernel=kernel)):
            return "yes (not tried: clone(2) has no way to)", "ok"
    answer = probe(flags, by_clone3)
    if not answer:
        return "yes", "ok"
    if answer == errno.EPERM and row.spared_by:
        spared = " with " + "|".join(str(flag.name) for flag in ROWS if flag & row.spared_by)
        answer = probe(flags | row.spared_by, by_clone3)
        if not answer:
            return f"yes{spared}", "limited"
    if answer in _LIMITS:
        return f"not now: a limit is reached ({word(answer)})", "limited"
    if answer == errno.EINVAL:
        return "left out of this kernel (EINVAL)", "missing"
    return f"refused ({word(answer)})", "missing"
