"""``taskclone doctor``: what this system lets taskclone do."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys

import click

from taskclone.doctor.examine import examine
from taskclone.doctor.finding import Finding

__all__ = ["doctor"]

SCHEMA = 1
"""Of --json: counted up when a key is renamed or goes."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
def doctor(as_json: bool) -> None:
    """Look at what this system has and lets you do, and what that means for taskclone.

    Kernel, system calls, flags, user namespaces, control groups, filters and limits: all is tried or read, nothing is
    changed. The exit status is 1 when something is missing without which no function or program can be started and
    waited for (kernel, machine, Python, threads, /proc, waiting by pidfd), else 0.
    """
    if not as_json and importlib.util.find_spec("rich") is None:
        raise click.ClickException("the table needs rich: pip install 'taskclone[bench]', or ask for --json")
    findings = examine()
    missing = [found.name for found in findings if found.fails]
    if as_json:
        click.echo(json.dumps(_document(findings), indent=2))
    else:
        _print_table(findings)
        click.echo(f"needed and missing: {', '.join(missing)}" if missing else "nothing that is needed is missing")
    sys.exit(1 if missing else 0)


def _document(findings: list[Finding]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "ok": not any(found.fails for found in findings),
        "findings": [dataclasses.asdict(found) for found in findings],
    }


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console

    from taskclone.report.findings import findings_table

    # A pipe has no width: there a line of the table is a line, for grep.
    console = Console() if sys.stdout.isatty() else Console(width=1000)
    console.print(findings_table(findings))
