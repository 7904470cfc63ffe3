"""Control groups: which hierarchy is there, where this process is in it, what of it is this user's to change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from taskclone.doctor.finding import Finding, Read, finding, read_file

__all__ = ["group_folder", "look", "own_group"]

TOPIC: Final = "control groups"


def look(read: Read = read_file, writable: Callable[[str], bool] | None = None) -> Iterator[Finding]:
    """All of the topic. ``writable`` says whether this user may write to a file."""
    writable = writable or (lambda path: os.access(path, os.W_OK))
    kinds = {kind for kind, *_ in _mounts(read)}
    second = "cgroup2" in kinds
    if second and "cgroup" in kinds:
        meaning = "INTO_CGROUP works; the controllers of the old hierarchy are not to be had in the new one"
        yield finding(TOPIC, "version", "2 beside 1", "limited", meaning)
    elif second:
        yield finding(TOPIC, "version", "2", "ok", "INTO_CGROUP starts a task in a group")
    else:
        value = "1" if "cgroup" in kinds else "none mounted"
        yield finding(TOPIC, "version", value, "limited", "INTO_CGROUP needs a directory of version 2")
    group = own_group(read)
    if group is None:
        yield finding(TOPIC, "own group", "none", "limited", "this process is in no group of version 2")
        return
    yield finding(TOPIC, "own group", group, "ok", "tasks start in it unless INTO_CGROUP says another")
    folder = group_folder(read)
    if folder is None:
        return
    if writable(f"{folder}/cgroup.procs"):
        meaning = "it is this user's: tasks can be put into groups below it"
        yield finding(TOPIC, "delegated", f"{folder} may be written", "ok", meaning)
    else:
        meaning = "it is not this user's: INTO_CGROUP is refused (EACCES) until somebody delegates a group"
        yield finding(TOPIC, "delegated", f"{folder} may not be written", "limited", meaning)
    yield _controllers(
        "controllers", read(f"{folder}/cgroup.controllers"), "limits that the own group can be asked to pass on"
    )
    yield _controllers(
        "controllers passed on", read(f"{folder}/cgroup.subtree_control"), "limits that groups below the own can have"
    )


def own_group(read: Read, controller: str = "") -> str | None:
    """The path below the mount point: in version 2, or in the hierarchy of version 1 that has the controller."""
    for line in (read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return None


def group_folder(read: Read, controller: str = "") -> str | None:
    """The directory of that group; None where its hierarchy is not mounted, or not from a place above the group."""
    group = own_group(read, controller)
    for kind, root, point, options in _mounts(read):
        fits = controller in options.split(",") if controller else kind == "cgroup2"
        if group is not None and fits and f"{group}/".startswith(f"{root.rstrip('/')}/"):
            return os.path.join(point, group[len(root) :].lstrip("/")).rstrip("/")
    return None


def _mounts(read: Read) -> Iterator[tuple[str, str, str, str]]:
    """Of each mounted hierarchy: kind, which group is at its root, mount point, controllers among other options."""
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        where, separator, what = line.partition(" - ")
        if separator and what.startswith("cgroup"):
            kind, _, options = what.split(" ", 2)
            root, point = where.split()[3:5]
            yield kind, root, point, options


def _controllers(name: str, text: str | None, meaning: str) -> Finding:
    if text is None:
        return finding(TOPIC, name, "not to be seen", "limited", "the group's files are not to be seen here")
    return finding(TOPIC, name, text or "none", "ok" if text else "limited", meaning)
