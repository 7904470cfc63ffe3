"""What a run of a benchmark leaves. Everything a table, a chart or a verdict says is computed from this alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from taskclone.bench.stats import Summary, summarize

__all__ = ["ALONE", "TOGETHER", "Bar", "Fact", "Point", "PointRun", "Results", "Verdict"]

ALONE = "alone"
"""Measured in processes of its own."""
TOGETHER = "together"
"""Measured in one process with the other series of the group, a few launches each in turn."""

Fact = str | int | float


@dataclass(frozen=True)
class PointRun:
    """One series at one size in one process. ``ns`` by the name of the time, memory in kB (-1: not known)."""

    ns: dict[str, tuple[int, ...]]
    vmpte_kb: int
    vmrss_kb: int
    huge_kb: int


@dataclass(frozen=True)
class Point:
    """One series at one size, in all processes that measured it. ``group`` is ALONE, TOGETHER or the name of a part."""

    series: str
    label: str
    language: str
    route: str
    group: str
    axis: str
    size: int
    runs: tuple[PointRun, ...]

    @property
    def times(self) -> tuple[str, ...]:
        """What was timed, the most important first."""
        return tuple(self.runs[0].ns)

    def summary(self, time: str) -> Summary:
        """In ns, over all launches of all processes. KeyError: that was not timed."""
        return self._summaries[time]

    @cached_property
    def _summaries(self) -> dict[str, Summary]:
        return {time: summarize(tuple(chain.from_iterable(run.ns[time] for run in self.runs))) for time in self.times}

    @property
    def start(self) -> Summary:
        """ns from the call until it was back in the creator."""
        return self.summary("start")

    @property
    def total(self) -> Summary:
        """ns from the call until the task was joined or reaped and its result there."""
        return self.summary("total")

    @property
    def count(self) -> int:
        return sum(len(run.ns[self.times[0]]) for run in self.runs)

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
        """The points of one series by ascending size; empty when it was not measured."""
        found = [point for point in self.points if point.series == series and point.group == group]
        return sorted(found, key=lambda point: point.size)

    def point(self, series: str, size: int, group: str = ALONE) -> Point | None:
        for point in self.curve(series, group):
            if point.size == size:
                return point
        return None

    def series_keys(self, group: str = ALONE) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(point.series for point in self.points if point.group == group))

    @property
    def axis(self) -> str:
        """The main one."""
        return next((point.axis for point in self.points if point.group == ALONE), "heap")

    @property
    def sizes(self) -> list[int]:
        """On the main axis."""
        return sorted({point.size for point in self.points if point.group in (ALONE, TOGETHER)})


@dataclass(frozen=True)
class Bar:
    """Something to reach: ``measured`` must not exceed ``limit``. None: it was not measured."""

    name: str
    measured: float | None
    limit: float
    unit: str
    detail: str

    @property
    def state(self) -> str:
        if self.measured is None:
            return "not measured"
        return "reached" if self.measured <= self.limit else "missed"


@dataclass(frozen=True)
class Verdict:
    sentences: tuple[str, ...]
    bars: tuple[Bar, ...]
    warnings: tuple[str, ...]
