"""What a run of a benchmark leaves. Everything a table, a chart or a verdict says is computed from this alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from taskclone.bench.stats import Summary, summarize

__all__ = ["ALONE", "TOGETHER", "Fact", "Point", "PointRun", "Results"]

ALONE = "alone"
"""Measured in processes of its own."""
TOGETHER = "together"
"""Measured in one process with the other series of the group, a few launches each in turn."""

Fact = str | int | float


@dataclass(frozen=True)
class PointRun:
    """One series at one heap in one process. Times in ns, memory in kB (-1: not known)."""

    start_ns: tuple[int, ...]
    total_ns: tuple[int, ...]
    vmpte_kb: int
    vmrss_kb: int
    huge_kb: int


@dataclass(frozen=True)
class Point:
    """One series at one heap, in all processes that measured it."""

    series: str
    label: str
    language: str
    route: str
    group: str
    heap_mb: int
    runs: tuple[PointRun, ...]

    @cached_property
    def start(self) -> Summary:
        """ns from the call until it was back in the creator."""
        return summarize(tuple(chain.from_iterable(run.start_ns for run in self.runs)))

    @cached_property
    def total(self) -> Summary:
        """ns from the call until the task was joined or reaped and its result there."""
        return summarize(tuple(chain.from_iterable(run.total_ns for run in self.runs)))

    @property
    def count(self) -> int:
        return sum(len(run.start_ns) for run in self.runs)

    @property
    def vmpte_kb(self) -> int:
        """The largest of its processes'; page tables depend a little on where the kernel put things."""
        return max(run.vmpte_kb for run in self.runs)

    @property
    def vmrss_kb(self) -> int:
        return max(run.vmrss_kb for run in self.runs)

    @property
    def huge_kb(self) -> int:
        return max(run.huge_kb for run in self.runs)


@dataclass(frozen=True)
class Results:
    """``count`` and ``seconds`` are what was asked for at a point; a point says itself how many launches it got.

    ``memcpy`` holds ns for each copy by bytes copied. ``loop`` holds medians in ns of the independent C loop's
    launches, by kind ("fork", "thread") and heap in MB, one for each time it was run.
    """

    case: str
    host: dict[str, Fact]
    count: int
    seconds: float
    points: tuple[Point, ...]
    memcpy: dict[int, tuple[int, ...]] = field(default_factory=dict)
    loop: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def curve(self, series: str, group: str = ALONE) -> list[Point]:
        """The points of one series by ascending heap; empty when it was not measured."""
        found = [point for point in self.points if point.series == series and point.group == group]
        return sorted(found, key=lambda point: point.heap_mb)

    def point(self, series: str, heap_mb: int, group: str = ALONE) -> Point | None:
        for point in self.curve(series, group):
            if point.heap_mb == heap_mb:
                return point
        return None

    def series_keys(self, group: str = ALONE) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(point.series for point in self.points if point.group == group))

    @property
    def heaps(self) -> list[int]:
        return sorted({point.heap_mb for point in self.points})
