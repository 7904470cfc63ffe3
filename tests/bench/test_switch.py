"""The switch case: its loops, what it says, and that it is a case like any other."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from made_up_results import HOST

from taskclone.bench import run as conductor
from taskclone.bench import store
from taskclone.bench.cases import find
from taskclone.bench.cases.switch import CASE, SHARING, WAYS
from taskclone.bench.results import ALONE, Point, PointRun, Results
from taskclone.bench.series import Case, Series
from taskclone.report.bars import draw_bars, save_bars

PYTHON = [series for series in CASE.series if series.measure is not None]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("series", PYTHON, ids=lambda series: series.key)
@pytest.mark.parametrize("cpus", [1, 2])
def test_round_trips_by_pipe(series: Series, cpus: int) -> None:
    assert series.measure is not None
    allowed = os.sched_getaffinity(0)
    (values,) = series.measure(50, 20.0, cpus).values()
    assert len(values) == 50
    assert min(values) > 0
    assert os.sched_getaffinity(0) == allowed


def test_the_time_limit_ends_it() -> None:
    measure = CASE.find("py_thread").measure
    assert measure is not None
    (values,) = measure(10_000_000, 0.05, 1).values()
    assert 0 < len(values) < 1_000_000


def test_every_pair_in_c_is_there() -> None:
    in_c = [series.bare for series in CASE.series if series.language == "C"]
    assert in_c == [f"{what}_{way}" for way in WAYS for what in SHARING]


def test_the_harness_carries_it() -> None:
    """Through workers, as ``taskclone bench switch`` runs it."""
    case = Case("switch", (CASE.find("thread"), CASE.find("process")), axis="cpus", sizes=(1, 2), judge=CASE.judge)
    outcome = conductor.run(case, conductor.Options((1, 2), 40, 20.0, 2, max(os.sched_getaffinity(0))), {}, no_step)
    assert outcome.failures == ()
    assert outcome.results.sizes == [1, 2]
    assert [(point.series, point.size, point.count) for point in outcome.results.points] == [
        (key, size, 40) for key in ("thread", "process") for size in (1, 2)
    ]


def test_more_cpus_than_there_are_is_a_note() -> None:
    options = conductor.Options((1, 10_000), 40, 1.0, 2, 0)
    fitting, notes = conductor.fit_in(CASE, options)
    assert fitting.sizes == (1,)
    assert "no point beyond" in notes[0]
    assert conductor.fit_in(CASE, fitting) == (fitting, ())


def no_step(number: int, what: str) -> None:
    pass


def made_up() -> Results:
    """By pipe 2 us, a process 10 % more; the others half of that; six times as much on two CPUs."""
    points = []
    for series in find("switch").series:
        for cpus in (1, 2):
            us = 2.0 if "pipe" in series.key or series.language == "Python" else 1.0
            us *= (1.1 if "process" in series.key else 1.0) * (6 if cpus == 2 else 1)
            ns = {"round_trip": tuple(round(us * 1000) + more for more in (-9, 0, 9))}
            run = PointRun(ns, 40, 1500, 0)
            points.append(
                Point(series.key, series.label, series.language, series.route, ALONE, "cpus", cpus, (run, run))
            )
    return Results("switch", dict(HOST), 20_000, 5.0, tuple(points))


def test_what_is_said() -> None:
    assert CASE.judge is not None
    verdict = CASE.judge(made_up())
    one, two, cpus = verdict.sentences
    assert "on one CPU, by what the two share: pipe thread 2.0, VM|FILES 2.0, VM 2.0, process 2.2 us" in one
    assert "futex thread 1.0, VM|FILES 1.0, VM 1.0, process 1.1 us (process / thread 1.10)" in one
    assert "on two CPUs" in two
    assert "process 13.2 us" in two
    assert "6.0 to 6.0 times as long as on one; what the two share changes it, on one CPU in C, by 10% at most" in cpus
    assert verdict.bars == ()
    empty = dataclasses.replace(made_up(), points=())
    assert CASE.judge(empty).sentences == ()


def test_it_is_stored_without_loss(tmp_path: Path) -> None:
    store.save(made_up(), tmp_path / "out.json")
    assert store.load(tmp_path / "out.json") == made_up()


def test_the_bars_are_the_medians(tmp_path: Path) -> None:
    figure = draw_bars(made_up())
    one, two = figure.axes
    assert [axes.get_title(loc="left") for axes in (one, two)] == ["1 CPU", "2 CPUs"]
    assert len(one.patches) == len(two.patches) == len(CASE.series)
    widths = [round(patch.get_width(), 3) for patch in one.patches]
    assert widths[:4] == [2.0, 2.0, 2.0, 2.2]
    assert [round(patch.get_width(), 3) for patch in two.patches][:4] == [12.0, 12.0, 12.0, 13.2]
    assert one.get_xlim()[0] == two.get_xlim()[0] == 0
    save_bars(made_up(), tmp_path / "out.png", tmp_path / "out.svg")
    svg = (tmp_path / "out.svg").read_text()
    for series in CASE.series:
        assert series.label in svg
    assert "the creator pinned to CPU 3" in svg
    assert (tmp_path / "out.png").stat().st_size > 20_000
