"""System calls, each really made once."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from taskclone import _core
from taskclone.doctor.finding import Finding, State, finding, word
from taskclone.rule import Version, running_kernel

__all__ = ["CALLS", "Call", "judge", "look"]

TOPIC: Final = "system calls"


@dataclass(frozen=True, slots=True)
class Call:
    """What can be asked of the kernel, by the name that the core's probe has for it.

    Attributes:
        probe: the core's name.
        shown: the name in the table.
        since: the first Linux that has it; before it, it is missing, after it, somebody keeps it back.
        there: what it means for taskclone that it is there.
        absent: what it means that it is not.
        without: the state then: limited where something else takes its place.
        needed: no route can do without.
    """

    probe: str
    shown: str
    since: Version
    there: str
    absent: str
    without: State = "limited"
    needed: bool = False


CALLS: Final = (
    Call(
        "clone3", "clone3", (5, 3),
        "it starts every task but plain copies, for which libc has fork, and threads",
        "clone(2) starts them: NEWTIME, INTO_CGROUP, set_tid and what came with Linux 7.1 are not to be had, handlers "
        "are reset one by one",
    ),
    Call(
        "pidfd_wait", "waitid(P_PIDFD)", (5, 4),
        "programs are waited for by a descriptor that means no other task ever",
        "the end of a program could not be learnt",
        without="missing",
        needed=True,
    ),
    Call(
        "pidfd_open", "pidfd_open", (5, 3),
        "copied tasks have a pidfd, shared ones when fileno() is asked for",
        "copied tasks are waited for by their pid, which is safe while nobody else reaps them; fileno() of them and of "
        "shared tasks without an exit signal raises",
    ),
    Call(
        "pidfd_thread", "pidfd of a thread", (6, 9),
        "fileno() of a thread is a pidfd",
        "fileno() of a thread is an eventfd that it rings at its end",
    ),
    Call(
        "pidfd_get_info", "PIDFD_GET_INFO", (6, 13),
        "a pidfd can be asked about its task",
        "a pidfd cannot be asked about its task",
        without="missing",
    ),
    Call(
        "pidfd_exit_info", "exit status in a pidfd", (6, 15),
        "the status of a task that somebody else has reaped is still known",
        "the status of a task that somebody else has reaped is lost, and said to be",
    ),
    Call(
        "kcmp", "kcmp", (3, 5),
        "what two tasks share can be seen; no start needs it",
        "what two tasks share cannot be seen; no start needs it",
        without="missing",
    ),
    Call(
        "close_range", "close_range", (5, 9),
        "ChildSetup(close_fds=True) takes one call",
        "ChildSetup(close_fds=True), and so most starts in the manner of subprocess, fail",
        without="missing",
    ),
    Call(
        "tid_address", "PR_GET_TID_ADDRESS", (3, 5),
        "where libc keeps a thread's id is known, for copies that libc's fork does not make",
        "where libc keeps a thread's id must be guessed, for copies that libc's fork does not make",
    ),
)  # fmt: skip


def look(probe: Callable[[str], int] = _core.probe) -> Iterator[Finding]:
    """All of the topic. ``probe`` gives the errno that the kernel answers to a name, 0 where the call is there."""
    for call in CALLS:
        yield judge(call, probe(call.probe), running_kernel())


def judge(call: Call, answer: int, kernel: Version) -> Finding:
    """The finding for an answer of the core's probe."""
    if not answer:
        return finding(TOPIC, call.shown, "there", "ok", call.there, call.needed)
    since = ".".join(map(str, call.since))
    if kernel < call.since:
        value = f"missing, came with Linux {since} ({word(answer)})"
    elif answer in (errno.ENOSYS, errno.EPERM, errno.EACCES):
        value = f"filtered or left out of this kernel ({word(answer)})"
    else:
        value = f"fails ({word(answer)})"
    return finding(TOPIC, call.shown, value, call.without, call.absent, call.needed)
