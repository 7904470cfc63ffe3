"""What the results say, in sentences, and against the bars that taskclone sets itself. Computed; nothing is rounded
in favour of anybody."""

from __future__ import annotations

from statistics import median

from taskclone.bench.axes import size_text
from taskclone.bench.causes import explain
from taskclone.bench.results import ALONE, TOGETHER, Bar, Point, Results, Verdict
from taskclone.bench.stats import fit_line

__all__ = ["judge", "us", "warnings"]

ARTICLE_HEAP_MB = 2
ARTICLE_RATIO = 6.3
FLAT_HEAP_MB = 1024
UNSTEADY = 0.5
ENOUGH = 2000


def judge(results: Results) -> Verdict:
    said = (_ratio(results), _slopes(results), _page_tables(results), _not_copied(results), *explain(results))
    bars = (
        _same_as_loop(results),
        _flat(results, "in_place", "shared in place"),
        _flat(results, "shared", "shared"),
        _beside(results, "in_place", "py_thread", "shared in place / threading.Thread, with result", 1.0),
        _beside(results, "copied", "py_fork", "copied / os.fork + _exit + waitpid, with result", 1.15),
    )
    return Verdict(tuple(sentence for sentence in said if sentence), bars, tuple(warnings(results)))


# Sentences


def _ratio(results: Results) -> str:
    ratios = _fork_to_thread(results)
    if not ratios:
        return ""
    heap = _article_heap(ratios)
    fork, thread = (results.point(key, heap) for key in ("c_fork", "c_pthread"))
    assert fork is not None
    assert thread is not None
    return (
        f"In C, with {heap} MB of touched heap, starting a process takes {ratios[heap]:.1f} times as long as starting "
        f"a thread: {us(fork.start.median)} against {us(thread.start.median)} us "
        f"(the article, at {ARTICLE_HEAP_MB} MB: {ARTICLE_RATIO} times)."
    )


def _slopes(results: Results) -> str:
    parts = []
    for key in ("c_fork", "c_pthread"):
        curve = results.curve(key)
        if len(curve) >= 2:
            parts.append(f"{curve[0].label} {_slope_us(curve):.3f}")
    if not parts:
        return ""
    return f"Microseconds that each MB of touched heap adds to a start: {', '.join(parts)}."


def _page_tables(results: Results) -> str:
    curve = results.curve("c_fork")
    if not curve:
        return ""
    points = ", ".join(f"{point.vmpte_kb} at {point.size} MB" for point in curve)
    return f"Page tables of the process that forks (VmPTE), in kB: {points} (the article: tens of kB)."


def _not_copied(results: Results) -> str:
    curve, large, small = results.curve("c_fork"), results.memcpy.get(2 << 20), results.memcpy.get(64 << 10)
    if len(curve) < 2 or not large or not small:
        return ""
    added, copied = _slope_us(curve), median(large) / 1e3 / 2
    told = f"memcpy of 2 MiB takes {us(median(large))} us here, {copied:.1f} us for each MB, and fork pays"
    page = f"{added * 1000 / 256:.0f} ns for each page of 4 KiB"
    if added >= copied:
        return f"These figures alone do not show that the heap was not copied: {told} {added:.1f} ({page})."
    return (
        f"The heap cannot have been copied: {told} only {added:.1f}. The 2 KiB of page table that map an MB would be "
        f"copied in {median(small) / 1e3 / 32:.2f} us (memcpy of 64 KiB: {us(median(small))} us): what grows is the "
        f"work for every page, {page}."
    )


# Bars


def _same_as_loop(results: Results) -> Bar:
    name = "fork/thread in C, apart from the independent C loop"
    ours = _fork_to_thread(results)
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


def _beside(results: Results, ours: str, theirs: str, name: str, limit: float) -> Bar:
    """The worst ratio of medians over all heaps, both in one process."""
    ratios = {}
    for point in results.curve(ours, TOGETHER):
        rival = results.point(theirs, point.size, TOGETHER)
        if rival:
            ratios[point.size] = point.total.median / rival.total.median
    if not ratios:
        return Bar(name, None, limit, "x", "not in these results")
    detail = ", ".join(f"{ratio:.2f} at {heap} MB" for heap, ratio in ratios.items())
    return Bar(name, max(ratios.values()), limit, "x", detail)


# Small things


def _fork_to_thread(results: Results) -> dict[int, float]:
    """Start of fork / start of pthread_create in C, medians, by heap."""
    ratios = {}
    for fork in results.curve("c_fork"):
        thread = results.point("c_pthread", fork.size)
        if thread:
            ratios[fork.size] = fork.start.median / thread.start.median
    return ratios


def _article_heap(ratios: dict[int, float]) -> int:
    return min(ratios, key=lambda heap: (abs(heap - ARTICLE_HEAP_MB), heap))


def _slope_us(curve: list[Point]) -> float:
    return fit_line([point.size for point in curve], [point.start.median / 1e3 for point in curve]).slope


def us(ns: float) -> str:
    """Microseconds for people."""
    value = ns / 1e3
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def warnings(results: Results) -> list[str]:
    """Instability and spoilt conditions, said aloud."""
    said = list(results.notes)
    if results.count < ENOUGH:
        said.append(f"only {results.count} values a point: ratios wander by some ten percent, a full run decides")
    load = results.host.get("load_avg_1min", 0.0)
    if isinstance(load, float) and load > 0.5:
        said.append(f"the machine was not quiet: load average {load:.1f} before the run")
    huge = sorted({point.label for point in results.points if point.huge_kb > 0 and point.axis != "huge"})
    if huge:
        said.append(f"huge pages were in use: {', '.join(huge)}")
    alone = [point for point in results.points if point.group == ALONE]
    unsteady = [f"{point.label} at {size_text(point.axis, point.size)}" for point in alone
                if point.summary(point.times[0]).spread > UNSTEADY]  # fmt: skip
    if unsteady:
        said.append(f"unsteady (the middle half is more than {UNSTEADY:.0%} apart): {', '.join(unsteady)}")
    return said
