"""The chart of the launch benchmark, from stored results only.

Left the article's picture: launch time in C against touched heap, both axes linear. Right the ways from Python, start
to result; they lie too far apart for a linear axis, so that one is logarithmic and says so. Below, where the run has
them, the parts that explain the picture: mappings, descriptors, and writing to the heap again after a fork.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from taskclone.bench.results import ALONE, Point, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["STYLE", "conditions", "draw_launch", "machine", "save_launch"]


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
    "bare": Look("#e8888c", 2.0, "-", "v"),
    "mp_process": Look("#7b3f98", 1.6, "--", "v"),
    "rewrite": Look("#999999", 1.6),
    "rewrite_after": Look("#e08a3c", 2.0),
    "rewrite_beside": Look("#c1272d", 2.0),
    "program": Look("#b8860b", 2.0, "-", "D"),
    "py_thread": Look("#0b5fa5", 1.6, "--", "s"),
    "thread": Look("#0b5fa5", 2.0),
    "thread_joined": Look("#0b5fa5", 1.2, ":", "."),
    "shared": Look("#2a8f4f", 2.0),
    "shared_reaped": Look("#2a8f4f", 1.2, ":", "."),
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

    below = [part for part in PARTS if results.series_keys(part)]
    figure = Figure(figsize=(12.5, 9.2 if below else 5.4), layout="constrained")
    above, under = _halves(figure) if below else (figure, figure)
    left, right = above.subplots(1, 2, width_ratios=[1, 1])
    _c_panel(left, results)
    _python_panel(right, results)
    if below:
        for part, axes in zip(below, under.subplots(1, len(below), squeeze=False)[0], strict=True):
            PARTS[part](axes, results)
    figure.suptitle(f"What it costs to start a task that does nothing: {machine(results)}", fontsize=12.5)
    figure.supxlabel(conditions(results), fontsize=8.5, color="#555555")
    return figure


def _halves(figure: Figure) -> tuple[SubFigure, SubFigure]:
    above, under = cast("Any", figure.subfigures(2, 1, height_ratios=[5, 4]))
    return above, under


def _c_panel(axes: Axes, results: Results) -> None:
    curves = _curves(results, "C")
    for curve in curves:
        _plot(axes, curve, [point.start.median / 1e3 for point in curve])
    huge = results.curve("c_fork", "huge")
    if huge:
        _plot(axes, huge, [point.start.median / 1e3 for point in huge], f"{huge[0].label}, heap in huge pages", ":")
    axes.set_ylim(bottom=0)
    _label(axes, "In C, as in the article", "launch time (µs, median)")
    if curves or huge:
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


def _burden_panel(axes: Axes, results: Results, part: str, title: str) -> None:
    for key in results.series_keys(part):
        curve = results.curve(key, part)
        _plot(axes, curve, [point.total.median / 1e3 for point in curve])
    axes.set_ylim(bottom=0)
    _label(axes, title, "start to end (µs, median)", part)
    axes.legend(loc="upper left", frameon=False, fontsize=8.5)


def _mappings_panel(axes: Axes, results: Results) -> None:
    _burden_panel(axes, results, "mappings", "In C, with mappings of one page")


def _descriptors_panel(axes: Axes, results: Results) -> None:
    _burden_panel(axes, results, "descriptors", "In C, with open descriptors")


def _rewrite_panel(axes: Axes, results: Results) -> None:
    for key in reversed(results.series_keys("rewrite")):
        curve = results.curve(key, "rewrite")
        _plot(axes, curve, [point.summary("rewrite").median / 1e6 for point in curve])
    axes.set_ylim(bottom=0)
    _label(axes, "The bill after: writing to the heap again", "all of it written (ms, median)")
    axes.legend(loc="upper left", frameon=False, fontsize=8.5)


PARTS = {"mappings": _mappings_panel, "descriptors": _descriptors_panel, "rewrite": _rewrite_panel}


def _curves(results: Results, language: str) -> list[list[Point]]:
    """Those measured alone, the dearest first: legends read in the order of the lines."""
    curves = [results.curve(key) for key in results.series_keys(ALONE)]
    chosen = [curve for curve in curves if curve[0].language == language]
    what = "start" if language == "C" else "total"
    return sorted(chosen, key=lambda curve: -float(getattr(curve[-1], what).median))


def _plot(axes: Axes, curve: list[Point], values: list[float], label: str = "", style: str = "") -> None:
    look = LOOKS.get(curve[0].series, OTHER)
    axes.plot(
        [point.size for point in curve],
        values,
        color=look.color,
        linewidth=look.width,
        linestyle=style or look.style,
        marker=look.marker,
        markersize=3.5 + look.width / 2,
        label=label or curve[0].label,
        zorder=2 + look.width,
    )


def _label(axes: Axes, title: str, y_label: str, x_label: str = "touched heap (MB)") -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.margins(x=0.03)


def machine(results: Results) -> str:
    """Kernel, CPU and pinning."""
    host = results.host
    cpu = host.get("pinned_cpu", "none")
    who = "the creator " if results.axis == "cpus" else ""
    pinned = "not pinned" if cpu == "none" else f"{who}pinned to CPU {cpu}"
    guest = " (virtual machine)" if host.get("virtual_machine") == "yes" else ""
    return f"Linux {host.get('kernel', '?')}, {host.get('cpu_model_name', '?')}{guest}, {pinned}"


def conditions(results: Results) -> str:
    """What must be known beside the picture."""
    host = results.host
    return (
        f"{_pages(results)} · Python {host.get('python_version', '?')} · {host.get('libc', '?')} · "
        f"up to {results.count:,} values or {results.seconds:g} s a point · every series in fresh processes of its own"
    )


def _pages(results: Results) -> str:
    return "4 KiB pages except where said" if results.series_keys("huge") else "4 KiB pages"
