"""The process that measures. ``python -m taskclone.bench.worker REQUEST``; only ``run.py`` starts it.

REQUEST is a ``Request`` as JSON. The answers are lines of JSON on stdout: notes, memcpy times and points. Whatever
a body prints goes to stderr. A few launches of each series are made and forgotten first (modules load, hosts park).
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, TextIO

from taskclone import _core
from taskclone.bench.axes import AXES
from taskclone.bench.cases import find
from taskclone.bench.memory import forbid_huge_pages, memory_facts
from taskclone.bench.series import Case, Measure, Samples, Series

__all__ = ["Request", "main"]

CHUNK = 20
WARM_UP = 3
MEMCPY_REPEATS = 200


@dataclass(frozen=True)
class Request:
    """What one worker does: all ``series`` in turn, at every size. ``program`` is the C program, for one C series."""

    case: str
    series: tuple[str, ...]
    axis: str
    sizes: tuple[int, ...]
    count: int
    seconds: float
    cpu: int | None
    program: str | None = None
    memcpy: tuple[int, ...] = ()


def main(argv: list[str]) -> int:
    request = Request(**json.loads(argv[1]))
    if request.cpu is not None:
        os.sched_setaffinity(0, _cpus(request.cpu, request.axis))
    with os.fdopen(os.dup(1), "w") as answers:
        if request.axis != "huge":
            try:
                forbid_huge_pages()
            except OSError as error:
                _answer(answers, event="note", text=f"huge pages could not be forbidden: {error}")
        case = find(request.case)
        kind = case.find(request.series[0]).bare if len(request.series) == 1 else None
        if kind and request.program:
            _become_program(request.program, kind, request)
        os.dup2(2, 1)
        _measure_memcpy(request.memcpy, answers)
        if request.series:
            _measure_series(case, request, answers)
    return 0


def _cpus(cpu: int, axis: str) -> set[int]:
    """The one that all are pinned to; where the number of CPUs is the question, another, lower one too."""
    if axis != "cpus":
        return {cpu}
    return {cpu, min(os.sched_getaffinity(0))}


def _become_program(program: str, kind: str, request: Request) -> None:
    sizes = [str(size) for size in request.sizes]
    os.execv(program, [program, kind, str(request.count), repr(request.seconds), request.axis, *sizes])


def _answer(answers: TextIO, **event: Any) -> None:
    answers.write(json.dumps(event) + "\n")
    answers.flush()


def _measure_memcpy(sizes: Iterable[int], answers: TextIO) -> None:
    for size in sizes:
        values = array("Q", _core.bare_memcpy(size, MEMCPY_REPEATS))
        _answer(answers, event="memcpy", size=size, ns=values.tolist())


def _measure_series(case: Case, request: Request, answers: TextIO) -> None:
    measures = {key: _measure_of(case.find(key)) for key in request.series}
    burden = AXES[request.axis].burden()
    for number, size in enumerate(request.sizes):
        burden.grow_to(size)
        for measure in () if number else measures.values():
            measure(WARM_UP, request.seconds, size)
        memory = memory_facts()
        for key, samples in _in_turn(measures, request.count, request.seconds, size).items():
            ns = {time: values.tolist() for time, values in samples.items()}
            _answer(answers, event="point", series=key, size=size, **memory._asdict(), ns=ns)


def _measure_of(series: Series) -> Measure:
    if series.measure is None:
        raise RuntimeError(f"{series.label} is measured by bare_program, which is not installed")
    return series.measure


def _in_turn(measures: dict[str, Measure], count: int, seconds: float, size: int) -> dict[str, Samples]:
    """All of them at one size: ``count`` launches each, or as many as fit into ``seconds`` for all together.

    A few launches each, then the next, so that a slow second falls on all. The order is turned round every time, and
    before it is counted each makes some launches that are not: who comes after a fork of a large heap finds cold
    caches and pages to be copied, and a fork ends the idle hosts.
    """
    done: dict[str, Samples] = {key: {} for key in measures}
    chunk = CHUNK if len(measures) > 1 else count
    order = list(measures.items())
    deadline = monotonic() + seconds
    left = seconds
    for first in range(0, count, chunk):
        for key, measure in order:
            if len(order) > 1:
                measure(WARM_UP, max(left, 0.001), size)
            some = measure(min(chunk, count - first), max(left, 0.001), size)
            for time, values in some.items():
                done[key].setdefault(time, array("Q")).extend(values)
            left = deadline - monotonic()
        order.reverse()
        if left <= 0:
            break
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv))
