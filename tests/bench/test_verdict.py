from __future__ import annotations

import dataclasses

import pytest
from made_up_results import MakeResults

from taskclone.bench.results import ALONE, TOGETHER, Bar, Results
from taskclone.bench.verdict import judge


def bar(results: Results, part: str) -> Bar:
    return next(bar for bar in judge(results).bars if part in bar.name)


def test_sentences_say_what_the_data_say(make_results: MakeResults) -> None:
    ratio, slopes, tables, copied = judge(make_results()).sentences
    assert "with 2 MB of touched heap" in ratio
    assert "6.3 times as long as starting a thread: 38.0 against 6.0 us" in ratio
    assert "label of c_fork 4.000, label of c_pthread 0.000" in slopes
    assert "40 at 0 MB, 44 at 2 MB, 56 at 8 MB" in tables
    assert "cannot have been copied" in copied
    assert "2 MiB takes 61.0 us" in copied
    assert "30.5 us for each MB, and fork pays only 4.0" in copied
    assert "copied in 0.05 us (memcpy of 64 KiB: 1.6 us)" in copied
    assert "16 ns for each page" in copied


def test_a_fork_as_dear_as_a_copy_proves_nothing(make_results: MakeResults) -> None:
    said = judge(make_results(c_fork=(30, 40))).sentences[-1]
    assert "do not show" in said
    assert "cannot have been copied" not in said


def test_the_ratio_is_taken_at_the_heap_nearest_to_the_articles(make_results: MakeResults) -> None:
    assert "with 3 MB of touched heap" in judge(make_results(heaps=(0, 3, 128))).sentences[0]


def test_all_bars_reached(make_results: MakeResults) -> None:
    states = {bar.name: bar.state for bar in judge(make_results(heaps=(0, 2, 1024, 4096))).bars[1:]}
    assert set(states.values()) == {"reached"}, states
    assert bar(make_results(), "threading.Thread").measured == pytest.approx(0.5)
    assert bar(make_results(), "os.fork").measured == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("part", "changed", "measured"),
    [
        ("in place / threading.Thread", {"in_place": (33.0, 0.0)}, 1.1),
        ("shared / threading.Thread, with", {"shared": (24.0, 0.0)}, 0.8),
        ("reaped", {"shared_reaped": (33.0, 0.0)}, 1.1),
        ("thread / pthread", {"thread_joined": (18.0, 0.0)}, 3.0),
        ("copied / fork and wait in C, with result, no heap", {"copied": (150.0, 4.0)}, 5.0),
        ("bare copy", {"bare": (60.0, 4.0)}, 2.0),
        ("heap left out, 8 MB", {"left_out": (100.0, 5.0)}, 1.4),
        ("os.fork", {"copied": (120.0, 4.0)}, 1.2),
        ("shared in place, with result: 8 MB", {"in_place": (15.0, 1.0)}, 23 / 15),
        ("shared, with result: 8 MB", {"shared": (18.0, 1.0)}, 26 / 18),
    ],
)
def test_a_missed_bar_is_called_missed(
    make_results: MakeResults, part: str, changed: dict[str, tuple[float, float]], measured: float
) -> None:
    found = bar(make_results(**changed), part)
    assert found.state == "missed"
    assert found.measured == pytest.approx(measured)


def test_the_worst_heap_counts(make_results: MakeResults) -> None:
    """0.97 without a heap, 1.17 at 8 MB."""
    found = bar(make_results(in_place=(29.0, 0.75)), "threading.Thread")
    assert found.state == "missed"
    assert found.measured == pytest.approx(35 / 30)


def test_exactly_at_the_bar_is_reached(make_results: MakeResults) -> None:
    assert bar(make_results(in_place=(21.0, 0.0)), "threading.Thread").state == "reached"


def test_a_short_run_points_to_the_heap_that_the_bar_is_meant_for(make_results: MakeResults) -> None:
    assert "--heap 0,1024" in bar(make_results(), "in place, with result: 8 MB / 0 MB").detail
    assert "--heap" not in bar(make_results(heaps=(0, 1024)), "in place, with result: 1024 MB / 0 MB").detail


@pytest.mark.parametrize("group", [ALONE, TOGETHER])
def test_flatness_is_judged_by_the_worse_group(make_results: MakeResults, group: str) -> None:
    flat, grows = make_results(), make_results(in_place=(15.0, 1.0))
    points = [point for results, wanted in ((flat, False), (grows, True)) for point in results.points
              if (point.group == group) is wanted]  # fmt: skip
    found = bar(dataclasses.replace(flat, points=tuple(points)), "shared in place, with result")
    assert found.state == "missed"
    assert found.measured == pytest.approx(23 / 15)
    assert "alone" in found.detail
    assert "together" in found.detail
    assert "call alone" in found.detail


def test_beside_the_independent_loop(make_results: MakeResults) -> None:
    results = make_results()  # fork/thread: 5 at 0 MB, 6.33 at 2 MB
    assert bar(results, "independent").state == "not measured"
    same = {("fork", 0): (30_000, 31_000, 29_000), ("thread", 0): (6000,)}
    close = dataclasses.replace(results, loop=same)
    assert bar(close, "independent").measured == pytest.approx(0, abs=1e-9)
    far = dataclasses.replace(results, loop={**same, ("fork", 2): (60_000,), ("thread", 2): (6000,)})
    assert bar(far, "independent").state == "missed"
    assert bar(far, "independent").measured == pytest.approx(36.67, abs=0.01)


def test_nothing_measured_nothing_said() -> None:
    verdict = judge(Results("launch", {}, 1, 1.0, ()))
    assert verdict.sentences == ()
    assert {bar.state for bar in verdict.bars} == {"not measured"}


def test_spoilt_conditions_are_said(make_results: MakeResults) -> None:
    results = make_results()
    noisy = dataclasses.replace(results, host={**results.host, "load_avg_1min": 3.0})
    point = noisy.points[0]
    ns = {"start": (10, 50, 100, 900), "total": (20, 60, 110, 910)}
    run = dataclasses.replace(point.runs[0], ns=ns, huge_kb=2048)
    noisy = dataclasses.replace(noisy, points=(dataclasses.replace(point, runs=(run,)), *noisy.points[1:]))
    warnings = "\n".join(judge(noisy).warnings)
    assert "a note" in warnings
    assert "load average 3.0" in warnings
    assert "huge pages were in use: label of c_fork" in warnings
    assert "label of c_fork at 0 MB" in warnings
    assert judge(results).warnings == ("a note",)
    assert "only 500 values" in "\n".join(judge(dataclasses.replace(results, count=500)).warnings)
