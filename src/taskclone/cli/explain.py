"""``taskclone explain``: what a flag, a preset, a set of flags or a well-known function means."""

from __future__ import annotations

import click

from taskclone.explain import explain_flag, explain_set
from taskclone.flags import PRESETS, CloneFlags, parse_flags

__all__ = ["explain"]


@click.command()
@click.argument("what", metavar="WHAT")
def explain(what: str) -> None:
    """Explain a flag, a preset, a set of flags, or what a function passes.

    WHAT is a flag (CLONE_VM, VM), a preset in small letters (process, shared, thread), a number (0x3d0f00) or a set
    ("VM|FILES"): what it means, what a task shares by it and what not, and which rules it breaks on this kernel.
    It may also be a name of `taskclone api` (fork, vfork, pthread_create, threading.Thread, ...): that is called once,
    under ptrace, and what it was seen to pass is explained.
    A set that breaks a rule is explained all the same; the exit status is 2 only for what is none of these.
    """
    click.echo(_text(what.strip()))


def _text(what: str) -> str:
    """The answer; a preset and a function are told from the flag of its name by their small letters."""
    from taskclone.tracer.apis import APIS

    if what in {name.lower() for name in PRESETS}:
        return explain_set(PRESETS[what.upper()]) + _namesake(what)
    if what in {api.name for api in APIS}:
        return _seen(what) + _namesake(what)
    try:
        flags = parse_flags(what)
    except ValueError as error:
        presets = ", ".join(name.lower() for name in PRESETS)
        functions = ", ".join(api.name for api in APIS)
        raise click.UsageError(f"{error}; presets: {presets}; functions: {functions}") from None
    if what.upper().removeprefix("CLONE_") in CloneFlags.__members__:
        return f"{explain_flag(flags)}\n\nthe set with this flag alone:\n{explain_set(flags)}{_namesake(what)}"
    return explain_set(flags)


def _seen(name: str) -> str:
    """What the API of this name passes, found out now."""
    from taskclone.cli.api import seen_here
    from taskclone.tracer.apis import APIS
    from taskclone.tracer.findings import machine
    from taskclone.tracer.words import alike, flag_words, notes, signal_words

    (api,) = (api for api in APIS if api.name == name)
    finding, facts = seen_here(api), machine()
    if finding.body is None or finding.failure:
        raise click.ClickException(f"{name} could not be seen whole: {finding.failure}")
    lines = [f"{api.call}, as seen just now: Linux {facts['kernel']}, {facts['libc']}, Python {facts['python']}"]
    for calls in alike(finding):
        words = f"{calls[0].call.system_call} {flag_words(calls[0])}, exit signal {signal_words(calls[0])}"
        note = notes(finding, calls)
        lines.append(f"{'calls' if calls[0].is_body else 'also '} {words}{f' ({note})' if note else ''}")
    call = finding.body.call
    return "\n".join([*lines, "", explain_set(call.flags, exit_signal=call.exit_signal)])


def _namesake(what: str) -> str:
    """A pointer from a preset or a function to the flag of the same name, and back."""
    from taskclone.tracer.apis import APIS

    name = what.upper().removeprefix("CLONE_")
    kind = "preset" if name in PRESETS else "function" if name.lower() in {api.name for api in APIS} else ""
    if not kind or name not in CloneFlags.__members__:
        return ""
    if what == name.lower():
        return f"\nthis is the {kind}; for the flag ask for CLONE_{name}"
    return f"\nthis is the flag; for the {kind} ask for {name.lower()}"
