"""The chart of the launch benchmark, from stored results only.

Left the article's picture: launch time in C against touched heap, both axes linear. Right the ways from Python, start
to result; they lie too far apart for a linear axis, so that one is logarithmic and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from taskclone.bench.results import ALONE, Point, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_launch", "save_launch"]


class Look(NamedTuple):
    color: str
    width: float = 1.6
    style: str = "-"
    marker: str = "o"


LOOKS = {
    "c_fork": Look("#c1272d", 2.6),
    "c_pthread": Look("#0b5fa5", 2.6),
    "c_vm_vfork": Look("#8fbf8f", 1.2, "-", "s"),
    "c_vm": Look("#b9a3d6", 1.2, "-", "^"),
    "py_fork": Look("#c1272d", 1.6, "--", "s"),
    "copied": Look("#c1272d", 2.0),
    "program": Look("#b8860b", 2.0, "-", "D"),
    "py_thread": Look("#0b5fa5", 1.6, "--", "s"),
    "thread": Look("#0b5fa5", 2.0),
    "shared": Look("#2a8f4f", 2.0),
    "in_place": Look("#7fc97f", 2.0, "-", "^"),
}
OTHER = Look("#777777")

STYLE: dict[str, Any] = {
    "font.size": 10,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "taskclone",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
}


def save_launch(results: Results, png: Path | None = None, svg: Path | None = None) -> None:
    """Draw and write; ImportError without matplotlib, OSError when a file cannot be written."""
    import matplotlib

    with matplotlib.rc_context(cast("Any", STYLE)):
        if png is not None:
            draw_launch(results).savefig(png, format="png", dpi=150)
        if svg is not None:  # a figure of its own: a drawn one has been laid out for its first file
            draw_launch(results).savefig(svg, format="svg", metadata={"Date": None})


def draw_launch(results: Results) -> Figure:
    """A figure without a window: no backend is chosen, nothing global is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1])
    _c_panel(left, results)
    _python_panel(right, results)
    figure.suptitle(f"What it costs to start a task that does nothing: {_machine(results)}", fontsize=12.5)
    figure.supxlabel(_conditions(results), fontsize=8.5, color="#555555")
    return figure


def _c_panel(axes: Axes, results: Results) -> None:
    curves = _curves(results, "C")
    for curve in curves:
        _plot(axes, curve, [point.start.median / 1e3 for point in curve])
    axes.set_ylim(bottom=0)
    _label(axes, "In C, as in the article", "launch time (µs, median)")
    if curves:
        axes.legend(loc="upper left", frameon=False)


def _python_panel(axes: Axes, results: Results) -> None:
    curves = _curves(results, "Python")
    for curve in curves:
        _plot(axes, curve, [point.total.median / 1e3 for point in curve])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}" if f"{value:g}"[0] in "25" else "")
    axes.tick_params(axis="y", which="minor", labelsize=8, labelcolor="#777777")
    _label(axes, "From Python: start to result", "start and result (µs, median, logarithmic)")
    if curves:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _curves(results: Results, language: str) -> list[list[Point]]:
    """Those measured alone, the dearest first: legends read in the order of the lines."""
    curves = [results.curve(key) for key in results.series_keys(ALONE)]
    chosen = [curve for curve in curves if curve[0].language == language]
    what = "start" if language == "C" else "total"
    return sorted(chosen, key=lambda curve: -float(getattr(curve[-1], what).median))


def _plot(axes: Axes, curve: list[Point], values: list[float]) -> None:
    look = LOOKS.get(curve[0].series, OTHER)
    axes.plot(
        [point.heap_mb for point in curve],
        values,
        color=look.color,
        linewidth=look.width,
        linestyle=look.style,
        marker=look.marker,
        markersize=3.5 + look.width / 2,
        label=curve[0].label,
        zorder=2 + look.width,
    )


def _label(axes: Axes, title: str, y_label: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("touched heap (MB)")
    axes.set_ylabel(y_label)
    axes.margins(x=0.03)


def _machine(results: Results) -> str:
    host = results.host
    cpu = host.get("pinned_cpu", "none")
    pinned = "not pinned" if cpu == "none" else f"pinned to CPU {cpu}"
    guest = " (virtual machine)" if host.get("virtual_machine") == "yes" else ""
    return f"Linux {host.get('kernel', '?')}, {host.get('cpu_model_name', '?')}{guest}, {pinned}"


def _conditions(results: Results) -> str:
    host = results.host
    return (
        f"4 KiB pages · Python {host.get('python_version', '?')} · {host.get('libc', '?')} · up to {results.count:,} "
        f"launches or {results.seconds:g} s a point · every series in fresh processes of its own"
    )
