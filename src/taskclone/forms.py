"""The three forms of a copy: which one a set without VM takes, and why.

``fork`` is libc's own. ``relay`` is a fork whose child puts a task with the flags in its own place (clone3 with
CLONE_PARENT) and ends. ``bare`` is a clone3 by the creator itself. See csrc/core/copies.h.
"""

from __future__ import annotations

import signal
from typing import Final, Literal, TypeAlias

from taskclone.flags import CloneFlags, members

__all__ = ["Form", "default_exit_signal", "form_of", "why"]

Form: TypeAlias = Literal["fork", "relay", "bare"]

_F = CloneFlags
_WITH_THE_CREATOR: Final = int(_F.FILES | _F.FS | _F.SYSVSEM | _F.IO | _F.PARENT | _F.AUTOREAP | _F.PIDFD_AUTOKILL)
"""What is between the new task and the one who clones: in a relay that would be the task in the middle."""
_LIBC: Final = int(_F.CHILD_SETTID | _F.CHILD_CLEARTID)
"""What libc's fork passes by itself."""


def form_of(flags: int, bare: bool = False, numbered: bool = False) -> Form:
    """How a task with these flags, which have no VM, comes to its copy of the memory; ``numbered``: with set_tid."""
    bits = int(flags)
    if bare or bits & _WITH_THE_CREATOR:
        return "bare"
    return "relay" if bits & ~_LIBC or numbered else "fork"


def default_exit_signal(form: Form) -> int:
    """What the creator is sent at the end, where the plan does not say: fork's own, which a relay hands on, or none."""
    return 0 if form == "bare" else int(signal.SIGCHLD)


def why(flags: int, bare: bool = False, numbered: bool = False) -> str:
    """The form, and the reason for it, in a sentence."""
    form = form_of(flags, bare, numbered)
    if form == "fork":
        return "fork: by fork() of the C library, with all handlers that others have set for that"
    if form == "relay":
        names = ", ".join(filter(None, (_long(int(flags) & ~_LIBC), "set_tid" if numbered else "")))
        return (
            f"relay: fork() cannot say {names}, so its child, in which all handlers have run, makes the task by clone3 "
            "with CLONE_PARENT, as the creator's own child, and ends"
        )
    if bare:
        return (
            "bare: one clone3, because the plan says bare=True; no handler of the C library's runs, none of the "
            "interpreter's unless Python has other threads, and what those have locked stays locked in the copy"
        )
    files = int(flags) & int(_F.FILES)
    return (
        f"bare: {_long(int(flags) & _WITH_THE_CREATOR)} can be shared only by a clone3 of the creator itself; the C "
        "library's handlers for fork() do not run, so it is refused while the creator has other threads (bare=True "
        "insists)"
        + ("; with FILES neither do Python's, but for its own, lest they close the creator's" if files else "")
    )


def _long(flags: int) -> str:
    return ", ".join(f"CLONE_{member.name}" for member in members(flags))
