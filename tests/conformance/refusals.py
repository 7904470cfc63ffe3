"""The legal sets that a route refuses, and why: all there are. What is not here must be carried.

An entry that no set needs, on the newest kernel either, can go; ``prove.py`` prints them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from sets import Case

from taskclone.flags import CloneFlags

F = CloneFlags


class Refusal(NamedTuple):
    """One reason.

    Attributes:
        reason: in a few words, for the report.
        covers: the cases that are refused for it.
        words: what the UnsupportedOperation says among other things.
    """

    reason: str
    covers: Callable[[Case], bool]
    words: str


def _on(routes: str, flags: int, without: int = 0) -> Callable[[Case], bool]:
    """The cases on routes whose name begins so that have one of the flags, and none of ``without``."""
    return lambda case: case.route.startswith(routes) and bool(case.flags & flags) and not case.flags & without


ALLOWED: Final = (
    Refusal(
        "its parent would be another: it could outlive the memory that it shares", _on("shared", F.PARENT), "PARENT"
    ),
    Refusal(
        "the I/O context would be the host's, which clones where a pidfd of the creator is needed",
        lambda case: case.route == "shared" and bool(case.flags & F.IO and case.flags & F.NEWPID),
        "Add VFORK",
    ),
    Refusal("execve in a thread ends the creator's process", _on("program", F.THREAD), "THREAD"),
    Refusal("its setup would change the creator's handlers", _on("program", F.SIGHAND), "SIGHAND"),
)
