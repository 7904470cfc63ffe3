"""``taskclone explain``: what a flag, a preset or a set of flags means."""

from __future__ import annotations

import click

from taskclone.explain import explain_flag, explain_set
from taskclone.flags import PRESETS, CloneFlags, parse_flags

__all__ = ["explain"]


@click.command()
@click.argument("what", metavar="WHAT")
def explain(what: str) -> None:
    """Explain a flag, a preset or a set of flags.

    WHAT is a flag (CLONE_VM, VM), a preset in small letters (process, shared, thread), a number (0x3d0f00) or a set
    ("VM|FILES"): what it means, what a task shares by it and what not, and which rules it breaks on this kernel.
    A set that breaks a rule is explained all the same; the exit status is 2 only for what is none of these.
    """
    click.echo(_text(what.strip()))


def _text(what: str) -> str:
    """The answer; a preset is told from the flag of its name by its small letters."""
    if what in {name.lower() for name in PRESETS}:
        return explain_set(PRESETS[what.upper()]) + _namesake(what)
    try:
        flags = parse_flags(what)
    except ValueError as error:
        presets = ", ".join(name.lower() for name in PRESETS)
        raise click.UsageError(f"{error}; presets: {presets}") from None
    if what.upper().removeprefix("CLONE_") in CloneFlags.__members__:
        return f"{explain_flag(flags)}\n\nthe set with this flag alone:\n{explain_set(flags)}{_namesake(what)}"
    return explain_set(flags)


def _namesake(what: str) -> str:
    """A pointer from a preset to the flag of the same name, and back."""
    name = what.upper().removeprefix("CLONE_")
    if name not in PRESETS or name not in CloneFlags.__members__:
        return ""
    if what == name.lower():
        return f"\nthis is the preset; for the flag ask for CLONE_{name}"
    return f"\nthis is the flag; for the preset ask for {name.lower()}"
