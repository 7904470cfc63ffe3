"""What clone(2) did where clone3 was not to be had, in words. The core's side of it is fallback.c."""

from __future__ import annotations

from taskclone.flags import CloneFlags, members

__all__ = ["emulated"]

_WHY = "clone3 is missing or filtered here, and clone(2) cannot say it"
_HOW = {
    CloneFlags.CLEAR_SIGHAND: "each handler was reset in the task by a call of its own, before the body",
    CloneFlags.PIDFD: "the creator opens one of its own once the task is there, if it can",
    CloneFlags.PARENT_SETTID: "the id was taken from what clone(2) returned: beside PIDFD it has no place for it",
}


def emulated(bits: int) -> dict[str, str]:
    """For ``Task.emulated``: of the flags that the core did another way, how and why."""
    return {str(flag.name): f"{_HOW[flag]}: {_WHY}" for flag in members(bits)} if bits else {}
