"""``taskclone api``: what well-known functions pass to clone on this machine."""

from __future__ import annotations

import importlib.util
import json
import sys

import click

from taskclone.errors import StartError
from taskclone.tracer.apis import APIS, Api, chosen
from taskclone.tracer.findings import TIMEOUT, Finding, as_json, look, machine

__all__ = ["api", "seen_here"]


@click.command(epilog="Names: " + ", ".join(api.name for api in APIS))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "for_machines", is_flag=True, help="Print all that was seen as JSON.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=TIMEOUT, show_default=True,
              help="Seconds that one API may take.")  # fmt: skip
def api(names: tuple[str, ...], for_machines: bool, timeout: float) -> None:
    """What well-known APIs pass to clone on this machine: each is called once, under ptrace.

    NAME is one of those below; "subprocess" stands for all its kinds. Nothing is looked up: system calls, flags and
    signals are those that the kernel was given just now. The exit status is 1 when one of them could not be seen whole.
    """
    try:
        apis = chosen(names)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not for_machines and importlib.util.find_spec("rich") is None:
        raise click.ClickException("the table needs rich: pip install 'taskclone[bench]'; --json does without")
    findings = look_at(apis, timeout)
    if for_machines:
        click.echo(json.dumps(as_json(findings), indent=2))
    else:
        show(findings)
    failures = [f"{finding.api.name}: {finding.failure}" for finding in findings if finding.failure]
    if failures:
        raise click.ClickException("not seen whole: " + "; ".join(failures))


def look_at(apis: list[Api], timeout: float) -> list[Finding]:
    """One after the other, with a bar on a terminal."""
    if not sys.stderr.isatty():
        return [seen_here(item, timeout) for item in apis]
    with click.progressbar(apis, file=sys.stderr, item_show_func=lambda item: item.call if item else "") as bar:
        return [seen_here(item, timeout) for item in bar]


def seen_here(item: Api, timeout: float = TIMEOUT) -> Finding:
    """``look`` for commands: what refuses ptrace is a message."""
    try:
        return look(item, timeout)
    except (StartError, OSError) as error:
        raise click.ClickException(f"{item.name} cannot be traced: {error.strerror}") from None


def show(findings: list[Finding]) -> None:
    from rich.console import Console

    from taskclone.report.apis import api_table

    facts = machine()
    title = f"Linux {facts['kernel']} {facts['machine']}, {facts['libc']}, Python {facts['python']}"
    # As wide as the table needs: a pipe and a narrow terminal lose no column.
    Console(width=1000).print(api_table(findings, f"What each was seen to pass to clone: {title}"))
