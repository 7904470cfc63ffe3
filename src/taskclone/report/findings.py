"""The table of what the doctor has found."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from taskclone.doctor.finding import Finding

__all__ = ["findings_table"]

_STYLES = {"ok": "green", "limited": "yellow", "missing": "red"}


def findings_table(findings: Iterable[Finding]) -> Table:
    """A line a finding, a section a topic; what is needed and missing says so."""
    shown = list(findings)
    table = Table()
    for name in ("", "what", "here", "state", "what it means for taskclone"):
        table.add_column(name, no_wrap=name == "state", overflow="fold")
    for number, found in enumerate(shown):
        first = number == 0 or shown[number - 1].topic != found.topic
        last = number + 1 == len(shown) or shown[number + 1].topic != found.topic
        state = Text(f"{found.state}, needed" if found.fails else found.state, style=_STYLES[found.state])
        cells = (found.topic if first else "", found.name, found.value)
        # Text, since a value of the system may have brackets, which rich would take for mark-up.
        table.add_row(*map(Text, cells), state, Text(found.meaning), end_section=last)
    return table
