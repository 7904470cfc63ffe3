"""The conductor: which worker runs when, and what comes back.

A run is a number of rounds. In each, every series has a fresh process of its own for its share of the launches, one
process after the other; then one more for each group measures what is compared together; then come the series of the
parts, each in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import resources
from statistics import median
from time import monotonic
from typing import Any

from taskclone.bench.axes import AXES, size_text
from taskclone.bench.results import ALONE, TOGETHER, Fact, Point, PointRun, Results
from taskclone.bench.series import Case, Part, Series
from taskclone.bench.worker import Request

__all__ = ["Estimate", "OnStep", "Options", "Outcome", "estimate", "fit_in", "run", "step_count"]

MEMCPY_SIZES = (64 * 1024, 2 * 1024 * 1024)
LOOP_LARGEST_MB = 8
LOOP_LAUNCHES = 2000
LOOP_REPEATS = 3  # processes a round: where its pages lie makes a process a quarter slower now and then
LOOP_KINDS = ("fork", "thread")
GRACE_SECONDS = 60
TOGETHER_SHARE = 2
TOUCH_SECONDS = 0.0005  # a guess: to write to a MB of fresh pages

OnStep = Callable[[int, str], None]
"""Called with the number of the round (from 0) and what of it is measured now; with "" when a round begins."""


@dataclass(frozen=True)
class Options:
    """``count`` launches a point or ``seconds``, whichever comes first, spread over ``rounds``.

    ``cpu`` None: not pinned. ``loop`` is a compiled csrc/testing/launch_loop.c, run beside the C series. The parts
    have a count and seconds of their own.
    """

    sizes: tuple[int, ...]
    count: int
    seconds: float
    rounds: int
    cpu: int | None
    loop: str | None = None
    parts: tuple[Part, ...] = ()
    part_count: int = 1
    part_seconds: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """``failures`` names each series that could not be measured, and why."""

    results: Results
    failures: tuple[str, ...]


class WorkerError(Exception):
    """A measuring process failed; the message is what it said last."""


@dataclass(frozen=True)
class Estimate:
    """Seconds."""

    likely: float
    most: float


def estimate(case: Case, options: Options) -> Estimate:
    """How long a run takes, from rough costs and a short try of this machine."""
    probe = next((series for series in case.series if series.bare), case.series[0])
    began = monotonic()
    tried = Request(case.name, (probe.key,), case.axis, options.sizes[:1], 100, 1.0, options.cpu, _find_program())
    launches: list[int] = []
    with contextlib.suppress(WorkerError):  # the run itself will say what is wrong
        launches = [ns for event in _events(tried) if "ns" in event for ns in list(event["ns"].values())[-1]]
    worker_seconds = monotonic() - began
    scale: float = median(launches) / 1e3 / probe.cost_us[0] if launches else 1.0

    def cost(series: Series, size: int) -> float:
        base, more = series.cost_us
        return (base + more * size) * scale / 1e6

    def point_seconds(keys: tuple[str, ...], size: int) -> float:
        launch = sum(cost(case.find(key), size) for key in keys)
        return min(options.seconds * _share(keys), options.count * launch)

    groups = [(series.key,) for series in case.series] + list(case.together)
    workers = len(groups) + sum(len(part.series) for part in options.parts)
    touch = options.sizes[-1] * TOUCH_SECONDS * scale * len(groups) if case.axis == "heap" else 0.0
    overhead = (worker_seconds * workers + touch) * options.rounds
    likely = sum(point_seconds(keys, size) for keys in groups for size in options.sizes)
    most = sum(options.seconds * _share(keys) for keys in groups) * len(options.sizes)
    for part in options.parts:
        points = [cost(series, size) for series in part.series for size in part.sizes]
        likely += sum(min(options.part_seconds, options.part_count * launch) for launch in points)
        most += options.part_seconds * len(points)
    return Estimate(likely + overhead, most + overhead)


def fit_in(case: Case, options: Options) -> tuple[Options, tuple[str, ...]]:
    """Without the sizes that this machine cannot carry, and a note for each axis of which some were left out."""
    notes = dict[str, None]()

    def carried(axis: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
        most = AXES[axis].most()
        left = tuple(size for size in sizes if size <= most)
        if left != sizes:
            notes[f"no point beyond {size_text(axis, most)}: that is what can be had here"] = None
        return left

    sizes = carried(case.axis, options.sizes)
    parts = tuple(part._replace(sizes=carried(part.axis, part.sizes)) for part in options.parts)
    return replace(options, sizes=sizes, parts=parts), tuple(notes)


def step_count(case: Case, options: Options) -> int:
    """How many things ``run`` measures, each of them told to ``on_step``."""
    a_round = (
        len(case.series) + len(case.together) + sum(len(part.series) for part in options.parts) + bool(options.loop)
    )
    return options.rounds * a_round


def run(case: Case, options: Options, host: dict[str, Fact], on_step: OnStep) -> Outcome:
    """Measure; ``on_step`` is told what has been measured. A series that fails is left out and named."""
    options, notes = fit_in(case, options)
    collected = _Collected()
    for note in notes:
        collected.note(note)
    program = _find_program()
    if program is None and any(series.bare and series.measure for series in case.series):
        collected.note("bare_program is not installed: the C series ran inside Python, whose memory a fork copies too")
    failed: dict[str, str] = {}
    for number in range(options.rounds):
        on_step(number, "")
        for text, group, request in _round(case, options, program, number):
            on_step(number, text)
            if text not in failed:
                try:
                    for event in _events(request):
                        collected.take(event, group, request)
                except WorkerError as error:
                    failed[text] = f"{text}: {error}"
        if options.loop:
            on_step(number, "launch_loop")
            collected.take_loop(options)
    for failure in failed.values():
        collected.note(f"not measured: {failure}")
    return Outcome(collected.results(case, options, host), tuple(failed.values()))


def _round(case: Case, options: Options, program: str | None, number: int) -> Iterator[tuple[str, str, Request]]:
    """(what, group, request) of the workers of round ``number``."""
    count, seconds = _share_of_round(options.count, options.seconds, options.rounds, number)

    def request(keys: tuple[str, ...], memcpy: tuple[int, ...] = ()) -> Request:
        alone = program if len(keys) == 1 else None
        limit = seconds * _share(keys)
        return Request(case.name, keys, case.axis, options.sizes, count, limit, options.cpu, alone, memcpy)

    for series in case.series:
        yield series.label, ALONE, request((series.key,))
    for place, keys in enumerate(case.together):
        text = "in turn: " + ", ".join(case.find(key).label for key in keys[:2]) + ", ..."
        yield text, TOGETHER, request(keys, () if place else MEMCPY_SIZES)
    count, seconds = _share_of_round(options.part_count, options.part_seconds, options.rounds, number)
    for part in options.parts:
        for series in part.series:
            what = Request(case.name, (series.key,), part.axis, part.sizes, count, seconds, options.cpu, program)
            yield f"{part.name}: {series.label}", part.name, what


def _share_of_round(count: int, seconds: float, rounds: int, number: int) -> tuple[int, float]:
    return max(1, count // rounds + (number < count % rounds)), seconds / rounds


def _share(keys: tuple[str, ...]) -> int:
    """How many times the seconds of a point a worker gets at a heap: many series in turn need more than one."""
    return 1 if len(keys) == 1 else TOGETHER_SHARE


def _find_program() -> str | None:
    path = str(resources.files("taskclone.bench").joinpath("bare_program"))
    return path if os.access(path, os.X_OK) else None


def _events(request: Request) -> Iterator[dict[str, Any]]:
    """Start a worker and yield its answers; WorkerError when it fails or takes far too long."""
    limit = GRACE_SECONDS + len(request.sizes) * (request.seconds + 5) * 2
    argv = [sys.executable, "-P", "-m", "taskclone.bench.worker", json.dumps(asdict(request))]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True) as worker,
    ):
        watchdog = threading.Timer(limit, worker.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            assert worker.stdout is not None
            for line in worker.stdout:
                yield json.loads(line)
            code = worker.wait()
        finally:
            late = not watchdog.is_alive()
            watchdog.cancel()
            worker.kill()
        if late:
            raise WorkerError(f"not done after {limit:.0f} s")
        if code:
            errors.seek(0)
            said = [line.strip() for line in errors if line.strip()]
            raise WorkerError(f"{said[-1] if said else 'no word'} (exit status {code})")


class _Collected:
    """What the workers have said so far."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str, str, int], list[PointRun]] = {}
        self._memcpy: dict[int, list[int]] = {}
        self._loop: dict[tuple[str, int], list[int]] = {}
        self._notes: dict[str, None] = {}

    def note(self, text: str) -> None:
        self._notes[" ".join(text.split())] = None

    def take(self, event: dict[str, Any], group: str, request: Request) -> None:
        match event["event"]:
            case "note":
                self.note(event["text"])
            case "memcpy":
                self._memcpy.setdefault(event["size"], []).extend(event["ns"])
            case "point":
                ns = {time: tuple(values) for time, values in event["ns"].items()}
                run = PointRun(ns, event["vmpte_kb"], event["vmrss_kb"], event["huge_kb"])
                key = event.get("series", request.series[0])
                self._runs.setdefault((group, key, request.axis, event["size"]), []).append(run)

    def take_loop(self, options: Options) -> None:
        """Run the independent C loop at the small heaps."""
        for heap in options.sizes:
            if heap > LOOP_LARGEST_MB:
                continue
            for kind in LOOP_KINDS * LOOP_REPEATS:
                value = _run_loop(options, kind, heap)
                self._loop.setdefault((kind, heap), []).append(value)

    def results(self, case: Case, options: Options, host: dict[str, Fact]) -> Results:
        return Results(
            case=case.name,
            host=host,
            count=options.count,
            seconds=options.seconds,
            points=tuple(self._points(case)),
            memcpy={size: tuple(values) for size, values in self._memcpy.items()},
            loop={key: tuple(values) for key, values in self._loop.items()},
            notes=tuple(self._notes),
        )

    def _points(self, case: Case) -> Iterator[Point]:
        for (group, key, axis, size), runs in sorted(self._runs.items(), key=lambda item: item[0][0] != ALONE):
            series = case.find(key)
            yield Point(key, series.label, series.language, series.route, group, axis, size, tuple(runs))


def _run_loop(options: Options, kind: str, heap: int) -> int:
    """The median that launch_loop prints, in ns."""
    assert options.loop is not None
    pin = [] if options.cpu is None else ["--cpu", str(options.cpu)]
    count = max(1, min(LOOP_LAUNCHES, options.count) // LOOP_REPEATS)
    argv = [options.loop, *pin, kind, str(heap), str(count)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    fields = dict(field.split("=", 1) for field in done.stdout.split() if "=" in field)
    return int(fields["median_ns"])
