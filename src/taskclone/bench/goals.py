"""The bars that taskclone sets itself, held against the results: ratios of medians from one run."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from taskclone.bench.results import ALONE, TOGETHER, Bar, Results

__all__ = ["fork_to_thread", "goals"]

FLAT_HEAP_MB = 1024


def goals(results: Results) -> tuple[Bar, ...]:
    return (
        _same_as_loop(results),
        _flat(results, "in_place", "shared in place"),
        _flat(results, "shared", "shared"),
        _beside(results, "in_place", "py_thread", "shared in place / threading.Thread, with result", 0.7),
        _beside(results, "in_place", "c_vm_vfork", "shared in place / clone VM|VFORK and wait in C, with result", 2.5),
        _beside(results, "shared", "py_thread", "shared / threading.Thread, with result", 0.7),
        _beside(results, "shared_reaped", "py_thread", "shared / threading.Thread, reaped too", 0.9),
        _beside(results, "thread_joined", "c_pthread", "thread / pthread_create and join in C, joined", 2.7),
        _beside(results, "copied", "py_fork", "copied / os.fork + _exit + waitpid, with result", 1.15),
        *(
            _beside(results, "copied", "c_fork", f"copied / fork and wait in C, with result, {text}", limit, sizes)
            for text, limit, sizes in (
                ("no heap", 4.2, lambda mb: mb == 0),
                ("1 GB", 1.3, lambda mb: 1024 <= mb < 4096),
                ("4 GB", 1.1, lambda mb: mb >= 4096),
            )
        ),
        _beside(
            results, "bare", "c_fork", "bare copy / fork and wait in C, with result, no heap", 1.8, lambda mb: mb == 0
        ),
        _left_out(results),
    )


def _left_out(results: Results) -> Bar:
    """The largest heap, left out, beside none at all."""
    curve = results.curve("left_out", "left_out")
    name = "copied, with result: heap left out"
    if len(curve) < 2:
        return Bar(f"{name} / no heap", None, 1.3, "x", "needs two heaps")
    none, most = curve[0], curve[-1]
    ratio = most.total.median / none.total.median
    detail = f"{most.total.median / 1e3:.0f} us against {none.total.median / 1e3:.0f}"
    return Bar(f"{name}, {most.size} MB / no heap", ratio, 1.3, "x", detail)


def _same_as_loop(results: Results) -> Bar:
    name = "fork/thread in C, apart from the independent C loop"
    ours = fork_to_thread(results)
    apart: dict[int, float] = {}
    details = []
    for heap, ratio in ours.items():
        fork, thread = (results.loop.get((kind, heap)) for kind in ("fork", "thread"))
        if fork and thread:
            theirs = median(fork) / median(thread)
            apart[heap] = abs(ratio / theirs - 1) * 100
            details.append(f"{heap} MB: {ratio:.2f} and {theirs:.2f}")
    if not apart:
        shown = ", ".join(f"{heap} MB: {ratio:.2f}" for heap, ratio in ours.items())
        return Bar(name, None, 15, "%", f"give --loop to compare; here {shown or 'nothing was measured'}")
    return Bar(name, max(apart.values()), 15, "%", "; ".join(details))


def _flat(results: Results, key: str, label: str) -> Bar:
    """The worse of the two groups, by the time until the result is there.

    The call alone is printed beside it and not judged: on the shared route clone() may be back before the host has made
    the start, so its time says who was scheduled first.
    """
    with_result, call = {}, {}
    for group in (ALONE, TOGETHER):
        curve = results.curve(key, group)
        if len(curve) >= 2:
            with_result[group] = curve[-1].total.median / curve[0].total.median
            call[group] = curve[-1].start.median / curve[0].start.median
    if not with_result:
        return Bar(f"{label}, with result: largest heap / smallest", None, 1.25, "x", "needs two heaps")
    small, large = results.sizes[0], results.sizes[-1]
    detail = ", ".join(f"{group} {ratio:.2f} (call alone {call[group]:.2f})" for group, ratio in with_result.items())
    if large < FLAT_HEAP_MB:
        detail += f"; the bar is meant for 1 GB: --heap 0,{FLAT_HEAP_MB}"
    return Bar(f"{label}, with result: {large} MB / {small} MB of heap", max(with_result.values()), 1.25, "x", detail)


def _beside(
    results: Results, ours: str, theirs: str, name: str, limit: float, sizes: Callable[[int], bool] = lambda mb: True
) -> Bar:
    """The worst ratio of medians over the heaps of those sizes, both in one process."""
    ratios = {}
    for point in results.curve(ours, TOGETHER):
        rival = results.point(theirs, point.size, TOGETHER)
        if rival and sizes(point.size):
            ratios[point.size] = point.total.median / rival.total.median
    if not ratios:
        return Bar(name, None, limit, "x", "not in these results")
    detail = ", ".join(f"{ratio:.2f} at {heap} MB" for heap, ratio in ratios.items())
    return Bar(name, max(ratios.values()), limit, "x", detail)


def fork_to_thread(results: Results) -> dict[int, float]:
    """Start of fork / start of pthread_create in C, medians, by heap."""
    ratios = {}
    for fork in results.curve("c_fork"):
        thread = results.point("c_pthread", fork.size)
        if thread:
            ratios[fork.size] = fork.start.median / thread.start.median
    return ratios
