"""What a benchmark case is made of: series, and the loops that time them."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from time import perf_counter_ns
from typing import NamedTuple, TypeVar

from taskclone import _core

__all__ = ["Case", "Measure", "Samples", "Series", "c_loop", "python_loop"]

Handle = TypeVar("Handle")


class Samples(NamedTuple):
    """Nanoseconds of each launch, in order: until the call was back, and until the task was gone."""

    start_ns: array[int]
    total_ns: array[int]


Measure = Callable[[int, float], Samples]
"""``measure(count, seconds)``: up to ``count`` launches, no new one after ``seconds``."""


class Series(NamedTuple):
    """One way to start a task.

    ``bare`` names the kind of bare start for which a C program exists; alone, the series is measured in that program.
    ``cost_us`` is a rough guess (microseconds of a launch with nothing on the heap, and more of them for each MB),
    for the time estimate and for nothing else.
    """

    key: str
    label: str
    language: str
    route: str
    measure: Measure
    cost_us: tuple[float, float]
    bare: str | None = None


class Case(NamedTuple):
    """A benchmark: its series, and groups of keys that are also measured together, each group in one process."""

    name: str
    series: tuple[Series, ...]
    together: tuple[tuple[str, ...], ...] = ()

    def find(self, key: str) -> Series:
        for series in self.series:
            if series.key == key:
                return series
        raise KeyError(key)


def python_loop(launch: Callable[[], Handle], finish: Callable[[Handle], object]) -> Measure:
    """Time ``launch()``, and it with ``finish(handle)``; the handle's own end is outside of both."""

    def measure(count: int, seconds: float) -> Samples:
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
        return Samples(start, total)

    return measure


def c_loop(kind: str) -> Measure:
    """The bare start ``kind`` in this process, in C, without the interpreter lock."""

    def measure(count: int, seconds: float) -> Samples:
        start, total = _core.bare_run(kind, count, seconds)
        return Samples(array("Q", start), array("Q", total))

    return measure
