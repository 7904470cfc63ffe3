"""``taskclone bench``: what a start costs on this machine."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from taskclone.bench.results import Results
    from taskclone.bench.run import OnStep, Options
    from taskclone.bench.series import Case
    from taskclone.bench.verdict import Bar

__all__ = ["bench"]

EXTRA = ("rich", "matplotlib", "pyperf", "psutil")
HEAPS = "0,2,4,8,16,32,64,128"
QUICK_HEAPS = "0,2,8,32"
COLORS = {"reached": "green", "missed": "red", "not measured": "yellow"}
FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


class MissingExtra(click.ClickException):
    """What the benchmarks need is not installed."""

    exit_code = 2


def parse_heaps(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """``0,2,128`` -> ascending, each once."""
    if text is None:
        return None
    try:
        heaps = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole megabytes, such as {QUICK_HEAPS}") from None
    if heaps[0] < 0:
        raise click.BadParameter(f"a heap of {heaps[0]} MB cannot be had")
    return tuple(heaps)


@click.group()
def bench() -> None:
    """Measure what a start costs on this machine."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"bench needs {', '.join(missing)}: pip install 'taskclone[bench]'")


@bench.command()
@click.option("--heap", "heaps", metavar="MB,...", callback=parse_heaps, help=f"Touched heap. [default: {HEAPS}]")
@click.option("--count", type=click.IntRange(1, 10_000_000), help="Launches a point. [default: 10000]")
@click.option("--quick", is_flag=True, help=f"Heaps {QUICK_HEAPS}, 500 launches or 1 s a point.")
@click.option("--unpinned", is_flag=True, help="Leave the measuring processes to the scheduler, on any CPU.")
@click.option("--loop", type=click.Path(exists=True, dir_okay=False, executable=True, resolve_path=True),
              help="A compiled csrc/testing/launch_loop.c to compare with.")  # fmt: skip
@click.option("--json", "json_file", type=FILE, help="Write all values, in pyperf's format.")
@click.option("--png", type=FILE, help="Write the chart.")
@click.option("--svg", type=FILE, help="Write the chart.")
def launch(
    heaps: tuple[int, ...] | None,
    count: int | None,
    quick: bool,
    unpinned: bool,
    loop: str | None,
    json_file: Path | None,
    png: Path | None,
    svg: Path | None,
) -> None:
    """The article's experiment: launch time of processes, threads and what lies between, against touched heap.

    10,000 launches a point or 20 seconds, whichever comes first.
    """
    from taskclone.bench import host, store
    from taskclone.bench.cases import find
    from taskclone.bench.run import Options, estimate, run

    make_folders(json_file, png, svg)
    heaps = heaps or tuple(map(int, (QUICK_HEAPS if quick else HEAPS).split(",")))
    if heaps[-1] > host.available_mb() // 2:
        raise click.BadParameter(f"{heaps[-1]} MB is more than half of the {host.available_mb()} MB that are free",
                                 param_hint="--heap")  # fmt: skip
    case = find("launch")
    count = count or (500 if quick else 10_000)
    seconds, rounds = (1.0, 3) if quick else (20.0, 10)
    cpu = None if unpinned else host.pick_cpu()
    options = Options(heaps, count, seconds, min(rounds, count), cpu, loop)
    guess = estimate(case, options)
    click.echo(
        f"{len(case.series)} ways to start a task, {len(heaps)} heaps up to {heaps[-1]} MB, {count:,} launches or "
        f"{seconds:g} s a point, {'not pinned' if cpu is None else f'pinned to CPU {cpu}'}: "
        f"about {duration(guess.likely)}, at most {duration(guess.most)}",
        err=True,
    )
    with progress(case, options) as on_step:
        outcome = run(case, options, host.host_facts(cpu), on_step)
    if json_file:
        store.save(outcome.results, json_file)
    show_results(outcome.results)
    draw(outcome.results, png, svg)
    for path in filter(None, (json_file, png, svg)):
        click.echo(f"written: {path}", err=True)
    if outcome.failures:
        raise click.ClickException("not measured: " + "; ".join(outcome.failures))


@bench.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--png", type=FILE, help="Write the chart.")
@click.option("--svg", type=FILE, help="Write the chart.")
def show(file: Path, png: Path | None, svg: Path | None) -> None:
    """Table, verdict and chart of FILE, which --json wrote."""
    from taskclone.bench import store

    make_folders(png, svg)
    try:
        results = store.load(file)
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{file} was not written by taskclone bench: {error}") from None
    show_results(results)
    draw(results, png, svg)


def make_folders(*files: Path | None) -> None:
    """Before the long run, not after it."""
    for file in filter(None, files):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror}") from None


def draw(results: Results, png: Path | None, svg: Path | None) -> None:
    if png or svg:
        from taskclone.report.chart import save_launch

        save_launch(results, png, svg)


@contextmanager
def progress(case: Case, options: Options) -> Iterator[OnStep]:
    """A bar on a terminal; elsewhere a line for each round. On stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from taskclone.bench.run import step_count

    if not sys.stderr.isatty():

        def on_round(number: int, what: str) -> None:
            if not what:
                click.echo(f"round {number + 1} of {options.rounds}", err=True)

        yield on_round
        return
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=step_count(case, options))

        def on_step(number: int, what: str) -> None:
            text = f"round {number + 1} of {options.rounds}: {what}"
            bar.update(task, description=text, advance=1 if what else 0)

        yield on_step


def show_results(results: Results) -> None:
    """Table, verdict, bars."""
    from rich.console import Console

    from taskclone.bench.verdict import judge
    from taskclone.report.tables import alone_table, together_table

    console = Console(width=1000)  # as wide as the tables need: a pipe and a narrow terminal lose no column
    console.print(alone_table(results))
    if any(point.group == "together" for point in results.points):
        console.print(together_table(results))
    verdict = judge(results)
    for sentence in verdict.sentences:
        click.echo(wrap(sentence))
    for warning in verdict.warnings:
        click.echo(wrap(f"Note: {warning}"))
    click.echo("\nWhat it must reach:")
    for bar in verdict.bars:
        click.echo(bar_line(bar))


def bar_line(bar: Bar) -> str:
    measured = "-" if bar.measured is None else f"{bar.measured:.3f}{bar.unit}"
    state = click.style(f"{bar.state:12}", fg=COLORS[bar.state])
    return f"  {state} {measured:>8}, bar {bar.limit:.2f}{bar.unit}: {bar.name} ({bar.detail})"


def wrap(text: str) -> str:
    if not sys.stdout.isatty():
        return text
    return textwrap.fill(text, min(shutil.get_terminal_size().columns, 120), subsequent_indent="  ")


def duration(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
