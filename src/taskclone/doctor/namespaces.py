"""User namespaces: whether this user may make one, and what it can map."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from typing import Final

from taskclone import _core
from taskclone.doctor.finding import Finding, Read, finding, read_file, word

__all__ = ["look", "tried"]

TOPIC: Final = "user namespaces"
_ALONE: Final = "with NEWUSER an ordinary user has every other namespace"


def look(
    read: Read = read_file,
    try_it: Callable[[], tuple[int, int]] = _core.probe_user_namespace,
    which: Callable[[str], str | None] = shutil.which,
) -> Iterator[Finding]:
    """All of the topic. ``try_it`` gives the errno of the start, and that of a change made in the new namespace."""
    yield tried(*try_it())
    yield from _switches(read)
    yield from _mappers(which)
    for file in ("/etc/subuid", "/etc/subgid"):
        yield _ranges(file, read, _names())


def tried(start: int, inside: int) -> Finding:
    """What came of a child that asked for NEWUSER and NEWUTS and then set its host name."""
    name = "a namespace of one's own"
    if not start and not inside:
        return finding(TOPIC, name, "made", "ok", _ALONE)
    if not start:
        meaning = "NEWUSER gives namespaces, but no power in them: a security module (AppArmor, say) takes it away"
        return finding(TOPIC, name, f"made, powerless ({word(inside)})", "limited", meaning)
    if start in (errno.ENOSPC, errno.EUSERS):
        meaning = "NEWUSER fails: user.max_user_namespaces is reached, or they are nested too deeply"
        return finding(TOPIC, name, f"refused ({word(start)})", "missing", meaning)
    if start == errno.EINVAL:
        return finding(TOPIC, name, "refused (EINVAL)", "missing", "NEWUSER fails: this kernel is built without it")
    meaning = "NEWUSER fails: a seccomp filter, a sysctl or a security module stands against it"
    return finding(TOPIC, name, f"refused ({word(start)})", "missing", meaning)


def _switches(read: Read) -> Iterator[Finding]:
    most = read("/proc/sys/user/max_user_namespaces")
    if most == "0":
        yield finding(TOPIC, "user.max_user_namespaces", most, "missing", "NEWUSER is switched off")
    else:
        meaning = "so many may be alive" if most else "it is not to be seen here"
        yield finding(TOPIC, "user.max_user_namespaces", most or "-", "ok", meaning)
    allowed = read("/proc/sys/kernel/unprivileged_userns_clone")
    if allowed == "0":
        meaning = "NEWUSER needs CAP_SYS_ADMIN"
        yield finding(TOPIC, "kernel.unprivileged_userns_clone", allowed, "limited", meaning)
    else:
        meaning = "this switch of Debian's allows NEWUSER" if allowed else "this kernel has no such switch"
        yield finding(TOPIC, "kernel.unprivileged_userns_clone", allowed or "-", "ok", meaning)
    restricted = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if restricted not in (None, "0"):
        meaning = "an ordinary user's namespaces are powerless but for programs whose AppArmor profile allows them"
        yield finding(TOPIC, "kernel.apparmor_restrict_unprivileged_userns", restricted, "limited", meaning)
    else:
        meaning = "AppArmor does not stand against NEWUSER"
        yield finding(TOPIC, "kernel.apparmor_restrict_unprivileged_userns", restricted or "-", "ok", meaning)


def _mappers(which: Callable[[str], str | None]) -> Iterator[Finding]:
    for program in ("newuidmap", "newgidmap"):
        path = which(program)
        if path:
            meaning = "an ordinary user can map the range of ids that the administrator has given him"
            yield finding(TOPIC, program, path, "ok", meaning)
        else:
            yield finding(TOPIC, program, "not found", "limited", "an ordinary user can map one id only: his own")


def _names() -> tuple[str, ...]:
    """How the files may name this user."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)


def _ranges(file: str, read: Read, names: tuple[str, ...]) -> Finding:
    lines = [line.split(":") for line in (read(file) or "").splitlines()]
    ranges = [f"{first}+{count}" for name, first, count in (line for line in lines if len(line) == 3) if name in names]
    if ranges:
        return finding(TOPIC, file, ", ".join(ranges), "ok", "ids (first+count) that may be mapped beside one's own")
    return finding(TOPIC, file, "no range", "limited", "no ids beside one's own may be mapped by newuidmap, newgidmap")
