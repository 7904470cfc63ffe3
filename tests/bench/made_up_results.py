"""Results made up for the tests: what they say is known in advance."""

from __future__ import annotations

from collections.abc import Callable

from taskclone.bench.results import ALONE, TOGETHER, Point, PointRun, Results

Costs = dict[str, tuple[float, float]]
MakeResults = Callable[..., Results]

US = 1000
LANGUAGE = {"c_fork": "C", "c_pthread": "C", "c_vm_vfork": "C", "c_vm": "C"}
COSTS: Costs = {  # us at no heap, us for each MB
    "c_fork": (30, 4),
    "c_pthread": (6, 0),
    "c_vm_vfork": (8, 0),
    "c_vm": (7, 0),
    "in_place": (15, 0),
    "shared": (18, 0),
    "shared_reaped": (24, 0),
    "thread": (12, 0),
    "thread_joined": (15, 0),
    "copied": (110, 4),
    "bare": (50, 4),
    "py_thread": (30, 0),
    "py_fork": (100, 4),
}
HOST: dict[str, str | int | float] = {
    "kernel": "6.1.0-test",
    "cpu_model_name": "Imaginary 9000",
    "virtual_machine": "yes",
    "pinned_cpu": "3",
    "python_version": "3.11.7 (CPython)",
    "libc": "glibc 2.36",
    "load_avg_1min": 0.25,
}


def make_point(series: str, group: str, heap: int, cost: tuple[float, float]) -> Point:
    """Two processes; the median of the starts is the cost, that of the totals twice as much."""
    middle = int((cost[0] + cost[1] * heap) * US)
    starts = (middle - 10, middle, middle + 10)
    ns = {"start": starts, "total": tuple(2 * start for start in starts)}
    run = PointRun(ns, 40 + 2 * heap, 1500 + 1024 * heap, 0)
    language = LANGUAGE.get(series, "Python")
    return Point(series, f"label of {series}", language, series, group, "heap", heap, (run, run))


def make_up(heaps: tuple[int, ...] = (0, 2, 8), **changed: tuple[float, float]) -> Results:
    costs = COSTS | changed
    points = [
        make_point(series, group, heap, cost)
        for group in (ALONE, TOGETHER)
        for series, cost in costs.items()
        for heap in heaps
    ]
    left_out = changed.get("left_out", (110, 0))
    points += [make_point("left_out", "left_out", size, left_out) for size in sorted({0, heaps[-1]})]
    memcpy = {64 << 10: (1500, 1600, 1700), 2 << 20: (60_000, 61_000, 62_000)}
    return Results("launch", dict(HOST), 10_000, 1.0, tuple(points), memcpy, {}, ("a note",))
