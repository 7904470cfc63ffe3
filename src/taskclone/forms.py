"""The forms of a copy and of a thread: which one a set takes, and why.

Without VM: ``fork`` is libc's own. ``relay`` is a fork whose child puts a task with the flags in its own place (clone3
with CLONE_PARENT) and ends. ``bare`` is a clone3 by the creator itself. See csrc/core/copies.h.

With THREAD: pthread_create and unshare(2), or a clone of the creator's onto the storage of a thread that
pthread_create has made. See csrc/core/exchange.c.
"""

from __future__ import annotations

import signal
from typing import Final, Literal, TypeAlias

from taskclone.flags import THREAD, CloneFlags, members

__all__ = ["Form", "default_exit_signal", "form_of", "thread_by_clone", "thread_own", "why", "why_thread"]

Form: TypeAlias = Literal["fork", "relay", "bare"]

_F = CloneFlags
_WITH_THE_CREATOR: Final = int(_F.FILES | _F.FS | _F.SYSVSEM | _F.IO | _F.PARENT | _F.AUTOREAP | _F.PIDFD_AUTOKILL)
"""What is between the new task and the one who clones: in a relay that would be the task in the middle."""
_LIBC: Final = int(_F.CHILD_SETTID | _F.CHILD_CLEARTID)
"""What libc's fork passes by itself."""
_POINTERS: Final = int(_F.SETTLS | _F.PARENT_SETTID | _F.CHILD_CLEARTID)
"""What pthread_create passes whether it is named or not."""
_LEFT_OUT: Final = int(_F.FS | _F.FILES | _F.SYSVSEM)
"""What pthread_create shares and a thread can stop sharing."""
_MADE_NEW: Final = int(_F.NEWNS | _F.NEWUTS | _F.NEWIPC | _F.NEWNET | _F.NEWCGROUP | _F.NEWTIME)
"""The namespaces that unshare(2) makes new for one thread of many; NEWTIME for its children."""
_THREAD: Final = int(THREAD)


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


def thread_own(flags: int) -> int:
    """What a thread with these flags has of its own, as unshare(2) takes it."""
    bits = int(flags)
    return _LEFT_OUT & ~bits | bits & _MADE_NEW


def thread_by_clone(flags: int) -> int:
    """Those of the flags that neither pthread_create nor unshare(2) can do; with any of them all go into a clone."""
    return int(flags) & ~(_THREAD | _POINTERS | _MADE_NEW)


def why_thread(flags: int, numbered: bool = False) -> str:
    """How a thread with these flags is made, and the reason for it, in a sentence; ``numbered``: with set_tid."""
    more, own = thread_by_clone(flags), thread_own(flags)
    if more or numbered:
        names = ", ".join(filter(None, (_long(more), "set_tid" if numbered else "")))
        return (
            f"by clone3 of the creator itself, since pthread_create cannot say {names}; onto stack and storage "
            "of a thread that pthread_create has made for it"
        )
    if own:
        left_out, new = _long(own & _LEFT_OUT), _long(own & _MADE_NEW)
        parts = ([f"stops sharing what {left_out} would share"] if left_out else []) + ([f"makes {new}"] if new else [])
        return f"by pthread_create, and before its body unshare(2) {' and '.join(parts)}"
    return "by pthread_create"


def _long(flags: int) -> str:
    return ", ".join(f"CLONE_{member.name}" for member in members(flags))
