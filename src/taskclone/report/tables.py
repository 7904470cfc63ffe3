"""The tables of a benchmark, from its results only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Table

from taskclone.bench.axes import AXES, size_text
from taskclone.bench.causes import costs, interval_text
from taskclone.bench.results import ALONE, TOGETHER, Point, Results
from taskclone.bench.stats import Summary

__all__ = ["alone_table", "cost_table", "part_tables", "together_table"]

MEANINGS = {
    "start": "call until it is back",
    "total": "until joined",
    "first": "until the body's first instruction",
    "rewrite": "writing to the whole heap",
    "round_trip": "there and back",
}


def alone_table(results: Results) -> Table:
    """Every point of every series: each of its times, and what the process carried."""
    return _table(results, ALONE, "Each series in processes of its own", results.series_keys(ALONE))


def part_tables(results: Results) -> Iterator[Table]:
    """The same for each part; a table for each set of times."""
    groups = dict.fromkeys(point.group for point in results.points if point.group not in (ALONE, TOGETHER))
    for group in groups:
        by_times: dict[tuple[str, ...], list[str]] = {}
        for key in results.series_keys(group):
            by_times.setdefault(results.curve(key, group)[0].times, []).append(key)
        for keys in by_times.values():
            yield _table(results, group, f"Part {group}", keys)


def _table(results: Results, group: str, title: str, keys: Iterable[str]) -> Table:
    curves = [results.curve(key, group) for key in keys]
    times = curves[0][0].times if curves else ("start", "total")
    meanings = "; ".join(f"{_words(time)}: {MEANINGS[time]}" for time in times)
    table = Table(title=f"{title}; {meanings}; in us")
    table.add_column("", no_wrap=True)
    axis = AXES[curves[0][0].axis].label if curves else ""
    figures = [f"{_words(time)} {name}" for number, time in enumerate(times) for name in _figure_names(number)]
    for name in (axis, "count", *figures, "VmPTE kB", "RSS MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for curve in curves:
        for point in curve:
            table.add_row(point.label, *_cells(point), end_section=point is curve[-1])
    return table


def _figure_names(number: int) -> tuple[str, ...]:
    """The low end is of interest where the scheduler has least to say: in the first time."""
    return ("p10", "median", "mean", "p99") if number == 0 else ("median", "mean", "p99")


def together_table(results: Results) -> Table:
    """Medians of the total, a column for each size."""
    table = Table(title="All in turn in one process; median total in us, launches in brackets")
    table.add_column("", no_wrap=True)
    for size in results.sizes:
        table.add_column(size_text(results.axis, size), justify="right", no_wrap=True)
    for key in results.series_keys(TOGETHER):
        points = [results.point(key, size, TOGETHER) for size in results.sizes]
        cells = [f"{_us(point.total.median)} ({point.count})" if point else "-" for point in points]
        table.add_row(results.curve(key, TOGETHER)[0].label, *cells)
    return table


def cost_table(results: Results) -> Table:
    """What each unit costs: the slopes, how sure they are, and how straight the line is."""
    title = "What a start costs for each ...; the call: until it is back; the end: from there until joined or reaped"
    table = Table(title=f"{title}; median slope of the processes and its interval, in ns")
    for name in ("for each", "", "of the time"):
        table.add_column(name, no_wrap=True)
    for name in ("ns", "interval", "sure", "processes", "", "off the line"):
        table.add_column(name, justify="right", no_wrap=True)
    found = costs(results)
    for number, cost in enumerate(found):
        last = number + 1 == len(found) or found[number + 1].group != cost.group
        interval = interval_text(cost.fit).strip(" ()") or "-"
        level = "-" if cost.fit.level is None else f"{cost.fit.level:.0%}"
        off = f"{cost.fit.off:.0%}" if cost.verdict == "counts" else "-"
        figures = (f"{cost.fit.slope:.2f}", interval, level, str(cost.processes), cost.verdict, off)
        cells = (cost.unit.text, cost.label, cost.what, *figures)
        table.add_row(*cells, end_section=last)
    return table


def _cells(point: Point) -> list[str]:
    cells = [str(point.size), str(point.count)]
    for number, time in enumerate(point.times):
        summary: Summary = point.summary(time)
        cells += [_us(getattr(summary, name)) for name in _figure_names(number)]
    return [*cells, str(point.vmpte_kb), f"{point.vmrss_kb / 1024:.1f}"]


def _words(time: str) -> str:
    return time.replace("_", " ")


def _us(ns: float) -> str:
    us = ns / 1e3
    return f"{us:.1f}" if us < 1000 else f"{us:.0f}"
