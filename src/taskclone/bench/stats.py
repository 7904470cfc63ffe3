"""Percentiles and slopes. Values in whatever unit they come in; nothing here knows about time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Line", "Summary", "fit_line", "percentile", "summarize"]


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
