"""What a flag or a set of flags means, in text: what the task shares, what the set does, which rules it breaks.

Everything about a flag comes from the table in taskclone.flags, everything about combinations from taskclone.rules.
Nothing here asks the kernel for more than its version.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterable, Iterator
from typing import Final, get_args

from taskclone import forms
from taskclone.flags import PRESET_MEANINGS, PRESETS, ROWS, Call, CloneFlags, Row, call_note, flag_names, members
from taskclone.rules import Context, advice, broken, emulated

__all__ = ["explain_flag", "explain_set"]

_F = CloneFlags
_INDENT: Final = "  "

_SHARE_DEFAULTS: Final = {row.resource: member for member, row in ROWS.items() if row.kind == "share"}
"""For each line of the picture the flag whose absence is the default, in the order of the table."""

_FROM_THE_PLAN: Final = ("cgroup",)
"""Fields of clone_args that are the user's to give; the others are pointers, which the runtime supplies."""


def _fields(pairs: Iterable[tuple[str, str]]) -> str:
    """Lines of "name: text" in two columns; an empty text leaves its line out."""
    return "\n".join(f"{_INDENT}{name + ':':<13} {text}" for name, text in pairs if text)


def _long(flags: CloneFlags) -> str:
    """Names with their prefix, for prose."""
    return ", ".join(f"CLONE_{member.name}" for member in members(flags))


def _version(since: tuple[int, ...]) -> str:
    return ".".join(map(str, since))


def _privilege(row: Row) -> str:
    """What the flag asks for, and what in the set spares it."""
    return row.privilege + (f", unless {_long(row.spared_by)} is in the set" if row.spared_by else "")


def _owner(row: Row) -> str:
    """The field of clone_args that goes with the flag, and who fills it."""
    if not row.clone_args:
        return ""
    owner = "the plan" if row.clone_args in _FROM_THE_PLAN else "the runtime"
    return f"{row.clone_args}, supplied by {owner}"


def explain_flag(member: CloneFlags) -> str:
    """All that the table says of one flag, in some ten lines.

    Raises ValueError when ``member`` is not exactly one flag of the table.
    """
    row = ROWS.get(member)
    if row is None:
        raise ValueError(f"{flag_names(member)} is not a single flag of the table; explain_set explains sets")
    notes = (call_note(member, call, special_only=True) for call in get_args(Call))
    sharing = f"{row.effect}; without the flag: {row.default}" if row.default else ""
    lines = _fields(
        [
            ("bit", f"{int(member):#x} (bit {int(member).bit_length() - 1})"),
            ("about", f"{row.resource} ({row.kind})"),
            ("the task has", sharing or row.effect),
            ("since", f"Linux {_version(row.since)}"),
            ("taken by", ", ".join(row.accepted_by)),
            ("requires", _long(row.requires)),
            ("excludes", _long(row.excludes)),
            ("privilege", _privilege(row) or "none"),
            ("clone_args", _owner(row)),
            ("look at", ", ".join(f"/proc/PID/{place}" for place in row.proc)),
            ("kcmp", row.kcmp),
            ("manual", row.man),
            ("note", "; ".join(filter(None, notes))),
        ]
    )
    return f"CLONE_{member.name}: {row.full_meaning}\n{lines}"


def explain_set(flags: CloneFlags, *, exit_signal: int = 0, bare: bool = False, numbered: bool = False) -> str:
    """A set as text: names, number, preset; one line a resource; what else it does; the rules that it breaks.

    Where memory is not shared, also how a function comes to its copy; ``bare`` is that of the plan, ``numbered`` says
    that it has a set_tid. A thread: how it is made.
    The rules are those of clone3 on the running kernel; privileges are named, not checked.
    Raises ValueError for an exit signal that is negative.
    """
    another_way = emulated(flags)
    given = flags & ~another_way
    parts = [
        _headline(flags),
        "\n".join(_picture(flags)),
        _section("namespaces of the task's own", _new_namespaces(flags)),
        _section("what else the set does", _actions(flags)),
        _section("bits that no flag of the table has", _unknown(flags)),
        _section(
            "done another way, since this kernel is too old", [f"{_long(f)}: by prctl(2)" for f in members(another_way)]
        ),
        "" if flags & _F.VM else f"how memory is copied for a function: {forms.why(given, bare, numbered)}",
        _thread(given, exit_signal, numbered),
        f"its end, with exit signal {exit_signal}: {_end(flags, exit_signal)}",
        _section("privileges that it needs", _privileges(flags)),
        _rules(flags, exit_signal),
    ]
    return "\n".join(filter(None, parts))


def _headline(flags: CloneFlags) -> str:
    """Names and number, and which preset this is."""
    lines = [f"{flag_names(flags) if flags else 'no flags'}  ({int(flags):#x})"]
    lines += [f"the preset {name}: {PRESET_MEANINGS[name]}" for name, preset in PRESETS.items() if preset == flags]
    return "\n".join(lines)


def _section(title: str, lines: Iterable[str]) -> str:
    """A titled block, or nothing when there are no lines."""
    body = "\n".join(f"{_INDENT}{line}" for line in lines)
    return f"{title}:\n{body}" if body else ""


def _picture(flags: CloneFlags) -> list[str]:
    """One line a resource, then one for all namespaces: what it is, whose it is, which flag decides."""
    lines = [(resource, *_share(flags, resource, sharer)) for resource, sharer in _SHARE_DEFAULTS.items()]
    new = [member for member in members(flags) if ROWS[member].kind == "namespace"]
    if new:
        kinds = ", ".join(dict.fromkeys(map(_short, new)))
        lines.append(
            (
                "namespaces",
                f"new: {kinds}",
                f"{', '.join(f'CLONE_{member.name}' for member in new)}; the others are the creator's",
            )
        )
    else:
        lines.append(("namespaces", "the creator's", "no CLONE_NEW* flag"))
    wide = max(len(resource) for resource, _, _ in lines)
    state_wide = max(len(state) for _, state, _ in lines)
    return [f"{_INDENT}{resource:<{wide}}  {state:<{state_wide}}  {why}" for resource, state, why in lines]


def _share(flags: CloneFlags, resource: str, sharer: CloneFlags) -> tuple[str, str]:
    """Whose a resource is, and why; ``sharer`` is the flag without which it is the default's."""
    deciding = [member for member in members(flags) if ROWS[member].resource == resource]
    if deciding:
        why = (f"CLONE_{m.name}" + (f": {ROWS[m].misleads}" if ROWS[m].misleads else "") for m in deciding)
        return " / ".join(ROWS[member].effect for member in deciding), "; ".join(why)
    # The one flag that decides about another one's resource.
    if sharer == _F.PARENT and flags & _F.THREAD:
        return ROWS[sharer].effect, "CLONE_THREAD: a thread's parent is its group's"
    return ROWS[sharer].default, f"no CLONE_{sharer.name}"


def _plain(row: Row) -> str:
    """The table's sentence, to stand inside another one."""
    first, rest = row.full_meaning[0], row.full_meaning[1:].removesuffix(".")
    return (first if rest[:1].isupper() else first.lower()) + rest


def _short(member: CloneFlags) -> str:
    """A namespace by its kind: "network", not "network namespace"."""
    return ROWS[member].resource.removesuffix(" namespace")


def _new_namespaces(flags: CloneFlags) -> Iterator[str]:
    """What each new namespace brings."""
    for member in members(flags):
        if ROWS[member].kind == "namespace":
            yield f"CLONE_{member.name}: {_plain(ROWS[member])}"


def _actions(flags: CloneFlags) -> Iterator[str]:
    """Reports and behaviour, with the owner of each pointer."""
    for member in members(flags):
        row = ROWS[member]
        if row.kind in ("report", "behaviour", "obsolete"):
            owner = f" ({_owner(row)})" if row.clone_args else ""
            yield f"CLONE_{member.name}: {_plain(row)}{owner}"


def _unknown(flags: CloneFlags) -> Iterator[str]:
    """The bits without a name, as one number."""
    rest = int(flags) & ~sum(int(member) for member in members(flags))
    if rest:
        yield f"{rest:#x}"


def _end(flags: CloneFlags, exit_signal: int) -> str:
    """Who hears of the task's end."""
    if flags & _F.THREAD:
        return "no signal; nobody can wait for a thread"
    if flags & _F.PARENT:
        return "the creator's parent gets the creator's own exit signal, and is the one to wait"
    if flags & _F.AUTOREAP:
        return "no signal, nothing to wait for; a pidfd still tells the status"
    if not exit_signal:
        return "the creator gets no signal and waits with __WALL; execve makes it SIGCHLD"
    try:
        name = signal.Signals(exit_signal).name
    except ValueError:
        name = f"signal {exit_signal}"
    wall = "" if exit_signal == signal.SIGCHLD else "; wait with __WALL"
    return f"the creator gets {name}{wall}"


def _privileges(flags: CloneFlags) -> Iterator[str]:
    """What the flags of the set ask for, where nothing in the set spares it."""
    for member in members(flags):
        row = ROWS[member]
        if row.privilege and not flags & row.spared_by:
            yield f"CLONE_{member.name}: {_privilege(row)}"


def _thread(flags: CloneFlags, exit_signal: int, numbered: bool) -> str:
    """How a thread comes to be, where the kernel takes the set."""
    if not flags & _F.THREAD or broken(flags, Context(exit_signal=exit_signal)):
        return ""
    return f"how the thread is made: {forms.why_thread(flags, numbered)}"


def _rules(flags: CloneFlags, exit_signal: int) -> str:
    """The verdict: every rule that is broken, the kernel's first."""
    context = Context(exit_signal=exit_signal, emulated=emulated(flags))
    kernel = _version(context.kernel)
    rules = broken(flags, context)
    if not rules:
        return f"rules: none is broken (clone3, Linux {kernel})"
    lines = [f"{errno.errorcode[rule.errno]} {rule.id}: {advice(rule, flags)}" for rule in rules]
    return _section(f"rules that are broken (clone3, Linux {kernel})", lines)
