"""Results as a JSON file in pyperf's format, and back without loss: ``python -m pyperf show FILE`` reads it too.

A point becomes a pyperf benchmark for each of its times, ``launch/c_fork/alone/2MB/start`` and ``.../total``: one
pyperf run for each process that measured it, every single launch as a value in seconds, and everything else as
metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import pyperf  # type: ignore[import-untyped]

from taskclone.bench.axes import AXES
from taskclone.bench.results import Fact, Point, PointRun, Results

__all__ = ["load", "save"]

NS = 1e9
POINT_FACTS = ("series", "label", "language", "route", "group", "axis", "size")
RUN_FACTS = ("vmpte_kb", "vmrss_kb", "huge_kb")
HOST = "host_"
NOTE = "note_"


def save(results: Results, path: Path) -> None:
    """Write; a file that is there is replaced."""
    shared: dict[str, Fact] = {"case": results.case, "asked_count": results.count, "asked_seconds": results.seconds}
    shared |= {HOST + name: value for name, value in results.host.items()}
    shared |= {f"{NOTE}{number:03}": text for number, text in enumerate(results.notes)}
    benchmarks = [benchmark for point in results.points for benchmark in _point_benchmarks(point, shared)]
    for size, values in results.memcpy.items():
        benchmarks.append(_benchmark(f"{results.case}/memcpy/{size}", [(values, {"memcpy_bytes": size})], shared))
    for (kind, heap), values in results.loop.items():
        facts: dict[str, Fact] = {"loop_kind": kind, "loop_heap_mb": heap}
        benchmarks.append(_benchmark(f"{results.case}/loop/{kind}/{heap}MB", [(values, facts)], shared))
    pyperf.BenchmarkSuite(benchmarks).dump(str(path), replace=True)


def _point_benchmarks(point: Point, shared: dict[str, Fact]) -> Iterator[pyperf.Benchmark]:
    facts = {name: getattr(point, name) for name in POINT_FACTS}
    size = f"{point.size}{AXES[point.axis].mark}"
    for what in point.times:
        name = f"{shared['case']}/{point.series}/{point.group}/{size}/{what}"
        runs = [
            (run.ns[what], {**facts, "what": what, **{fact: getattr(run, fact) for fact in RUN_FACTS}})
            for run in point.runs
        ]
        yield _benchmark(name, runs, shared)


def _benchmark(
    name: str, runs: Iterable[tuple[tuple[int, ...], dict[str, Fact]]], shared: dict[str, Fact]
) -> pyperf.Benchmark:
    return pyperf.Benchmark(
        [
            pyperf.Run(
                [value / NS for value in values],
                metadata={"name": name, "unit": "second", **shared, **facts},
                collect_metadata=False,
            )
            for values, facts in runs
        ]
    )


def load(path: Path) -> Results:
    """Read what ``save`` wrote. ValueError when it is some other file."""
    suite = pyperf.BenchmarkSuite.load(str(path))
    memcpy: dict[int, tuple[int, ...]] = {}
    loop: dict[tuple[str, int], tuple[int, ...]] = {}
    timed: list[tuple[dict[str, Fact], pyperf.Benchmark]] = []
    facts: dict[str, Fact] = {}
    for benchmark in suite:
        facts = benchmark.get_metadata()
        if "memcpy_bytes" in facts:
            memcpy[int(facts["memcpy_bytes"])] = _nanoseconds(benchmark.get_values())
        elif "loop_kind" in facts:
            loop[str(facts["loop_kind"]), int(facts["loop_heap_mb"])] = _nanoseconds(benchmark.get_values())
        elif "series" in facts:
            timed.append((facts, benchmark))
        else:
            raise ValueError(f"{path}: not written by taskclone bench: {benchmark.get_name()}")
    return Results(
        case=str(facts["case"]),
        host={name.removeprefix(HOST): value for name, value in facts.items() if name.startswith(HOST)},
        count=int(facts["asked_count"]),
        seconds=float(facts["asked_seconds"]),
        points=tuple(_points(timed)),
        memcpy=memcpy,
        loop=loop,
        notes=tuple(str(facts[name]) for name in sorted(facts) if name.startswith(NOTE)),
    )


def _points(timed: list[tuple[dict[str, Fact], pyperf.Benchmark]]) -> Iterator[Point]:
    def key(one: tuple[dict[str, Fact], pyperf.Benchmark]) -> tuple[Fact, ...]:
        return tuple(one[0][name] for name in POINT_FACTS)

    for _, several in groupby(timed, key):
        by_time = {str(facts["what"]): (facts, benchmark) for facts, benchmark in several}
        facts = next(iter(by_time.values()))[0]
        runs = []
        for of_one_process in zip(*(benchmark.get_runs() for _, benchmark in by_time.values()), strict=True):
            ns = {time: _nanoseconds(run.values) for time, run in zip(by_time, of_one_process, strict=True)}
            metadata = of_one_process[0].get_metadata()
            runs.append(PointRun(ns, **{name: metadata[name] for name in RUN_FACTS}))
        strings = {name: str(facts[name]) for name in POINT_FACTS if name != "size"}
        yield Point(**strings, size=int(facts["size"]), runs=tuple(runs))


def _nanoseconds(seconds: Iterable[float]) -> tuple[int, ...]:
    return tuple(round(value * NS) for value in seconds)
