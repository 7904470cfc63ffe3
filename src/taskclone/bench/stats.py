"""Percentiles, slopes and how sure they are. Values in whatever unit they come in; nothing here knows about time."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev
from typing import NamedTuple

__all__ = ["Fit", "Line", "Summary", "fit_line", "fit_processes", "percentile", "summarize"]


class Summary(NamedTuple):
    """Of one sample, in its own unit."""

    p10: float
    p25: float
    median: float
    p75: float
    p99: float
    mean: float

    @property
    def spread(self) -> float:
        """How far the middle half of the values is apart, as a share of the median."""
        return (self.p75 - self.p25) / self.median if self.median else 0.0


class Line(NamedTuple):
    """y = at_zero + slope * x."""

    at_zero: float
    slope: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the ascending values lie; between two of them, in proportion."""
    if not ordered:
        raise ValueError("no values")
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarize(values: Sequence[float]) -> Summary:
    """ValueError when there are none."""
    ordered = sorted(values)
    shares = (0.10, 0.25, 0.50, 0.75, 0.99)
    p10, p25, middle, p75, p99 = (percentile(ordered, share) for share in shares)
    return Summary(p10, p25, middle, p75, p99, sum(ordered) / len(ordered))


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """Least squares. ValueError unless there are two different xs."""
    if len(xs) != len(ys):
        raise ValueError(f"{len(xs)} xs and {len(ys)} ys")
    if len(set(xs)) < 2:
        raise ValueError("a line needs two different xs")
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
    return Line(mean_y - slope * mean_x, slope)


class Fit(NamedTuple):
    """A slope from several processes: the mean of theirs and its 95 % confidence interval, which is None where only one
    process measured. ``off`` is how far the point farthest from the line lies from it, as a share of what the line
    rises by from one end to the other: a curve that is no line is seen by it."""

    slope: float
    interval: tuple[float, float] | None
    at_zero: float
    off: float


def fit_processes(xs: Sequence[float], processes: Sequence[Sequence[float]]) -> Fit:
    """A line through the values of each process at all ``xs``, by least squares; then Student's t over their slopes.

    Values inside one process are not independent: where its pages happen to lie makes all of them a little dearer. The
    processes are, so their number is the size of the sample. ValueError without a process or without two xs.
    """
    lines = [fit_line(xs, values) for values in processes]
    if not lines:
        raise ValueError("no process")
    slope, at_zero = (
        sum(values) / len(lines) for values in zip(*[(line.slope, line.at_zero) for line in lines], strict=True)
    )
    middle = [sum(values) / len(values) for values in zip(*processes, strict=True)]
    rise = abs(slope) * (max(xs) - min(xs))
    farthest = max(abs(y - at_zero - slope * x) for x, y in zip(xs, middle, strict=True))
    off = farthest / rise if rise else 0.0
    if len(lines) == 1:
        return Fit(slope, None, at_zero, off)
    deviation = stdev(line.slope for line in lines)
    half = _student(len(lines) - 1) * deviation / len(lines) ** 0.5
    return Fit(slope, (slope - half, slope + half), at_zero, off)


STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""0.975 quantiles of Student's t, from one degree of freedom on."""


def _student(freedom: int) -> float:
    """Beyond the table its last value: a little too careful."""
    return STUDENT[min(freedom, len(STUDENT)) - 1]
