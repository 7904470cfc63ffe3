"""``taskclone bench``: what a start, and a switch between two tasks, cost on this machine."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from taskclone.bench.results import Bar, Results
    from taskclone.bench.run import OnStep, Options
    from taskclone.bench.series import Case

__all__ = ["bench"]

EXTRA = ("rich", "matplotlib", "pyperf", "psutil")
HEAPS = "0,2,4,8,16,32,64,128"
QUICK_HEAPS = "0,2,8,32"
F = TypeVar("F", bound=Callable[..., object])
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
    """Measure what tasks cost on this machine."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"bench needs {', '.join(missing)}: pip install 'taskclone[bench]'")


def outputs(command: F) -> F:
    """--json, --png and --svg."""
    for option in (
        click.option("--svg", type=FILE, help="Write the chart."),
        click.option("--png", type=FILE, help="Write the chart."),
        click.option("--json", "json_file", type=FILE, help="Write all values, in pyperf's format."),
    ):
        command = option(command)
    return command


@bench.command()
@click.option("--heap", "heaps", metavar="MB,...", callback=parse_heaps, help=f"Touched heap. [default: {HEAPS}]")
@click.option("--count", type=click.IntRange(1, 10_000_000), help="Launches a point. [default: 10000]")
@click.option("--quick", is_flag=True, help=f"Heaps {QUICK_HEAPS}, 500 launches or 0.5 s a point.")
@click.option("--explain/--no-explain", default=True, show_default=True,
              help="Measure too what the cost follows: mappings, descriptors, the body's first instruction, the bill "
                   "after a fork.")  # fmt: skip
@click.option("--huge-pages", is_flag=True, help="Measure fork too with the heap in huge pages.")
@click.option("--unpinned", is_flag=True, help="Leave the measuring processes to the scheduler, on any CPU.")
@click.option("--loop", type=click.Path(exists=True, dir_okay=False, executable=True, resolve_path=True),
              help="A compiled csrc/testing/launch_loop.c to compare with.")  # fmt: skip
@outputs
def launch(
    heaps: tuple[int, ...] | None,
    count: int | None,
    quick: bool,
    explain: bool,
    huge_pages: bool,
    unpinned: bool,
    loop: str | None,
    json_file: Path | None,
    png: Path | None,
    svg: Path | None,
) -> None:
    """The article's experiment: launch time of processes, threads and what lies between, against touched heap.

    10,000 launches a point or 20 seconds, whichever comes first; a tenth of that for the points that explain.
    """
    from taskclone.bench import host
    from taskclone.bench.cases.launch import CASE, EXPLAINING, HUGE, LEFT_OUT
    from taskclone.bench.run import Options

    make_folders(json_file, png, svg)
    heaps = heaps or tuple(map(int, (QUICK_HEAPS if quick else HEAPS).split(",")))
    if heaps[-1] > host.available_mb() // 2:
        raise click.BadParameter(f"{heaps[-1]} MB is more than half of the {host.available_mb()} MB that are free",
                                 param_hint="--heap")  # fmt: skip
    if huge_pages and len(heaps) < 2:
        raise click.BadParameter("a slope needs two heaps: --heap 0,32", param_hint="--huge-pages")
    parts = [LEFT_OUT._replace(sizes=(0, heaps[-1]))] if heaps[-1] else []
    parts += EXPLAINING if explain else ()
    parts += [HUGE._replace(sizes=heaps)] if huge_pages else []
    count = count or (500 if quick else 10_000)
    seconds, rounds = (0.5, 3) if quick else (20.0, 10)
    cpu = None if unpinned else host.pick_cpu()
    rounds = min(rounds, count)
    part_count, part_seconds = max(count // 10, rounds), seconds / 2 if quick else seconds / 10
    options = Options(heaps, count, seconds, rounds, cpu, loop, tuple(parts), part_count, part_seconds)
    click.echo(
        f"{len(CASE.series)} ways to start a task, {len(heaps)} heaps up to {heaps[-1]} MB, {length_of(CASE, options)}",
        err=True,
    )
    measure(CASE, options, json_file, png, svg)


@bench.command()
@click.option("--count", type=click.IntRange(1, 10_000_000), help="Round trips a point. [default: 20000]")
@click.option("--quick", is_flag=True, help="2,000 round trips or 0.5 s a point.")
@outputs
def switch(count: int | None, quick: bool, json_file: Path | None, png: Path | None, svg: Path | None) -> None:
    """A round trip between two tasks, by what they share and how they wake each other; on one CPU and on two.

    20,000 a point or 5 seconds, whichever comes first.
    """
    from taskclone.bench import host
    from taskclone.bench.cases import find
    from taskclone.bench.run import Options

    make_folders(json_file, png, svg)
    case = find("switch")
    count = count or (2000 if quick else 20_000)
    seconds, rounds = (0.5, 3) if quick else (5.0, 10)
    options = Options(case.sizes, count, seconds, min(rounds, count), host.pick_cpu())
    click.echo(f"{len(case.series)} pairs of tasks, {length_of(case, options)}", err=True)
    measure(case, options, json_file, png, svg)


def length_of(case: Case, options: Options) -> str:
    """What is asked for at a point, where, and how long it will take."""
    from taskclone.bench.run import estimate

    guess = estimate(case, options)
    return (
        f"{options.count:,} values or {options.seconds:g} s a point, "
        f"{'not pinned' if options.cpu is None else f'pinned to CPU {options.cpu}'}: "
        f"about {duration(guess.likely)}, at most {duration(guess.most)}"
    )


def measure(case: Case, options: Options, json_file: Path | None, png: Path | None, svg: Path | None) -> None:
    """Run, write the files, print."""
    from taskclone.bench import host, store
    from taskclone.bench.run import run

    with progress(case, options) as on_step:
        outcome = run(case, options, host.host_facts(options.cpu), on_step)
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
        from taskclone.report.bars import save_bars
        from taskclone.report.chart import save_launch

        save = save_launch if results.axis == "heap" else save_bars
        save(results, png, svg)


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

    from taskclone.bench.cases import find
    from taskclone.report.tables import alone_table, cost_table, part_tables, together_table

    console = Console(width=1000)  # as wide as the tables need: a pipe and a narrow terminal lose no column
    console.print(alone_table(results))
    if any(point.group == "together" for point in results.points):
        console.print(together_table(results))
    tables = list(part_tables(results))
    for table in tables:
        console.print(table)
    if tables:
        console.print(cost_table(results))
    judge = find(results.case).judge
    if judge is None:
        return
    verdict = judge(results)
    for sentence in verdict.sentences:
        click.echo(wrap(sentence))
    for warning in verdict.warnings:
        click.echo(wrap(f"Note: {warning}"))
    if verdict.bars:
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
