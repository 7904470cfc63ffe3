"""The switch benchmark: a round trip between two tasks, by what they share and how they wake each other.

The creator sends and waits for the answer; its partner does nothing but answer. In C by pipe, futex and eventfd (raw
system calls on both sides), from Python by a pipe. With one CPU both are pinned to the same one, with two each to its
own.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable
from time import perf_counter_ns

from taskclone import PROCESS, SHARED, THREAD, CloneFlags, clone
from taskclone.bench.results import Point, Results, Verdict
from taskclone.bench.series import Case, Measure, Samples, Series
from taskclone.bench.verdict import us, warnings

__all__ = ["CASE"]

WAYS = ("pipe", "futex", "eventfd")
SHARING = {"thread": "thread", "shared": "VM|FILES", "vm": "VM", "process": "process"}
"""What the two share: the first half of a key, and what is printed."""
WARM_UP = 5
GO, STOP = b"g", b"s"

Partner = Callable[[Callable[[], None]], Callable[[], object]]
"""Starts a task that calls what it is given; what comes back waits for its end."""


def as_thread(body: Callable[[], None]) -> Callable[[], object]:
    thread = threading.Thread(target=body)
    thread.start()
    return thread.join


def as_task(flags: CloneFlags) -> Partner:
    def start(body: Callable[[], None]) -> Callable[[], object]:
        return clone(body, flags=flags).result

    return start


def by_pipe(partner: Partner) -> Measure:
    """Round trips of one byte with os.write and os.read on both sides."""

    def measure(count: int, seconds: float, cpus: int) -> Samples:
        allowed = os.sched_getaffinity(0)
        there, back = os.pipe(), os.pipe()

        def answer() -> None:
            os.sched_setaffinity(0, {min(allowed) if cpus > 1 else max(allowed)})
            while os.read(there[0], 1) == GO:
                os.write(back[1], GO)

        finish = partner(answer)
        try:
            os.sched_setaffinity(0, {max(allowed)})
            return {"round_trip": _round_trips(there[1], back[0], count, seconds)}
        finally:
            os.write(there[1], STOP)
            finish()
            os.sched_setaffinity(0, allowed)
            for end in (*there, *back):
                os.close(end)

    return measure


def _round_trips(send: int, receive: int, count: int, seconds: float) -> array[int]:
    values = array("Q")
    for _ in range(WARM_UP):  # until the partner runs where it belongs
        os.write(send, GO)
        os.read(receive, 1)
    deadline = perf_counter_ns() + int(seconds * 1e9)
    for _ in range(count):
        before = perf_counter_ns()
        os.write(send, GO)
        os.read(receive, 1)
        after = perf_counter_ns()
        values.append(after - before)
        if after >= deadline:
            break
    return values


def in_c(what: str, way: str) -> Series:
    return Series(f"c_{what}_{way}", f"{SHARING[what]}, {way} (C)", "C", what, None, (6, 25), f"{what}_{way}")


def in_python(key: str, what: str, label: str, partner: Partner) -> Series:
    return Series(key, f"{label}, pipe (Python)", "Python", what, by_pipe(partner), (30, 40))


def judge(results: Results) -> Verdict:
    said = [_sharing(results, size) for size in results.sizes] + [_cpus(results)]
    return Verdict(tuple(sentence for sentence in said if sentence), (), tuple(warnings(results)))


def _sharing(results: Results, cpus: int) -> str:
    parts = []
    for way in WAYS:
        found = {what: results.point(f"c_{what}_{way}", cpus) for what in SHARING}
        thread, process = found["thread"], found["process"]
        if thread and process:
            told = ", ".join(f"{SHARING[what]} {us(_median(point))}" for what, point in found.items() if point)
            parts.append(f"{way} {told} us (process / thread {_median(process) / _median(thread):.2f})")
    if not parts:
        return ""
    where = "one CPU" if cpus == 1 else "two CPUs"
    return f"A round trip in C on {where}, by what the two share: {'; '.join(parts)}."


def _cpus(results: Results) -> str:
    """Over all series, what the second CPU does; over those in C, what the choice of flags does."""
    pairs = [(results.point(key, 1), results.point(key, 2)) for key in results.series_keys()]
    ratios = sorted(_median(two) / _median(one) for one, two in pairs if one and two)
    if not ratios:
        return ""
    apart = []
    for way in WAYS:
        points = [results.point(f"c_{what}_{way}", 1) for what in SHARING]
        medians = [_median(point) for point in points if point]
        if medians:
            apart.append(max(medians) / min(medians) - 1)
    told = f"On two CPUs a round trip takes {ratios[0]:.1f} to {ratios[-1]:.1f} times as long as on one"
    if not apart:
        return f"{told}."
    return f"{told}; what the two share changes it, on one CPU in C, by {max(apart):.0%} at most."


def _median(point: Point) -> float:
    return point.summary("round_trip").median


CASE = Case(
    name="switch",
    series=(
        *(in_c(what, way) for way in WAYS for what in SHARING),
        in_python("py_thread", "thread", "threading.Thread", as_thread),
        in_python("thread", "thread", "taskclone THREAD", as_task(THREAD)),
        in_python("shared", "shared", "taskclone SHARED", as_task(SHARED)),
        in_python("vm", "vm", "taskclone VM", as_task(CloneFlags.VM)),
        in_python("process", "process", "taskclone PROCESS", as_task(PROCESS)),
    ),
    axis="cpus",
    sizes=(1, 2),
    judge=judge,
)
