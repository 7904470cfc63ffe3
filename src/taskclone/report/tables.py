"""The tables of a benchmark, from its results only."""

from __future__ import annotations

from rich.table import Table

from taskclone.bench.results import ALONE, TOGETHER, Point, Results
from taskclone.bench.stats import Summary

__all__ = ["alone_table", "together_table"]

COLUMNS = ("heap MB", "launches", "p10", "median", "mean", "p99", "median", "mean", "p99", "VmPTE kB", "RSS MB")


def alone_table(results: Results) -> Table:
    """Every point of every series: launch time, then the time until the task is joined or reaped."""
    table = Table(title="Each series in processes of its own; start: call until it is back; total: until joined; in us")
    table.add_column("", no_wrap=True)
    for number, name in enumerate(COLUMNS):
        group = "start " if 2 <= number <= 5 else "total " if 6 <= number <= 8 else ""
        table.add_column(group + name, justify="right", no_wrap=True)
    for key in results.series_keys(ALONE):
        curve = results.curve(key)
        for point in curve:
            table.add_row(point.label, *_cells(point), end_section=point is curve[-1])
    return table


def together_table(results: Results) -> Table:
    """Medians of the total, a column for each heap."""
    table = Table(title="All in turn in one process; median total in us, launches in brackets")
    table.add_column("", no_wrap=True)
    for heap in results.heaps:
        table.add_column(f"{heap} MB", justify="right", no_wrap=True)
    for key in results.series_keys(TOGETHER):
        points = [results.point(key, heap, TOGETHER) for heap in results.heaps]
        cells = [f"{_us(point.total.median)} ({point.count})" if point else "-" for point in points]
        table.add_row(results.curve(key, TOGETHER)[0].label, *cells)
    return table


def _cells(point: Point) -> list[str]:
    def figures(summary: Summary) -> list[str]:
        return [_us(summary.median), _us(summary.mean), _us(summary.p99)]

    start, total = figures(point.start), figures(point.total)
    memory = [str(point.vmpte_kb), f"{point.vmrss_kb / 1024:.1f}"]
    return [str(point.heap_mb), str(point.count), _us(point.start.p10), *start, *total, *memory]


def _us(ns: float) -> str:
    us = ns / 1e3
    return f"{us:.1f}" if us < 1000 else f"{us:.0f}"
