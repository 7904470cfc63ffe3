"""What was done another way, in words: where clone3 is not to be had (fallback.c), or the kernel is too old."""

from __future__ import annotations

from taskclone.flags import CloneFlags, members

__all__ = ["emulated"]

_WHY = "clone3 is missing or filtered here, and clone(2) cannot say it"
_HOW = {
    CloneFlags.CLEAR_SIGHAND: f"each handler was reset in the task by a call of its own, before the body: {_WHY}",
    CloneFlags.PIDFD: f"the creator opens one of its own once the task is there, if it can: {_WHY}",
    CloneFlags.PARENT_SETTID: f"the id was taken from what clone(2) returned, which has no place for it: {_WHY}",
    CloneFlags.NNP: "prctl(PR_SET_NO_NEW_PRIVS) in the task, before the body: the flag came with Linux 7.1",
}


def emulated(bits: int) -> dict[str, str]:
    """For ``Task.emulated``: of the flags that were done another way, how and why."""
    return {str(flag.name): _HOW[flag] for flag in members(bits)} if bits else {}
