"""What was seen of a call, in plain words; those for flags are the table's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from taskclone.flags import ROWS, CloneFlags, flag_names, members
from taskclone.outcome import signal_name
from taskclone.tracer.findings import Finding, Seen
from taskclone.tracer.records import CLONE_ARGS_SIZE

__all__ = ["alike", "flag_words", "notes", "shared_words", "signal_words"]


def flag_words(seen: Seen) -> str:
    """``VM|VFORK``, unknown bits included; ``none``; ``?`` where they could not be read."""
    if seen.call.unread:
        return "?"
    return flag_names(seen.call.flags) if seen.call.flags else "none"


def signal_words(seen: Seen) -> str:
    """``SIGCHLD``; ``none``; ``?``."""
    if seen.call.unread:
        return "?"
    return signal_name(seen.call.exit_signal) if seen.call.exit_signal else "none"


def shared_words(flags: CloneFlags) -> str:
    """The resources that the flags share, by the words of the table of flags; what becomes of memory when it is not."""
    shared = [row.resource for member, row in ROWS.items() if row.kind == "share" and member & flags]
    new = [ROWS[member].resource for member in members(flags) if ROWS[member].kind == "namespace"]
    text = ", ".join(shared) or "nothing"
    if not flags & CloneFlags.VM:
        text += f"; memory: {ROWS[CloneFlags.VM].default}"
    if flags & CloneFlags.VFORK:
        text += "; the creator sleeps until execve or the end"
    return text + (f"; new: {', '.join(new)}" if new else "")


def alike(finding: Finding) -> Iterator[list[Seen]]:
    """The calls of an API: the one that it is for, then the others in order; those that look the same are together."""
    groups: dict[object, list[Seen]] = {}
    for seen in finding.calls:
        call = seen.call
        look = (call.system_call, call.flags, call.exit_signal, seen.maker, call.error, call.given, seen.programs)
        groups.setdefault("body" if seen.is_body else look, []).append(seen)
    yield from [groups.pop("body")] if "body" in groups else []
    yield from groups.values()


def notes(finding: Finding, group: Sequence[Seen]) -> str:
    """What else there is to say of calls that look the same."""
    seen, call = group[0], group[0].call
    parts = []
    if len(finding.calls) > 1:
        numbers = ", ".join(str(other.number) for other in group)
        maker = f", by the task of call {seen.maker}" if seen.maker else ""
        parts.append(f"call{'s' if len(group) > 1 else ''} {numbers} of {len(finding.calls)}{maker}")
    if call.error:
        parts.append(f"refused: {call.error_name}")
    if call.unread:
        parts.append(f"its arguments could not be read: {call.unread_name}")
    if call.size > CLONE_ARGS_SIZE:
        parts.append(f"clone_args of {call.size} bytes, of which {CLONE_ARGS_SIZE} are shown")
    if call.given:
        parts.append(f"given: {', '.join(call.given)}")
    if call.child and not call.followed:
        parts.append("not followed (UNTRACED)")
    if seen.programs:
        parts.append(f"then runs {', '.join(seen.programs)}")
    return "; ".join(parts)
