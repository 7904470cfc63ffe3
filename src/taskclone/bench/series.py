"""What a benchmark case is made of: series, and the loops that time them."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from time import perf_counter_ns
from typing import NamedTuple, TypeVar

from taskclone import _core
from taskclone.bench.results import Results, Verdict

__all__ = ["Case", "Measure", "Part", "Samples", "Series", "c_loop", "python_loop"]

Handle = TypeVar("Handle")


Samples = dict[str, "array[int]"]
"""By the name of a time, the nanoseconds of each launch in order: "start" until the call was back, "total" until the
task was gone and its result there, or whatever else the series measures; all as long as each other."""

Measure = Callable[[int, float, int], Samples]
"""``measure(count, seconds, size)``: up to ``count`` launches, no new one after ``seconds``; ``size``: of the point."""


class Series(NamedTuple):
    """One way to start a task.

    ``bare`` names the kind of bare start for which a C program exists; alone, the series is measured in that program.
    ``measure`` None: only that program can measure it. ``cost_us`` is a rough guess (microseconds of a launch at size
    0, and more of them for each unit of the axis), for the time estimate and for nothing else.
    """

    key: str
    label: str
    language: str
    route: str
    measure: Measure | None
    cost_us: tuple[float, float]
    bare: str | None = None


class Part(NamedTuple):
    """Series of their own on an axis of their own (``axes.AXES``), each in processes of its own. ``name`` is the group
    of its points."""

    name: str
    axis: str
    series: tuple[Series, ...]
    sizes: tuple[int, ...]


class Case(NamedTuple):
    """A benchmark: its series, and groups of keys that are also measured together, each group in one process; the axis,
    and its sizes where they are not for the caller to choose; parts that look at the same thing from elsewhere, of
    which a run is told which it has; and what is said about the results."""

    name: str
    series: tuple[Series, ...]
    together: tuple[tuple[str, ...], ...] = ()
    axis: str = "heap"
    sizes: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()
    judge: Callable[[Results], Verdict] | None = None

    def find(self, key: str) -> Series:
        for series in (*self.series, *(series for part in self.parts for series in part.series)):
            if series.key == key:
                return series
        raise KeyError(key)


def python_loop(launch: Callable[[], Handle], finish: Callable[[Handle], object]) -> Measure:
    """Time ``launch()``, and it with ``finish(handle)``; the handle's own end is outside of both."""

    def measure(count: int, seconds: float, _size: int) -> Samples:
        start, total = array("Q"), array("Q")
        deadline = perf_counter_ns() + int(seconds * 1e9)
        for _ in range(count):
            before = perf_counter_ns()
            handle = launch()
            started = perf_counter_ns()
            finish(handle)
            ended = perf_counter_ns()
            del handle
            start.append(started - before)
            total.append(ended - before)
            if ended >= deadline:
                break
        return {"start": start, "total": total}

    return measure


def c_loop(kind: str, times: tuple[str, ...] = ("start", "total")) -> Measure:
    """The bare start ``kind`` in this process, in C, without the interpreter lock. ``times``: what it measures."""

    def measure(count: int, seconds: float, _size: int) -> Samples:
        values = _core.bare_run(kind, count, seconds)
        return {time: array("Q", some) for time, some in zip(times, values, strict=True)}

    return measure
