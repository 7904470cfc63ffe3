"""What the tracer tells, as values. Flags are decoded by the table of taskclone.flags; nothing is dropped."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from taskclone.flags import ROWS, CloneFlags, members

if TYPE_CHECKING:
    from taskclone.tracer._ptrace import _Call, _End, _Exec

__all__ = ["CLONE_ARGS_SIZE", "Call", "CloneArgs", "End", "Exec", "Record", "record"]

CLONE_ARGS_SIZE: Final = 88
"""Bytes of ``struct clone_args`` that are read; a call that passes more is shown with its size."""


class CloneArgs(NamedTuple):
    """clone3's structure (clone(2)). Calls by clone, fork and vfork are told in its words, as the kernel itself does.

    Pointers that the flags do not ask for hold whatever was in the register: ``Call.given`` says which count.
    """

    flags: int
    pidfd: int
    child_tid: int
    parent_tid: int
    exit_signal: int
    stack: int
    stack_size: int
    tls: int
    set_tid: int
    set_tid_size: int
    cgroup: int


@dataclass(frozen=True, slots=True)
class Call:
    """A clone-like system call, as the kernel was given it.

    Attributes:
        tid: thread id of the task that made it.
        system_call: "fork", "vfork", "clone" or "clone3".
        child: thread id of the new task; 0 when the call failed.
        error: errno of a call that failed; 0 otherwise.
        followed: the new task is traced too. False for one that was made with CLONE_UNTRACED.
        unread: errno when clone3's structure could not be read; ``args`` is all zero then. 0 otherwise.
        size: what clone3 was told of the size of its structure; 0 for the others.
        args: the arguments.
    """

    tid: int
    system_call: str
    child: int
    error: int
    followed: bool
    unread: int
    size: int
    args: CloneArgs

    @property
    def flags(self) -> CloneFlags:
        """The flags, unknown bits included. For vfork those that the call itself stands for (vfork(2))."""
        return CloneFlags(self.args.flags)

    @property
    def exit_signal(self) -> int:
        """The signal to the creator at the end of the task; 0: none."""
        return self.args.exit_signal

    @property
    def given(self) -> tuple[str, ...]:
        """Fields of clone_args that were given beside flags and signal: those that belong to a flag, a stack, tids."""
        asked = [ROWS[member].clone_args for member in members(self.args.flags)]
        names = ("stack" if self.args.stack else "", *asked, "set_tid" if self.args.set_tid_size else "")
        return tuple(dict.fromkeys(filter(None, names)))

    @property
    def error_name(self) -> str:
        """``ENOSYS`` for 38, "" for none."""
        return _name(self.error)

    @property
    def unread_name(self) -> str:
        """The same for ``unread``."""
        return _name(self.unread)


def _name(error: int) -> str:
    return errno.errorcode.get(error, f"errno {error}") if error else ""


@dataclass(frozen=True, slots=True)
class Exec:
    """A task has become another program. ``former``: the thread id under which it called execve.

    ``name`` is the kernel's short name of the program (/proc/PID/comm, 15 bytes).
    """

    tid: int
    former: int
    name: str


@dataclass(frozen=True, slots=True)
class End:
    """A task has ended, with the wait status ``status`` (wait(2)); for a thread it is that of its exit.

    It comes after the Call that made the task. No End comes for the leader of a thread group when another of its
    threads calls execve: that takes its place.
    """

    tid: int
    status: int


Record: TypeAlias = Call | Exec | End


def record(raw: _Exec | _Call | _End) -> Record:
    """The value for a tuple of ``_ptrace.parse``."""
    if raw[0] == "exec":
        return Exec(*raw[1:])
    if raw[0] == "end":
        return End(*raw[1:])
    return Call(*raw[1:-1], CloneArgs(*raw[-1]))
