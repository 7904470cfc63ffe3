"""What the results say, in sentences. Computed; nothing is rounded in favour of anybody."""

from __future__ import annotations

from statistics import median

from taskclone.bench.axes import size_text
from taskclone.bench.causes import explain
from taskclone.bench.goals import fork_to_thread, goals
from taskclone.bench.results import ALONE, Point, Results, Verdict
from taskclone.bench.stats import fit_line

__all__ = ["judge", "us", "warnings"]

ARTICLE_HEAP_MB = 2
ARTICLE_RATIO = 6.3
UNSTEADY = 0.5
ENOUGH = 2000


def judge(results: Results) -> Verdict:
    said = (_ratio(results), _slopes(results), _page_tables(results), _not_copied(results), *explain(results))
    return Verdict(tuple(sentence for sentence in said if sentence), goals(results), tuple(warnings(results)))


# Sentences


def _ratio(results: Results) -> str:
    ratios = fork_to_thread(results)
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


# Small things


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
