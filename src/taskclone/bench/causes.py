"""What a start's cost follows, and what it does not: slopes with their intervals, and the sentences about them.

Each process that measured is one fit through all sizes; the interval is over the processes (``stats.fit_processes``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

from taskclone.bench.results import ALONE, PointRun, Results
from taskclone.bench.stats import Fit, fit_processes

__all__ = ["Cost", "costs", "explain", "interval_text"]

PAGES = 256  # of 4 KiB in a MB
TRIFLE = 0.1  # of the cost at size 0: what adds less over all sizes is not called a cost
TABLES_ALIKE = 0.2
KINDS = ("c_fork", "c_vm_vfork", "c_pthread")


class Unit(NamedTuple):
    """What one unit is in words, how many of them lie in a step of the axis, and the times of which it is a cost."""

    text: str
    many: str
    a_step: int
    times: tuple[str, ...]


CALL, END, REWRITE, FORK = "the call", "the end", "writing again", "the fork before"
"""Until it is back; from there until the task is gone (a copy is torn down there); the bill, and what led to it."""
UNITS = {
    ALONE: Unit("touched page of 4 KiB", "touched pages", PAGES, (CALL, END)),
    "huge": Unit("4 KiB of heap in huge pages", "memory in huge pages", PAGES, (CALL, END)),
    "mappings": Unit("mapping with a touched page", "mappings", 1, (CALL, END)),
    "descriptors": Unit("open descriptor", "open descriptors", 1, (CALL, END)),
    "rewrite": Unit("page of 4 KiB written again", "pages written again", PAGES, (REWRITE, FORK)),
}


class Cost(NamedTuple):
    """ns for each unit: of the series ``key`` in the group ``group``, of the part ``what`` of its time."""

    group: str
    key: str
    label: str
    what: str
    fit: Fit
    sizes: tuple[int, ...]
    processes: int

    @property
    def unit(self) -> Unit:
        return UNITS[self.group]

    @property
    def verdict(self) -> str:
        """More than chance and more than a trifle of what a start costs without it; at most a trifle; or neither."""
        if self.fit.interval is None:
            return "unsure"
        low, high = (self._share(end) for end in self.fit.interval)
        if self._share(self.fit.slope) > TRIFLE:
            return "counts" if low > 0 else "unsure"
        return "does not count" if high <= 2 * TRIFLE else "unsure"

    def _share(self, slope: float) -> float:
        """What all of the sizes together add, beside what is paid without them."""
        return slope * self.unit.a_step * (self.sizes[-1] - self.sizes[0]) / max(self.fit.at_zero, 1.0)


def _call(run: PointRun) -> float:
    return median(run.ns["start"])


def _end(run: PointRun) -> float:
    return median(total - start for start, total in zip(run.ns["start"], run.ns["total"], strict=True))


def _rewrite(run: PointRun) -> float:
    return median(run.ns["rewrite"])


VALUES: dict[str, Callable[[PointRun], float]] = {CALL: _call, END: _end, REWRITE: _rewrite, FORK: _call}


def costs(results: Results) -> list[Cost]:
    """All that these results hold, in the order in which they were measured."""
    return [cost for group in UNITS for cost in _costs_of(results, group)]


def _costs_of(results: Results, group: str) -> Iterator[Cost]:
    if group == ALONE and results.axis != "heap":
        return
    for key in results.series_keys(group):
        curve = results.curve(key, group)
        if len(curve) < 2 or (group == ALONE and key not in KINDS):
            continue
        for what in UNITS[group].times:
            if what == FORK and "start" not in curve[0].times:
                continue
            count = min(len(point.runs) for point in curve)
            values = [[VALUES[what](point.runs[number]) for point in curve] for number in range(count)]
            fit = _scaled(fit_processes([point.size for point in curve], values), UNITS[group].a_step)
            sizes = tuple(point.size for point in curve)
            yield Cost(group, key, curve[0].label, what, fit, sizes, count)


def _scaled(fit: Fit, by: int) -> Fit:
    interval = fit.interval and (fit.interval[0] / by, fit.interval[1] / by)
    return fit._replace(slope=fit.slope / by, interval=interval)


# Sentences


def explain(results: Results) -> list[str]:
    """Nothing about what was not measured."""
    if not any(point.group in UNITS and point.group != ALONE for point in results.points):
        return []
    known = {(cost.group, cost.key, cost.what): cost for cost in costs(results)}
    said = [_follows(known, key) for key in KINDS]
    said += [_huge(results, known), _first(results), _bill(known)]
    return [sentence for sentence in said if sentence]


Known = dict[tuple[str, str, str], Cost]


def _follows(known: Known, key: str) -> str:
    found = [cost for group in (ALONE, "mappings", "descriptors") for cost in known.values()
             if (cost.group, cost.key) == (group, key)]  # fmt: skip
    if not found:
        return ""
    parts = []
    for group in dict.fromkeys(cost.group for cost in found):
        counts = [cost for cost in found if cost.group == group and cost.verdict == "counts"]
        told = " and ".join(f"{_ns(cost.fit)} to {cost.what}" for cost in counts)
        if told:
            parts.append(f"each {UNITS[group].text} adds {told}")
    sentence = f"What {found[0].label} follows ({_sure(found[0])}): {'; '.join(parts) or 'nothing of what was tried'}."
    for verdict, words in (("does not count", "It does not follow"), ("unsure", "Too unsteady here to say")):
        those = [cost for cost in found if cost.verdict == verdict]
        told = ", ".join(f"{cost.unit.many} ({cost.what} {_ns(cost.fit)} each)" for cost in those)
        if told:
            sentence += f" {words}: {told}."
    return sentence


def _sure(cost: Cost) -> str:
    if cost.fit.level is None:
        return "one process, no intervals"
    return f"medians of {cost.processes} processes, {cost.fit.level:.0%} intervals"


def _huge(results: Results, known: Known) -> str:
    huge, small = known.get(("huge", "c_fork", CALL)), known.get((ALONE, "c_fork", CALL))
    if not huge or not small:
        return ""
    last = results.curve("c_fork", "huge")[-1]
    beside = results.point("c_fork", last.size)
    if beside is None:
        return ""
    given = f"{last.huge_kb / 1024:.0f} of {last.size} MB"
    if last.huge_kb < last.size * 1024 * 0.9:
        return f"The kernel gave huge pages for {given} only: they show nothing here."
    told = (
        f"With the heap in huge pages ({given}) a fork's call pays {_ns(huge.fit)} for each 4 KiB instead of "
        f"{_ns(small.fit)}, and VmPTE is {last.vmpte_kb} kB instead of {beside.vmpte_kb}"
    )
    alike = abs(last.vmpte_kb / beside.vmpte_kb - 1) < TABLES_ALIKE
    if alike and huge.fit.slope < small.fit.slope / 2:
        return f"{told}: the size of the page tables does not predict what a fork costs, the number of pages does."
    return f"{told}."


def _first(results: Results) -> str:
    parts = []
    for key in results.series_keys("first"):
        for point in results.curve(key, "first"):
            body, call = point.summary("first").median / 1e3, point.start.median / 1e3
            parts.append(f"{point.label} at {point.size} MB {body:.1f} us ({call:.1f})")
    if not parts:
        return ""
    return (
        f"From the call to the first instruction of the body (in brackets: until the call is back): {', '.join(parts)}."
    )


def _bill(known: Known) -> str:
    plain, after, beside = (
        known.get(("rewrite", key, REWRITE)) for key in ("rewrite", "rewrite_after", "rewrite_beside")
    )
    if not plain or not after or not beside:
        return ""
    told = (
        f"The bill after a fork, for each page of 4 KiB that the parent writes to again: {_ns(after.fit)} when the "
        f"child is gone, {_ns(beside.fit)} while it lives, against {_ns(plain.fit)} without a fork"
    )
    fork = known.get(("rewrite", "rewrite_after", FORK))
    if fork:
        told += f"; the fork of a heap just written to takes {_ns(fork.fit)} for each"
    return f"{told}. A task that shares memory leaves no such bill."


def _ns(fit: Fit) -> str:
    return f"{_number(fit.slope)} ns{interval_text(fit)}"


def interval_text(fit: Fit) -> str:
    """`` (16.1 to 17.9)``, or nothing where there is none."""
    if fit.interval is None:
        return ""
    return f" ({_number(fit.interval[0])} to {_number(fit.interval[1])})"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 1 else 2
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text
