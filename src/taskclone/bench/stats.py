"""Percentiles, slopes and how sure they are. Values in whatever unit they come in; nothing here knows about time."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import NamedTuple

__all__ = ["Fit", "Line", "Summary", "fit_line", "fit_processes", "median_interval", "percentile", "summarize"]


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
    """A slope from several processes: the median of theirs, and an interval that holds the true one with probability
    ``level``. Both are None where only one process measured. ``off`` is how far the point farthest from the line lies
    from it, as a share of what the line rises by from one end to the other: a curve that is no line is seen by it."""

    slope: float
    at_zero: float
    interval: tuple[float, float] | None
    level: float | None
    off: float


def fit_processes(xs: Sequence[float], processes: Sequence[Sequence[float]]) -> Fit:
    """A line through the values of each process at all ``xs``, by least squares; the median of the lines.

    Values inside one process are not independent: where its pages happen to lie makes all of them a little dearer. The
    processes are, so their number is the size of the sample. ValueError without a process or without two xs.
    """
    lines = [fit_line(xs, values) for values in processes]
    if not lines:
        raise ValueError("no process")
    slopes = sorted(line.slope for line in lines)
    slope, at_zero = median(slopes), median(line.at_zero for line in lines)
    middle = [median(values) for values in zip(*processes, strict=True)]
    rise = abs(slope) * (max(xs) - min(xs))
    farthest = max(abs(y - at_zero - slope * x) for x, y in zip(xs, middle, strict=True))
    off = farthest / rise if rise else 0.0
    if len(lines) == 1:
        return Fit(slope, at_zero, None, None, off)
    left_out, level = median_interval(len(slopes))
    return Fit(slope, at_zero, (slopes[left_out], slopes[-1 - left_out]), level, off)


def median_interval(count: int) -> tuple[int, float]:
    """How many of ``count`` ascending values to leave out at each end, so that what remains spans the true median with
    a probability of at least 0.95; and that probability. Whatever the distribution (sign test). With fewer than six
    values there is no such interval: then nothing is left out, and the probability says so (three values: 0.75)."""
    left_out, missed = 0, 2 * 0.5**count
    while True:
        more = missed + 2 * comb(count, left_out + 1) * 0.5**count
        if more > 0.05 or 2 * (left_out + 1) >= count:
            return left_out, 1 - missed
        left_out, missed = left_out + 1, more
