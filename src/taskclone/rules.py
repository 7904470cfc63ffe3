"""Which sets of flags clone(2), clone3 and unshare(2) refuse, as data: id, condition, errno, reason, cure.

An illegal set is refused before any system call. ``broken`` lists the rules that a set breaks in the order in which
the kernel comes to them, so the first one carries the errno that the kernel would give; tests/kernels holds that
against the running kernel. Sources: clone(2), unshare(2), kernel/fork.c; measured on Linux 5.10 to 7.3.

The rules know flags, kernel version and context, not how taskclone carries a start out.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Collection
from typing import Final

from taskclone.errors import FlagError
from taskclone.flags import ROWS, SYS_ADMIN, THREAD, UNSHARE_EMPTY_MNTNS, Call, CloneFlags, flag_names
from taskclone.rule import Argument, Context, Rule, Version, came_with, emulated, flags_with, has_sys_admin, needs
from taskclone.setuprules import PLAN_RULES

__all__ = ["RULES", "Argument", "Context", "Rule", "advice", "broken", "emulated", "missing_privilege", "require_legal"]

HIGHEST_SIGNAL: Final = 64
OLDEST_SUPPORTED: Final[Version] = (5, 10)
_V7_1: Version = (7, 1)
NEWEST_MEASURED: Final[Version] = (7, 3)
"""The newest kernel on which bits outside the table were seen to be refused; later ones decide for themselves."""

_F = CloneFlags
_CLONE: tuple[Call, ...] = ("clone",)
_CLONE3: tuple[Call, ...] = ("clone3",)
_BOTH: tuple[Call, ...] = ("clone", "clone3")
_UNSHARE: tuple[Call, ...] = ("unshare",)
_ALL: tuple[Call, ...] = ("clone", "clone3", "unshare")


_SIGNAL_BYTE: Final = CloneFlags(0xFF)
_WIDE: Final = ~_F(0xFFFF_FFFF)
_UNNAMED: Final = ~flags_with(lambda row: True)
_SPARED_BY_NEWUSER: Final = flags_with(lambda row: row.privilege == SYS_ADMIN and row.spared_by == _F.NEWUSER)
_NOT_FOR_CLONE3: Final = flags_with(lambda row: "clone3" not in row.accepted_by)
_NOT_FOR_UNSHARE: Final = flags_with(lambda row: "unshare" not in row.accepted_by)

_SLIPS_FOR_THREAD: Final = ("thread-needs-sighand", "sighand-needs-vm")
_THREAD_SLIP: Final = (
    f"if a thread was meant, use the preset taskclone.THREAD ({int(THREAD):#x}, what pthread_create passes): "
    "CLONE_THREAD is only one flag of it"
)
_NEW_VERSIONS: Final = sorted({(row.since[0], row.since[1]) for row in ROWS.values() if row.since > OLDEST_SUPPORTED})

# In the order in which the kernel comes to them: the checks of clone3's argument, then those at the top of
# copy_process(), then credentials, namespaces, pidfd, control group; last, what only this package refuses.
RULES: Final[tuple[Rule, ...]] = (
    Rule(
        id="cannot-say-to-clone",
        calls=_CLONE,
        any_of=_WIDE | _SIGNAL_BYTE,
        kernel_refuses=False,
        message="clone(2) has 32 bits for the flags and reads the lowest eight as the exit signal, so it would "
        "silently misread {flags}",
        cure="use clone3",
    ),
    Rule(
        id="not-for-clone3",
        calls=_CLONE3,
        any_of=_NOT_FOR_CLONE3,
        message="clone3 refuses {flags}, which means nothing any more",
        cure="leave it out",
    ),
    Rule(
        id="unknown-bits",
        calls=_CLONE3,
        any_of=_UNNAMED & ~_SIGNAL_BYTE,
        until=(NEWEST_MEASURED[0], NEWEST_MEASURED[1] + 1),
        message=f"no flag of Linux up to {'.'.join(map(str, NEWEST_MEASURED))} has the bits {{flags}}",
        cure="leave them out",
    ),
    Rule(
        id="signal-in-flags",
        calls=_CLONE3,
        any_of=_UNNAMED & _SIGNAL_BYTE,
        until=(NEWEST_MEASURED[0], NEWEST_MEASURED[1] + 1),
        message="the lowest byte of clone3's flags ({flags}) is no place for the exit signal, as it is in clone(2)",
        cure="use exit_signal=",
    ),
    *(came_with(version) for version in _NEW_VERSIONS),
    Rule(
        id="exit-signal-range",
        calls=_CLONE3,
        when=lambda context: context.exit_signal > HIGHEST_SIGNAL,
        message=f"an exit signal is a number from 0 (none) to {HIGHEST_SIGNAL}",
        cure="signal.SIGCHLD is the usual one",
    ),
    Rule(
        id="exit-signal-range-clone",
        calls=_CLONE,
        since=_V7_1,
        when=lambda context: context.exit_signal > HIGHEST_SIGNAL,
        message=f"an exit signal is a number from 0 (none) to {HIGHEST_SIGNAL}; before Linux 7.1 clone(2) took any",
        cure="signal.SIGCHLD is the usual one",
    ),
    Rule(
        id="sighand-clear-sighand",
        calls=_CLONE3,
        all_of=_F.SIGHAND | _F.CLEAR_SIGHAND,
        message="CLONE_CLEAR_SIGHAND would reset the very handlers that CLONE_SIGHAND shares with the creator",
        cure="leave one of them out",
    ),
    Rule(
        id="exit-signal-parent-thread",
        calls=_CLONE3,
        any_of=_F.PARENT | _F.THREAD,
        when=lambda context: context.exit_signal != 0,
        message="with {flags} the exit signal is not the caller's to choose: a thread has none, and a sibling has its "
        "creator's",
        cure="use exit_signal=0",
    ),
    Rule(
        id="half-a-stack",
        calls=_CLONE3,
        when=lambda context: ("stack" in context.missing) != ("stack_size" in context.missing),
        message="of a stack, address and size belong together",
        cure="give both, or neither",
    ),
    Rule(
        id="pidfd-parent-settid",
        calls=_CLONE,
        all_of=_F.PIDFD | _F.PARENT_SETTID,
        message="clone(2) has one argument, parent_tid, for what both CLONE_PIDFD and CLONE_PARENT_SETTID report",
        cure="leave CLONE_PARENT_SETTID out, the call returns the thread id anyway; or use clone3",
    ),
    Rule(
        id="fs-new-mounts",
        calls=_BOTH,
        all_of=_F.FS,
        any_of=_F.NEWNS | _F.EMPTY_MNTNS,
        message="CLONE_FS shares root and working directory, and {flags} would have them in two mount namespaces",
        cure="leave CLONE_FS out",
    ),
    Rule(
        id="fs-new-user",
        calls=_BOTH,
        all_of=_F.FS | _F.NEWUSER,
        message="CLONE_FS shares the root directory, and a task with every capability in a user namespace of its own "
        "must not move its creator's root",
        cure="leave CLONE_FS out",
    ),
    needs(
        _F.THREAD,
        "thread-needs-sighand",
        "CLONE_THREAD needs CLONE_SIGHAND: the threads of one group have one table of signal handlers",
        "add SIGHAND and VM, or leave CLONE_THREAD out",
    ),
    needs(
        _F.SIGHAND,
        "sighand-needs-vm",
        "CLONE_SIGHAND needs CLONE_VM: a shared handler is an address, and has to mean the same code in both",
        "add VM, or leave CLONE_SIGHAND out",
    ),
    Rule(
        id="parent-of-init",
        calls=_BOTH,
        all_of=_F.PARENT,
        when=lambda context: context.is_init,
        message="the init of a PID namespace (pid 1) may not use CLONE_PARENT: nobody would reap its siblings",
        cure="leave CLONE_PARENT out",
    ),
    Rule(
        id="thread-new-namespace",
        calls=_BOTH,
        all_of=_F.THREAD,
        any_of=_F.NEWUSER | _F.NEWPID,
        message="the threads of one group are in the same user and PID namespaces, so not CLONE_THREAD with {flags}",
        cure="leave CLONE_THREAD out; VM alone shares memory too",
    ),
    Rule(
        id="thread-after-unshare-pid",
        calls=_BOTH,
        all_of=_F.THREAD,
        when=lambda context: context.unshared_pid,
        message="after unshare(CLONE_NEWPID) the caller can make no thread: it would be in another PID namespace",
        cure="make the threads first, or leave CLONE_THREAD out",
    ),
    Rule(
        id="vm-after-unshare-time",
        calls=_BOTH,
        any_of=_F.VM | _F.THREAD,
        # By source; seen on 5.10 and 6.1, gone on 6.12.
        until=(6, 2),
        when=lambda context: context.unshared_time,
        message="after unshare(CLONE_NEWTIME) the caller's children have other clocks, and before Linux 6.2 could not "
        "share its memory ({flags})",
        cure="give NEWTIME to clone3 itself",
    ),
    Rule(
        id="pidfd-detached",
        calls=_CLONE,
        all_of=_F.PIDFD | _F.DETACHED,
        message="CLONE_DETACHED means nothing any more, and beside CLONE_PIDFD it is refused",
        cure="leave CLONE_DETACHED out",
    ),
    Rule(
        id="pidfd-thread",
        calls=_BOTH,
        all_of=_F.PIDFD | _F.THREAD,
        until=(6, 9),
        message="before Linux 6.9 there is no pidfd for a thread, so not CLONE_PIDFD with CLONE_THREAD",
        cure="leave CLONE_PIDFD out",
    ),
    Rule(
        id="autoreap-parent-thread",
        calls=_CLONE3,
        all_of=_F.AUTOREAP,
        any_of=_F.PARENT | _F.THREAD,
        since=_V7_1,
        message="CLONE_AUTOREAP is for a child of the caller, not beside {flags}",
        cure="leave one of them out; threads need no reaping",
    ),
    Rule(
        id="autoreap-exit-signal",
        calls=_CLONE3,
        all_of=_F.AUTOREAP,
        since=_V7_1,
        when=lambda context: context.exit_signal != 0,
        message="a task with CLONE_AUTOREAP ends without a signal",
        cure="use exit_signal=0",
    ),
    Rule(
        id="nnp-thread",
        calls=_CLONE3,
        all_of=_F.NNP | _F.THREAD,
        since=_V7_1,
        message="CLONE_NNP is not for a single thread of a group (CLONE_THREAD)",
        cure="leave one of them out; a thread can set no_new_privs itself",
    ),
    needs(
        _F.PIDFD_AUTOKILL,
        "autokill-needs-pidfd-autoreap",
        "CLONE_PIDFD_AUTOKILL needs CLONE_PIDFD, whose close is the kill, and CLONE_AUTOREAP, for nobody will wait",
        "add PIDFD and AUTOREAP",
        since=_V7_1,
    ),
    Rule(
        id="not-for-unshare",
        calls=_UNSHARE,
        any_of=(_NOT_FOR_UNSHARE | _UNNAMED) & ~_F(UNSHARE_EMPTY_MNTNS),
        message="unshare(2) does not take {flags}",
        cure="it takes what can stop being shared, and the namespaces",
    ),
    Rule(
        id="empty-mounts-unshare",
        calls=_UNSHARE,
        all_of=_F(UNSHARE_EMPTY_MNTNS),
        until=_V7_1,
        message=f"unshare(2) takes bit {UNSHARE_EMPTY_MNTNS:#x} only since Linux 7.1, where it is UNSHARE_EMPTY_MNTNS",
        cure="if CLONE_PARENT_SETTID was meant: only clone has it",
    ),
    Rule(
        id="unshare-in-thread",
        calls=_UNSHARE,
        any_of=_F.VM | _F.SIGHAND | _F.THREAD | _F.NEWUSER,
        when=lambda context: context.threaded,
        message="a process with several threads cannot unshare {flags}: threads share memory, signal handlers and the "
        "user namespace to their end",
        cure="start a task that has it from birth",
    ),
    Rule(
        id="unshare-handlers",
        calls=_UNSHARE,
        any_of=_F.VM | _F.SIGHAND,
        when=lambda context: context.shares_handlers,
        message="a task that shares its signal handlers with another process cannot unshare {flags}",
        cure="start a task that has its own from birth",
    ),
    Rule(
        id="unshare-memory",
        calls=_UNSHARE,
        all_of=_F.VM,
        when=lambda context: context.shares_memory,
        message="a task that shares its memory with another process cannot unshare it (CLONE_VM): that takes execve",
        cure="start a task that has its own from birth",
    ),
    Rule(
        id="autokill-privilege",
        calls=_CLONE3,
        errno=errno.EPERM,
        all_of=_F.PIDFD_AUTOKILL,
        lacking=ROWS[_F.PIDFD_AUTOKILL].spared_by,
        since=_V7_1,
        when=lambda context: context.privileged is False,
        message=f"CLONE_PIDFD_AUTOKILL without CLONE_NNP needs {SYS_ADMIN}: the task might gain privileges and then be "
        "killed by one who has none",
        cure="add NNP; NEWUSER does not help",
    ),
    Rule(
        id="namespace-privilege",
        calls=_ALL,
        errno=errno.EPERM,
        any_of=_SPARED_BY_NEWUSER,
        lacking=_F.NEWUSER,
        when=lambda context: context.privileged is False,
        message=f"{{flags}} needs {SYS_ADMIN}",
        cure="add NEWUSER: in a user namespace of its own the task has every capability",
    ),
    Rule(
        id="empty-mounts-privilege",
        calls=_UNSHARE,
        errno=errno.EPERM,
        all_of=_F(UNSHARE_EMPTY_MNTNS),
        lacking=_F.NEWUSER,
        since=_V7_1,
        when=lambda context: context.privileged is False,
        message=f"UNSHARE_EMPTY_MNTNS needs {SYS_ADMIN}",
        cure="add NEWUSER: in a user namespace of its own the task has every capability",
    ),
    # The kernel looks at this pair only after the privilege: an ordinary user gets EPERM for it.
    Rule(
        id="sysvsem-new-ipc",
        calls=_BOTH,
        all_of=_F.SYSVSEM | _F.NEWIPC,
        message="CLONE_SYSVSEM shares adjustments to semaphores that a new IPC namespace (CLONE_NEWIPC) does not have",
        cure="leave one of them out",
    ),
    Rule(
        id="new-pid-after-unshare-pid",
        calls=_ALL,
        all_of=_F.NEWPID,
        when=lambda context: context.unshared_pid,
        message="after unshare(CLONE_NEWPID) the caller's children already go to a PID namespace that is not its own, "
        "and only a member of that one can make another in it",
        cure="leave CLONE_NEWPID out, or say it in that child",
    ),
    Rule(
        id="pidfd-pointer",
        calls=_BOTH,
        errno=errno.EFAULT,
        all_of=_F.PIDFD,
        when=lambda context: "pidfd" in context.missing,
        message="CLONE_PIDFD needs the address at which to store the descriptor",
        cure="taskclone supplies it; a raw call has to",
    ),
    Rule(
        id="cgroup-descriptor",
        calls=_CLONE3,
        errno=errno.EBADF,
        all_of=_F.INTO_CGROUP,
        when=lambda context: "cgroup" in context.missing,
        message="CLONE_INTO_CGROUP needs an open descriptor of the group's directory",
        cure="give cgroup=, a directory below /sys/fs/cgroup or a descriptor of it",
    ),
    Rule(
        id="thread-into-cgroup",
        calls=_CLONE3,
        errno=errno.EOPNOTSUPP,
        all_of=_F.INTO_CGROUP | _F.THREAD,
        when=lambda context: context.other_domain,
        message="the threads of one group are in one resource domain, so CLONE_THREAD cannot go with CLONE_INTO_CGROUP "
        "into another",
        cure="leave CLONE_THREAD out; a running thread is moved by cgroup.threads of its group",
    ),
    *PLAN_RULES,
)


def broken(flags: CloneFlags, context: Context) -> list[Rule]:
    """The rules that the set breaks, in the order in which the kernel comes to them; [] for a legal set."""
    return [rule for rule in RULES if rule.is_broken(flags, context)]


def missing_privilege(flags: CloneFlags, context: Context) -> list[Rule]:
    """The rules of ``broken`` that ask for a privilege, whatever else is wrong with the set.

    With ``context.privileged`` None the capabilities of the calling thread decide. A container's filter may still
    refuse what these rules allow.
    """
    privileged = has_sys_admin() if context.privileged is None else context.privileged
    context = dataclasses.replace(context, privileged=privileged)
    return [rule for rule in broken(flags, context) if rule.errno == errno.EPERM]


def advice(rule: Rule, flags: CloneFlags, setup: Collection[str] = ()) -> str:
    """What is wrong with this set, and the setup in use, by this rule, and the cure; the one common slip is named."""
    slip = flags & _F.THREAD and rule.id in _SLIPS_FOR_THREAD
    cure = _THREAD_SLIP if slip else rule.cure.replace("{setup}", ", ".join(rule.in_use(setup)))
    return f"{rule.text(flags, setup)}; {cure}"


def require_legal(flags: CloneFlags, context: Context) -> None:
    """Raise FlagError for a set that breaks a rule: errno and id are the first rule's, the others are named."""
    rules = broken(flags, context)
    if not rules:
        return
    first, *more = rules
    names, used = flag_names(flags), ", ".join(first.in_use(context.setup))
    what = f"{names} does not go with {used}" if used else f"{context.call} cannot take {names}"
    message = f"{what}: {advice(first, flags, context.setup)}"
    if more:
        message += f" (broken as well: {', '.join(rule.id for rule in more)})"
    raise FlagError(first.errno, message, first.id)
