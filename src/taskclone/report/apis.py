"""What well-known functions pass to clone, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Table

from taskclone.tracer.findings import Finding, Seen
from taskclone.tracer.words import alike, flag_words, notes, shared_words, signal_words

__all__ = ["api_table"]

WIDTH = 42


def api_table(findings: Iterable[Finding], title: str) -> Table:
    """A row for each call: first the one that the API is for, then what it made beside that, in order."""
    table = Table(title=title)
    for name in ("API", "system call", "flags", "exit signal"):
        table.add_column(name, no_wrap=True)
    for name in ("shared with the creator", "note"):
        table.add_column(name, max_width=WIDTH)
    group = None
    for finding in findings:
        if group not in (None, finding.api.group):
            table.add_section()
        group = finding.api.group
        if finding.body is None:
            table.add_row(finding.api.call, *"-----")
        for calls in alike(finding):
            table.add_row(finding.api.call if calls[0].is_body else "  also", *_cells(finding, calls))
        if finding.failure:
            table.add_row(*[""] * 5, finding.failure)
    return table


def _cells(finding: Finding, calls: list[Seen]) -> Iterator[str]:
    call = calls[0].call
    yield call.system_call
    yield _broken(flag_words(calls[0]))
    yield signal_words(calls[0])
    yield shared_words(call.flags) if not call.error and not call.unread else "-"
    yield notes(finding, calls)


def _broken(names: str) -> str:
    """A long set on lines of its own, none much longer than the other columns."""
    lines = [""]
    for name in names.split("|"):
        joined = f"{lines[-1]}|{name}" if lines[-1] else name
        if len(joined) < WIDTH:
            lines[-1] = joined
        else:
            lines[-1] += "|"
            lines.append(name)
    return "\n".join(lines)
