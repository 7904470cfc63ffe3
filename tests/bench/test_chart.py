from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from made_up_results import COSTS, LANGUAGE, MakeResults

from taskclone.report.chart import draw_launch, save_launch


@pytest.fixture
def svg_text(make_results: MakeResults, tmp_path: Path) -> str:
    save_launch(make_results(), svg=tmp_path / "out.svg")
    return (tmp_path / "out.svg").read_text()


def test_files_are_written(make_results: MakeResults, tmp_path: Path) -> None:
    save_launch(make_results(), tmp_path / "out.png", tmp_path / "out.svg")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out.png").stat().st_size > 20_000
    assert (tmp_path / "out.svg").stat().st_size > 10_000


def test_axes_have_names_and_units(svg_text: str) -> None:
    assert svg_text.count("touched heap (MB)") == 2
    assert "launch time (µs, median)" in svg_text
    assert "start and result (µs, median, logarithmic)" in svg_text


def test_every_curve_is_in_the_legend(svg_text: str) -> None:
    for series in COSTS:
        assert re.search(rf">\s*label of {series}\s*<", svg_text), series


def test_the_title_names_the_machine(svg_text: str) -> None:
    assert "Linux 6.1.0-test, Imaginary 9000 (virtual machine), pinned to CPU 3" in svg_text


def test_curves_are_the_stored_medians(make_results: MakeResults) -> None:
    left, right = draw_launch(make_results()).axes
    drawn = {line.get_label(): list(line.get_ydata()) for axes in (left, right) for line in axes.get_lines()}
    assert drawn["label of c_fork"] == pytest.approx([30, 38, 62])
    assert drawn["label of c_pthread"] == pytest.approx([6, 6, 6])
    assert drawn["label of py_thread"] == pytest.approx([60, 60, 60])
    assert len(left.get_lines()) == len(LANGUAGE)
    assert left.get_yscale() == "linear"
    assert left.get_ylim()[0] == 0


def test_one_heap_is_enough_to_draw(make_results: MakeResults, tmp_path: Path) -> None:
    save_launch(make_results(heaps=(2,)), png=tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_the_parts_have_panels_of_their_own(make_results: MakeResults) -> None:
    results = make_results()
    parts = {
        "mappings": ("c_fork", "c_pthread"),
        "descriptors": ("c_fork",),
        "rewrite": ("rewrite", "rewrite_after"),
        "huge": ("c_fork",),
    }
    points = list(results.points)
    for part, keys in parts.items():
        for key in keys:
            for point in results.curve("c_fork"):
                runs = tuple(dataclasses.replace(run, ns={"rewrite": run.ns["start"], **run.ns}) for run in point.runs)
                points.append(dataclasses.replace(point, series=key, group=part, runs=runs))
    figure = draw_launch(dataclasses.replace(results, points=tuple(points)))
    left, _, mappings, descriptors, rewrite = figure.subfigs[0].axes + figure.subfigs[1].axes
    assert "label of c_fork, heap in huge pages" in [line.get_label() for line in left.get_lines()]
    assert [axes.get_xlabel() for axes in (mappings, descriptors)] == ["mappings", "descriptors"]
    assert [len(axes.get_lines()) for axes in (mappings, descriptors, rewrite)] == [2, 1, 2]
    assert list(mappings.get_lines()[0].get_ydata()) == pytest.approx([60, 76, 124])
    assert list(rewrite.get_lines()[0].get_ydata()) == pytest.approx([0.030, 0.038, 0.062])
    assert {axes.get_ylim()[0] for axes in (mappings, descriptors, rewrite)} == {0}
