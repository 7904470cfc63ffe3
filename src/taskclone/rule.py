"""One rule about flags, and the context that it is held against; taskclone.rules holds the rules themselves.

The functions at the end make the rules and sets of flags that follow from the table.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Literal

from taskclone.flags import ROWS, Call, CloneFlags, Row, flag_names

__all__ = [
    "Argument",
    "Context",
    "Rule",
    "Version",
    "came_with",
    "emulated",
    "flags_with",
    "has_capability",
    "has_sys_admin",
    "needs",
    "running_kernel",
]

Version = tuple[int, int]
"""A kernel version: (major, minor)."""

Argument = Literal["stack", "stack_size", "pidfd", "cgroup"]
"""A field of clone3's argument that a caller may fail to supply."""

_NONE = CloneFlags(0)
_CAP_SYS_ADMIN_BIT: Final = 21  # <linux/capability.h>


@functools.cache
def running_kernel() -> Version:
    """(major, minor) of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))]
    return int(major), int(digits or 0)


def has_sys_admin() -> bool:
    """Whether the calling thread has CAP_SYS_ADMIN in effect."""
    return has_capability(_CAP_SYS_ADMIN_BIT)


def has_capability(bit: int) -> bool:
    """Whether the calling thread has a capability in effect (/proc/thread-self/status, CapEff; <linux/capability.h>).

    It counts in the thread's own user namespace, which is what clone asks for. Where /proc is not mounted, root has it.
    """
    try:
        with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
            status = file.read()
    except OSError:
        return os.geteuid() == 0
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> bit & 1)


@dataclass(frozen=True, slots=True)
class Context:
    """What besides the flags decides whether a set is legal. The default is an ordinary clone3 on this kernel.

    Attributes:
        call: the system call that gets the flags: clone, clone3 or unshare.
        kernel: (major, minor).
        privileged: whether the caller has CAP_SYS_ADMIN in its user namespace; None leaves privileges to the kernel.
        exit_signal: the signal that the creator gets at the task's end, 0 for none.
        threaded: the caller has other threads (unshare).
        shares_memory: another process shares the caller's memory (unshare).
        shares_handlers: another process shares the caller's signal handlers, hence memory too (unshare).
        is_init: the caller is pid 1 of its PID namespace.
        unshared_pid: the caller has called unshare(NEWPID), so its children go to another namespace than its own.
        unshared_time: likewise unshare(NEWTIME).
        other_domain: the group of INTO_CGROUP belongs to another resource domain than the caller's group.
        emulated: flags that are done another way where the kernel is too old for them.
        setup: the fields that are in use of what is done in the child before its body, by name (ChildSetup, the
            streams of a Plan).
        missing: arguments that the caller leaves out although they are called for: half of a stack, the pointer for
            PIDFD, an open descriptor for INTO_CGROUP.
    """

    call: Call = "clone3"
    kernel: Version = field(default_factory=running_kernel)
    privileged: bool | None = None
    exit_signal: int = 0
    threaded: bool = False
    shares_memory: bool = False
    shares_handlers: bool = False
    is_init: bool = False
    unshared_pid: bool = False
    unshared_time: bool = False
    other_domain: bool = False
    missing: Collection[Argument] = ()
    emulated: CloneFlags = _NONE
    setup: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.call not in ("clone", "clone3", "unshare"):
            raise ValueError(f"no rules for the call {self.call!r}: they are about clone, clone3 and unshare")
        if self.exit_signal < 0:
            raise ValueError(f"an exit signal cannot be negative: {self.exit_signal}")
        if self.call == "clone" and self.exit_signal > 0xFF:
            raise ValueError(f"clone(2) has one byte for the exit signal, {self.exit_signal} does not fit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One reason to refuse a set.

    It is broken when the call and the kernel version are its own, every flag of ``all_of`` and one of ``any_of`` (if
    there is any) is set, one of ``lacking`` (if there is any) is not, one field of ``setup`` (if there is any) is in
    use, and ``when`` holds for the context.

    Attributes:
        id: a stable identifier, words joined by hyphens.
        calls: the system calls that have it.
        errno: what the kernel answers.
        message: the rule and its reason in plain words; ``{flags}`` stands for the flags of ``any_of`` in the set,
            ``{setup}`` for the fields of ``setup`` in use.
        cure: the likely slip, or what to do instead; ``{setup}`` as above.
        since: the first kernel that has it; None for every kernel from 5.10. An older one too, for an emulated flag.
        until: the first kernel that has it no more; None for none so far.
        setup: fields of the setup that do not go with the flags.
        came: it is about kernels that are older than its flags.
        kernel_refuses: False where the kernel does not refuse but misreads silently, or does what nobody can mean, so
            that only we can refuse.
    """

    id: str
    calls: tuple[Call, ...]
    message: str
    cure: str
    errno: int = errno.EINVAL
    all_of: CloneFlags = _NONE
    any_of: CloneFlags = _NONE
    lacking: CloneFlags = _NONE
    when: Callable[[Context], bool] | None = None
    since: Version | None = None
    until: Version | None = None
    kernel_refuses: bool = True
    setup: tuple[str, ...] = ()
    came: bool = False

    def is_broken(self, flags: CloneFlags, context: Context) -> bool:
        """Whether ``flags`` break the rule in ``context``."""
        # Plain integers: IntFlag's operators are slow, and clear enough without.
        bits, all_of, lacking = int(flags), int(self.all_of), int(self.lacking)
        return (
            context.call in self.calls
            and not (self.came and bits & int(self.any_of) & ~int(context.emulated) == 0)
            and (self.since is None or context.kernel >= self.since or int(self.all_of & context.emulated) != 0)
            and (self.until is None or context.kernel < self.until)
            and bits & all_of == all_of
            and (not self.any_of or bits & int(self.any_of) != 0)
            and (not lacking or bits & lacking != lacking)
            and (not self.setup or not context.setup.isdisjoint(self.setup))
            and (self.when is None or self.when(context))
        )

    def text(self, flags: CloneFlags, setup: Collection[str] = ()) -> str:
        """The message about this set and the setup that is in use, without the cure."""
        names = flag_names(int(flags) & int(self.any_of)).split("|")
        shown = ", ".join(n if n.startswith("0x") else f"CLONE_{n}" for n in names)
        return self.message.format(flags=shown, setup=", ".join(self.in_use(setup)))

    def in_use(self, setup: Collection[str]) -> list[str]:
        """Those of the rule's fields that are in use."""
        return [name for name in self.setup if name in setup]


_DONE_ANOTHER_WAY: Final = CloneFlags.NNP
"""Before Linux 7.1 a task of this package does it by prctl(2)."""


def emulated(flags: CloneFlags) -> CloneFlags:
    """Those of the flags that the running kernel is too old for, and that are done another way."""
    return flags & _DONE_ANOTHER_WAY if running_kernel() < (7, 1) else _NONE


def flags_with(pick: Callable[[Row], bool]) -> CloneFlags:
    """All flags of the table whose row ``pick`` takes."""
    return functools.reduce(CloneFlags.__or__, (member for member, row in ROWS.items() if pick(row)), _NONE)


def came_with(version: Version) -> Rule:
    """Kernels before ``version`` refuse the flags that it brought: to them the bits are unknown."""
    number = ".".join(map(str, version))
    return Rule(
        id=f"since-{number}",
        calls=("clone3",),
        any_of=flags_with(lambda row: row.since[:2] == version),
        until=version,
        came=True,
        message=f"{{flags}} came with Linux {number}, and this kernel is older",
        cure="leave it out, or reach the effect another way",
    )


def needs(member: CloneFlags, id: str, message: str, cure: str, since: Version | None = None) -> Rule:
    """A flag that needs others beside it, to clone and clone3: which ones is the table's to say."""
    return Rule(
        id=id,
        calls=("clone", "clone3"),
        all_of=member,
        lacking=ROWS[member].requires,
        message=message,
        cure=cure,
        since=since,
    )
