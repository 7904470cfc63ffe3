"""The table of clone's flags: the one home of every name, bit and property.

``CloneFlags`` holds name and bit, ``ROWS`` everything else, keyed by member. The rules, ``explain``,
docs/flags.md, the tracer's decoding, the inspector's columns and the parametrised tests are derived from it.
A bit that nobody knows is kept and shown, never dropped.

``python -m taskclone.flags --write`` brings docs/flags.md up to date, ``--check`` exits 1 when it is stale.

Sources: clone(2), unshare(2), setns(2), <linux/sched.h>; the flags of Linux 7.1 were tried on 7.1 to 7.3.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = [
    "PRESETS",
    "PRESET_MEANINGS",
    "PROCESS",
    "ROWS",
    "SHARED",
    "SYS_ADMIN",
    "THREAD",
    "UNSHARE_EMPTY_MNTNS",
    "Call",
    "CloneFlags",
    "Kind",
    "Row",
    "call_note",
    "flag_names",
    "members",
    "parse_flags",
]

Call = Literal["clone", "clone3", "unshare", "setns"]
"""A system call that takes CLONE_* bits."""

Kind = Literal["share", "namespace", "report", "behaviour", "obsolete"]
"""What sort of thing a flag says: what is shared, which namespace is new, how the start is reported,
how the task or its creator behaves, or nothing any more."""


class CloneFlags(enum.IntFlag, boundary=enum.KEEP):
    """The CLONE_* bits by the kernel's names without the prefix, in the order of their bits.

    ``boundary=KEEP``: bits without a name stay in the value.
    """

    # Inside clone(2)'s exit signal byte, so only clone3, unshare and setns can say it.
    NEWTIME = 0x0000_0080
    VM = 0x0000_0100
    FS = 0x0000_0200
    FILES = 0x0000_0400
    SIGHAND = 0x0000_0800
    PIDFD = 0x0000_1000
    PTRACE = 0x0000_2000
    VFORK = 0x0000_4000
    PARENT = 0x0000_8000
    THREAD = 0x0001_0000
    NEWNS = 0x0002_0000
    SYSVSEM = 0x0004_0000
    SETTLS = 0x0008_0000
    PARENT_SETTID = 0x0010_0000
    CHILD_CLEARTID = 0x0020_0000
    DETACHED = 0x0040_0000
    UNTRACED = 0x0080_0000
    CHILD_SETTID = 0x0100_0000
    NEWCGROUP = 0x0200_0000
    NEWUTS = 0x0400_0000
    NEWIPC = 0x0800_0000
    NEWUSER = 0x1000_0000
    NEWPID = 0x2000_0000
    NEWNET = 0x4000_0000
    IO = 0x8000_0000
    # From here on only clone3 has room.
    CLEAR_SIGHAND = 1 << 32
    INTO_CGROUP = 1 << 33
    AUTOREAP = 1 << 34
    NNP = 1 << 35
    PIDFD_AUTOKILL = 1 << 36
    EMPTY_MNTNS = 1 << 37

    def __invert__(self) -> CloneFlags:
        """All of the 64 bits but these. The enum module's own ``~`` knows only the named bits and those between, so
        that ``flags & ~VM`` would drop the unknown ones.
        """
        return CloneFlags(0xFFFF_FFFF_FFFF_FFFF ^ int(self))


UNSHARE_EMPTY_MNTNS: Final = 0x0010_0000
"""unshare(2)'s own flag of Linux 7.1: the bit that is PARENT_SETTID to clone."""

SYS_ADMIN: Final = "CAP_SYS_ADMIN"
"""The one capability that flags ask for; it counts in the user namespace of the creator."""

_NONE = CloneFlags(0)
_CLONES: tuple[Call, ...] = ("clone", "clone3")
_CLONES_AND_UNSHARE: tuple[Call, ...] = ("clone", "clone3", "unshare")
_EVERYWHERE: tuple[Call, ...] = ("clone", "clone3", "unshare", "setns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of one flag, its bit and name apart.

    Attributes:
        kind: what sort of thing it says.
        resource: what it is about, in a word or two; flags about the same thing share the word.
        meaning: one plain sentence.
        misleads: where the kernel's name misleads, in which way; "" where it does not. ``full_meaning`` joins the two.
        effect: what the new task has with the flag; "" where there is no such state to show.
        default: what the new task has of the resource without any flag about it; "" likewise.
        accepted_by: the system calls that take it.
        since: the first Linux that has it; below three parts the last is the minor version.
        requires: flags that have to be in the set beside it.
        excludes: flags that must not be beside it, with any call, on any kernel (both rows name each other).
        privilege: the capability or permission that it asks for; "" for none.
        spared_by: flags that make the privilege unnecessary when they are in the same set.
        clone_args: the field of clone3's argument that belongs to it; "" for none.
        proc: where its effect can be seen, below /proc/PID (``status:Umask`` is a line of a file).
        kcmp: kcmp(2)'s type that compares the resource of two tasks; "" for none.
        man: the manual page that says most about it.
    """

    kind: Kind
    resource: str
    meaning: str
    since: tuple[int, ...]
    misleads: str = ""
    effect: str = ""
    default: str = ""
    accepted_by: tuple[Call, ...] = _CLONES
    requires: CloneFlags = _NONE
    excludes: CloneFlags = _NONE
    privilege: str = ""
    spared_by: CloneFlags = _NONE
    clone_args: str = ""
    proc: tuple[str, ...] = ()
    kcmp: str = ""
    man: str = "clone(2)"

    @property
    def full_meaning(self) -> str:
        """The sentence, with what is misleading about the name."""
        return f"{self.meaning.removesuffix('.')}; {self.misleads}." if self.misleads else self.meaning


def _namespace(
    resource: str,
    meaning: str,
    since: tuple[int, ...],
    proc: tuple[str, ...],
    man: str,
    *,
    misleads: str = "",
    excludes: CloneFlags = _NONE,
    accepted_by: tuple[Call, ...] = _EVERYWHERE,
) -> Row:
    """A row of the namespace family: all but the user namespace ask for the same privilege."""
    return Row(
        kind="namespace",
        resource=resource,
        meaning=meaning,
        misleads=misleads,
        since=since,
        effect="new",
        default="the creator's",
        accepted_by=accepted_by,
        excludes=excludes,
        privilege=SYS_ADMIN,
        spared_by=CloneFlags.NEWUSER,
        proc=proc,
        man=man,
    )


_F = CloneFlags

# In the order in which a picture of the task reads best: sharing, namespaces, reports, behaviour.
ROWS: Final[Mapping[CloneFlags, Row]] = MappingProxyType(
    {
        _F.VM: Row(
            kind="share",
            resource="memory",
            meaning="Memory is shared.",
            misleads="the name says clone, it means share",
            effect="shared",
            default="own copy, copy-on-write",
            accepted_by=_CLONES_AND_UNSHARE,
            since=(2, 0),
            proc=("maps", "status:VmRSS"),
            kcmp="KCMP_VM",
        ),
        _F.FILES: Row(
            kind="share",
            resource="descriptors",
            meaning="The table of file descriptors is shared: what one opens or closes is open or closed for both.",
            effect="shared",
            default="own copy, of the same open files",
            accepted_by=_CLONES_AND_UNSHARE,
            since=(2, 0),
            proc=("fd", "status:FDSize"),
            kcmp="KCMP_FILES",
        ),
        _F.FS: Row(
            kind="share",
            resource="cwd, root, umask",
            meaning="Working directory, root directory and umask are shared.",
            misleads="the name says file system, no file is shared by it",
            effect="shared",
            default="own copy",
            accepted_by=_CLONES_AND_UNSHARE,
            since=(2, 0),
            excludes=_F.NEWNS | _F.NEWUSER | _F.EMPTY_MNTNS,
            proc=("cwd", "root", "status:Umask"),
            kcmp="KCMP_FS",
        ),
        _F.SIGHAND: Row(
            kind="share",
            resource="signal handlers",
            meaning="The table of signal handlers is shared; masks and pending signals stay apart.",
            effect="shared",
            default="own copy",
            accepted_by=_CLONES_AND_UNSHARE,
            since=(2, 0),
            requires=_F.VM,
            excludes=_F.CLEAR_SIGHAND,
            proc=("status:SigCgt", "status:SigIgn"),
            kcmp="KCMP_SIGHAND",
        ),
        _F.SYSVSEM: Row(
            kind="share",
            resource="semaphore undo",
            meaning="The list of System V semaphore adjustments (SEM_UNDO) is shared; the semaphores always are.",
            effect="shared",
            default="new, empty",
            accepted_by=_CLONES_AND_UNSHARE,
            since=(2, 5, 10),
            excludes=_F.NEWIPC,
            kcmp="KCMP_SYSVSEM",
            man="semop(2)",
        ),
        _F.IO: Row(
            kind="share",
            resource="I/O context",
            meaning="The I/O context is shared: to the disk scheduler the two are one user.",
            misleads="nothing else about input and output is shared",
            effect="shared",
            default="new, of the same I/O priority",
            since=(2, 6, 25),
            kcmp="KCMP_IO",
        ),
        _F.THREAD: Row(
            kind="share",
            resource="thread group",
            meaning="The task joins its creator's thread group: same pid, no exit signal, and nobody can wait for it.",
            effect="the creator's: same pid",
            default="new: own pid",
            accepted_by=_CLONES_AND_UNSHARE,
            since=(2, 4),
            requires=_F.SIGHAND,
            excludes=_F.NEWUSER | _F.NEWPID | _F.AUTOREAP | _F.NNP,
            proc=("task", "status:Tgid"),
        ),
        _F.PARENT: Row(
            kind="share",
            resource="parent",
            meaning="The task is a sibling of its creator, not a child; its exit signal is then the creator's own.",
            misleads="the creator does not become the parent, its parent does",
            effect="the creator's parent",
            default="the creator",
            since=(2, 3, 12),
            excludes=_F.AUTOREAP,
            proc=("status:PPid",),
        ),
        _F.NEWNS: _namespace(
            "mount namespace",
            "A new mount namespace, begun as a copy.",
            (2, 4, 19),
            ("ns/mnt", "mountinfo"),
            "mount_namespaces(7)",
            misleads="it was the first kind of namespace, so the name does not say which",
            excludes=_F.FS,
        ),
        _F.EMPTY_MNTNS: _namespace(
            "mount namespace",
            "A new mount namespace that holds an empty root and no other mount; NEWNS need not be said.",
            (7, 1),
            ("ns/mnt", "mountinfo"),
            "mount_namespaces(7)",
            excludes=_F.FS,
            accepted_by=("clone3",),
        ),
        _F.NEWUTS: _namespace(
            "UTS namespace",
            "A host name and a domain name of the task's own, begun as copies.",
            (2, 6, 19),
            ("ns/uts",),
            "uts_namespaces(7)",
            misleads="the name comes from a struct of uname(2), it has nothing to do with time",
        ),
        _F.NEWIPC: _namespace(
            "IPC namespace",
            "New System V IPC objects and POSIX message queues; pipes, sockets and futexes are not among them.",
            (2, 6, 19),
            ("ns/ipc",),
            "ipc_namespaces(7)",
            excludes=_F.SYSVSEM,
        ),
        _F.NEWUSER: Row(
            kind="namespace",
            resource="user namespace",
            meaning="A new user namespace: own uids and gids, and in it every capability.",
            effect="new",
            default="the creator's",
            accepted_by=_EVERYWHERE,
            since=(3, 8),
            excludes=_F.FS | _F.THREAD,
            proc=("ns/user", "uid_map", "gid_map"),
            man="user_namespaces(7)",
        ),
        _F.NEWPID: _namespace(
            "PID namespace",
            "A new PID namespace whose init (pid 1) the task is; all in it die with it.",
            (2, 6, 24),
            ("ns/pid", "ns/pid_for_children", "status:NSpid"),
            "pid_namespaces(7)",
            excludes=_F.THREAD,
        ),
        _F.NEWNET: _namespace(
            "network namespace",
            "A new network stack of its own that holds nothing but a loopback device that is down.",
            (2, 6, 24),
            ("ns/net", "net/dev"),
            "network_namespaces(7)",
        ),
        _F.NEWCGROUP: _namespace(
            "cgroup namespace",
            "A new view of the control group tree, rooted at the creator's group; the task stays in that group.",
            (4, 6),
            ("ns/cgroup", "cgroup"),
            "cgroup_namespaces(7)",
        ),
        # clone3 takes it since 6.3 and in the stable updates of 5.10 to 6.1; the first 5.6 had it for unshare alone.
        _F.NEWTIME: _namespace(
            "time namespace",
            "New offsets of the monotonic and boot clocks; with VM they hold, since Linux 6.2, only for the task's "
            "children.",
            (5, 6),
            ("ns/time", "ns/time_for_children", "timens_offsets"),
            "time_namespaces(7)",
            accepted_by=("clone3", "unshare", "setns"),
        ),
        _F.PIDFD: Row(
            kind="report",
            resource="pidfd",
            meaning="The creator gets a pidfd, a descriptor that means this task even after its pid is reused.",
            since=(5, 2),
            clone_args="pidfd",
            proc=("fdinfo",),
            man="pidfd_open(2)",
        ),
        _F.PARENT_SETTID: Row(
            kind="report",
            resource="thread id",
            meaning="The kernel writes the new thread id to parent_tid in the creator's memory before clone returns.",
            since=(2, 5, 49),
            clone_args="parent_tid",
        ),
        _F.CHILD_SETTID: Row(
            kind="report",
            resource="thread id",
            meaning="The kernel writes the new thread id to child_tid in the task's memory before the task runs.",
            since=(2, 5, 49),
            clone_args="child_tid",
        ),
        _F.CHILD_CLEARTID: Row(
            kind="report",
            resource="end of memory use",
            meaning="When the task leaves its memory the kernel writes 0 to child_tid and wakes one futex waiter.",
            since=(2, 5, 49),
            clone_args="child_tid",
            man="set_tid_address(2)",
        ),
        _F.VFORK: Row(
            kind="behaviour",
            resource="creator",
            meaning="The creator sleeps, and only SIGKILL wakes it, until the task ends or calls execve.",
            since=(2, 2),
            proc=("stat", "wchan"),
            man="vfork(2)",
        ),
        _F.SETTLS: Row(
            kind="behaviour",
            resource="thread-local storage",
            meaning="The task starts with the thread-local storage that tls points to, not with its creator's.",
            since=(2, 5, 32),
            clone_args="tls",
        ),
        _F.PTRACE: Row(
            kind="behaviour",
            resource="tracing",
            meaning="When the creator is traced, its tracer traces the task too.",
            since=(2, 2),
            proc=("status:TracerPid",),
            man="ptrace(2)",
        ),
        _F.UNTRACED: Row(
            kind="behaviour",
            resource="tracing",
            meaning="A tracer of the creator cannot make the new task traced as well (PTRACE_O_TRACECLONE and kin).",
            since=(2, 5, 46),
            proc=("status:TracerPid",),
            man="ptrace(2)",
        ),
        _F.CLEAR_SIGHAND: Row(
            kind="behaviour",
            resource="signal handlers",
            meaning="Every handled signal is back to its default action in the task; ignored signals stay ignored.",
            effect="own, reset to default",
            accepted_by=("clone3",),
            since=(5, 5),
            excludes=_F.SIGHAND,
            proc=("status:SigCgt",),
        ),
        _F.INTO_CGROUP: Row(
            kind="behaviour",
            resource="control group",
            meaning="The task starts in the version 2 control group whose directory the descriptor cgroup has open.",
            accepted_by=("clone3",),
            since=(5, 7),
            privilege="write access to cgroup.procs of that group and of the common ancestor",
            clone_args="cgroup",
            proc=("cgroup",),
            man="cgroups(7)",
        ),
        _F.AUTOREAP: Row(
            kind="behaviour",
            resource="reaping",
            meaning="The task vanishes when it ends: no signal, no zombie, no wait; a pidfd still tells the status.",
            accepted_by=("clone3",),
            since=(7, 1),
            excludes=_F.PARENT | _F.THREAD,
        ),
        _F.NNP: Row(
            kind="behaviour",
            resource="privileges",
            meaning="The task, not its creator, starts with no_new_privs: no later execve raises its privileges.",
            accepted_by=("clone3",),
            since=(7, 1),
            excludes=_F.THREAD,
            proc=("status:NoNewPrivs",),
            man="prctl(2)",
        ),
        _F.PIDFD_AUTOKILL: Row(
            kind="behaviour",
            resource="life span",
            meaning="The kernel kills the task at the last close of the pidfd that this very call returned.",
            accepted_by=("clone3",),
            since=(7, 1),
            requires=_F.PIDFD | _F.AUTOREAP,
            privilege=SYS_ADMIN,
            spared_by=_F.NNP,
        ),
        _F.DETACHED: Row(
            kind="obsolete",
            resource="nothing",
            meaning="Nothing any more: clone(2) ignores it, clone3 refuses it.",
            accepted_by=("clone",),
            since=(2, 5, 32),
        ),
    }
)

# Bits belong to a system call: what one call reads differently from what the row says.
_CALL_NOTES: Mapping[tuple[CloneFlags, Call], str] = {
    (_F.PARENT_SETTID, "unshare"): "to unshare(2) this bit is UNSHARE_EMPTY_MNTNS (Linux 7.1): "
    "a new, empty mount namespace",
    (_F.EMPTY_MNTNS, "unshare"): "unshare(2) spells it UNSHARE_EMPTY_MNTNS, 0x100000",
    (_F.NEWTIME, "clone"): "clone(2) cannot say it: the bit lies in the byte of the exit signal",
    (_F.NEWTIME, "unshare"): "unshare(2) moves only the caller's later children into the new namespace",
    (_F.NEWPID, "unshare"): "unshare(2) moves only the caller's later children into the new namespace",
    (_F.PIDFD, "clone"): "clone(2) returns the pidfd where parent_tid points, so not beside PARENT_SETTID",
    (_F.DETACHED, "clone"): "clone(2) ignores it, but refuses it beside PIDFD",
}


def members(flags: int) -> tuple[CloneFlags, ...]:
    """The named flags of a set in the order of their bits; unknown bits are left to ``flag_names``."""
    bits = int(flags)  # IntFlag's operators are slow
    return tuple(member for member in CloneFlags if member.value & bits)


def call_note(member: CloneFlags, call: Call, *, special_only: bool = False) -> str:
    """What ``call`` makes of this bit where that is not what the table says; "" where it is.

    unshare(2) turns sharing round: a flag of kind share says there that sharing ends. ``special_only`` leaves out
    this and whatever else follows from the columns.
    """
    note = _CALL_NOTES.get((member, call), "")
    if note or special_only:
        return note
    row = ROWS[member]
    if call not in row.accepted_by:
        wide = call == "clone" and member > 0xFFFF_FFFF
        return "clone(2) cannot say it: its flags have 32 bits" if wide else f"{call}(2) does not take it"
    if call == "unshare" and row.kind == "share":
        return "unshare(2) takes it to mean: stop sharing"
    return ""


def flag_names(flags: int) -> str:
    """Decode a set without loss: ``"VM|FILES|0x4000000000"``; ``"0"`` for the empty set.

    ``parse_flags`` reads it back. Raises ValueError for a number that no 64-bit register holds.
    """
    _check_range(flags)
    rest = int(flags)
    names: list[str] = []
    for member in members(flags):
        names.append(str(member.name))
        rest &= ~int(member)
    if rest or not names:
        names.append(f"{rest:#x}" if rest else "0")
    return "|".join(names)


def parse_flags(value: int | str | CloneFlags) -> CloneFlags:
    """A set of flags from a number or from names.

    Takes ``"VM|FILES"``, ``"CLONE_VM | CLONE_FS"``, ``"vm"``, ``"0x3d0f00"``, ``"4001536"``, ``""`` (the empty
    set) and any mixture of names and numbers. The name THREAD is the flag, not the preset.

    Raises TypeError for anything else (a bool included), ValueError for an unknown name and for a number that is
    negative or wider than 64 bits.
    """
    if isinstance(value, CloneFlags):
        return value
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"flags are an int, a CloneFlags or a str such as 'VM|FILES', not {type(value).__name__}")
    if isinstance(value, int):
        _check_range(value)
        return CloneFlags(int(value))
    bits = 0
    if value.strip():
        for part in value.split("|"):
            bits |= _parse_part(part.strip(), value)
    return CloneFlags(bits)


def _parse_part(part: str, whole: str) -> int:
    """One name or number of a string of flags; ``whole`` is the string, for the message."""
    name = part.upper().removeprefix("CLONE_")
    member = CloneFlags.__members__.get(name)
    if member is not None:
        return int(member)
    try:
        number = int(part, 0)
    except ValueError:
        raise ValueError(_unknown_name(part, name, whole)) from None
    _check_range(number)
    return number


def _unknown_name(part: str, name: str, whole: str) -> str:
    """The message for a name that is none, with what may have been meant."""
    if not part:
        return f"an empty name in the flags {whole!r}: names are joined by a single '|'"
    import difflib  # only here: nobody should pay for it at import

    where = "" if part == whole.strip() else f" in {whole!r}"
    close = difflib.get_close_matches(name, CloneFlags.__members__, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "the names are those of taskclone.CloneFlags"
    if any(sign in part for sign in ",+ &"):
        hint = "names are joined by '|'"
    return f"unknown flag {part!r}{where}; {hint}"


def _check_range(number: int) -> None:
    """Refuse what cannot be a set of flags at all."""
    if number < 0:
        raise ValueError(f"flags cannot be negative: {int(number)}")
    if number >> 64:
        raise ValueError(f"flags have at most 64 bits: {int(number):#x}")


PROCESS: Final = CloneFlags(0)
"""Nothing is shared: what fork does."""

SHARED: Final = CloneFlags.VM | CloneFlags.FILES
"""Objects and descriptors are shared; pid, cwd, signals, credentials, namespaces and death are the task's own."""

THREAD: Final = (
    CloneFlags.VM
    | CloneFlags.FS
    | CloneFlags.FILES
    | CloneFlags.SIGHAND
    | CloneFlags.THREAD
    | CloneFlags.SYSVSEM
    | CloneFlags.SETTLS
    | CloneFlags.PARENT_SETTID
    | CloneFlags.CHILD_CLEARTID
)
"""Exactly the set that pthread_create passes, 0x3d0f00."""

PRESETS: Final[dict[str, CloneFlags]] = {"PROCESS": PROCESS, "SHARED": SHARED, "THREAD": THREAD}
"""The three named points of the spectrum, from nothing shared to everything shared."""

PRESET_MEANINGS: Final[dict[str, str]] = {
    "PROCESS": "nothing is shared: what fork does, with the exit signal SIGCHLD",
    "SHARED": "objects and descriptors are shared; pid, cwd, signals, credentials and death are the task's own",
    "THREAD": "all that the threads of a process share: exactly the set that pthread_create passes",
}


if __name__ == "__main__":
    # The writer of the document is a module of its own; importing this one stays cheap.
    from taskclone.flagdoc import main

    raise SystemExit(main())
