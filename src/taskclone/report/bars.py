"""Bars for a case without a curve in it: one panel for each size, one bar for each series, from stored results only.

The bar is the median, the line on it goes from the first to the third quarter. The panels have scales of their own:
what they compare lies inside each.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from taskclone.bench.axes import size_text
from taskclone.bench.results import Point, Results
from taskclone.report.chart import STYLE, conditions, machine

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_bars", "save_bars"]

COLORS = {"thread": "#0b5fa5", "shared": "#2a8f4f", "vm": "#b9a3d6", "process": "#c1272d"}
OTHER = "#777777"


def save_bars(results: Results, png: Path | None = None, svg: Path | None = None) -> None:
    """Draw and write; ImportError without matplotlib, OSError when a file cannot be written."""
    import matplotlib

    with matplotlib.rc_context(cast("Any", STYLE)):
        if png is not None:
            draw_bars(results).savefig(png, format="png", dpi=150)
        if svg is not None:
            draw_bars(results).savefig(svg, format="svg", metadata={"Date": None})


def draw_bars(results: Results) -> Figure:
    """A figure without a window; bars in the order of the series, coloured by route."""
    from matplotlib.figure import Figure

    keys, sizes = results.series_keys(), results.sizes
    figure = Figure(figsize=(12.5, 1.8 + 0.29 * len(keys)), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        _panel(axes, [point for key in keys if (point := results.point(key, size))])
        axes.set_title(size_text(results.axis, size), fontsize=11, loc="left")
    figure.suptitle(f"{results.case.capitalize()}, {_time(results)}: {machine(results)}", fontsize=12.5)
    figure.supxlabel(conditions(results), fontsize=8.5, color="#555555")
    return figure


def _panel(axes: Axes, points: list[Point]) -> None:
    summaries = [point.summary(point.times[0]) for point in points]
    medians = [summary.median / 1e3 for summary in summaries]
    below = [(summary.median - summary.p25) / 1e3 for summary in summaries]
    above = [(summary.p75 - summary.median) / 1e3 for summary in summaries]
    axes.barh(
        [point.label for point in points],
        medians,
        xerr=[below, above],
        color=[COLORS.get(point.route, OTHER) for point in points],
        error_kw={"elinewidth": 1, "ecolor": "#333333"},
    )
    for place, (median, more) in enumerate(zip(medians, above, strict=True)):
        axes.annotate(f"{median:.1f}", (median + more, place), (3, 0), textcoords="offset points", va="center", size=8)
    axes.set_xlim(left=0)
    axes.margins(x=0.12, y=0.02)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.set_xlabel("µs, median; the line: middle half")


def _time(results: Results) -> str:
    return results.points[0].times[0].replace("_", " ") if results.points else "nothing measured"
