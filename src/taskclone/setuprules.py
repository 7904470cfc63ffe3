"""Rules over flags and the rest of a plan: what a flag shares with the creator, the child's setup must not change.

The kernel would let it pass and the creator would be changed too: so none of these is the kernel's own, and all of
them come after those of taskclone.rules that are. Setup is known here by the names of its fields only; a field stands
in one rule, and may stand there before there is a part of this package that has it.
"""

from __future__ import annotations

from typing import Final

from taskclone.flags import Call, CloneFlags
from taskclone.rule import Rule

__all__ = ["PLAN_RULES", "SETUP_RULES"]

_F = CloneFlags
_BOTH: tuple[Call, ...] = ("clone", "clone3")


def _shared(member: CloneFlags, id: str, fields: tuple[str, ...], shares: str, cure: str = "") -> Rule:
    """Setup that would reach the creator through what ``member`` shares."""
    return Rule(
        id=id,
        calls=_BOTH,
        all_of=member,
        setup=fields,
        kernel_refuses=False,
        message=f"CLONE_{member.name} {shares}, so {{setup}} in the child would change the creator's too",
        cure=cure or f"leave CLONE_{member.name} or {{setup}} out",
    )


SETUP_RULES: Final[tuple[Rule, ...]] = (
    _shared(_F.FS, "fs-setup", ("cwd", "umask", "chroot"), "shares working directory, root directory and umask"),
    _shared(
        _F.FILES,
        "files-setup",
        ("close_fds", "pass_fds", "stdin", "stdout", "stderr"),
        "shares the table of descriptors",
    ),
    _shared(_F.SIGHAND, "sighand-setup", ("signals",), "shares the table of signal handlers"),
    _shared(
        _F.THREAD,
        "thread-setup",
        ("rlimits", "session", "process_group", "timers"),
        "joins the creator's process, which has one session, process group, set of resource limits and of timers",
        "leave CLONE_THREAD or {setup} out; VM alone shares memory too",
    ),
    _shared(
        _F.VM,
        "vm-setup",
        ("oom_score", "memory"),
        "shares memory, for which the kernel keeps one out-of-memory score and charges one control group",
        "leave CLONE_VM or {setup} out: limits on memory need memory that is copied",
    ),
)

PLAN_RULES: Final[tuple[Rule, ...]] = (
    *SETUP_RULES,
    Rule(
        id="maps-new-user",
        calls=_BOTH,
        lacking=_F.NEWUSER,
        setup=("uid_map", "gid_map"),
        kernel_refuses=False,
        message="{setup}: ids are mapped into a user namespace of the task's own, and CLONE_NEWUSER is not in the set",
        cure="add NEWUSER",
    ),
    Rule(
        id="parent-death-sibling",
        calls=_BOTH,
        all_of=_F.PARENT,
        setup=("parent_death_signal",),
        kernel_refuses=False,
        message="with CLONE_PARENT the parent is not the creator, and {setup} would come at that one's end",
        cure="leave CLONE_PARENT or {setup} out",
    ),
    Rule(
        id="vm-copy",
        calls=_BOTH,
        all_of=_F.VM,
        setup=("bare", "leave_out"),
        kernel_refuses=False,
        message="CLONE_VM shares memory, and {setup} says how memory is to be copied",
        cure="leave CLONE_VM or {setup} out",
    ),
)
