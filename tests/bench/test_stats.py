from __future__ import annotations

import pytest

from taskclone.bench.stats import fit_line, percentile, summarize


def test_percentiles_lie_between_the_values() -> None:
    assert percentile([1, 2, 3, 4, 5], 0.5) == 3
    assert percentile([1, 2, 3, 4], 0.5) == 2.5
    assert percentile([10, 20], 0.1) == 11
    assert percentile([7], 0.99) == 7
    assert percentile(range(101), 0.99) == 99


def test_summary_of_unsorted_values() -> None:
    summary = summarize([5, 1, 4, 2, 3])
    assert (summary.median, summary.mean) == (3, 3)
    assert summary.p10 == pytest.approx(1.4)
    assert summary.p99 == pytest.approx(4.96)
    assert summary.spread == pytest.approx(2 / 3)


def test_an_outlier_moves_the_mean_and_not_the_median() -> None:
    summary = summarize([10] * 99 + [10_000])
    assert summary.median == 10
    assert summary.mean == pytest.approx(109.9)


def test_line_of_exact_points() -> None:
    line = fit_line([0, 2, 4, 8], [30, 38, 46, 62])
    assert line.at_zero == pytest.approx(30)
    assert line.slope == pytest.approx(4)


def test_line_is_the_least_squares_one() -> None:
    assert fit_line([0, 1, 2], [0, 2, 1]).slope == pytest.approx(0.5)


def test_nothing_to_compute_from() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarize([])
    with pytest.raises(ValueError, match="two different"):
        fit_line([3, 3], [1, 2])
    with pytest.raises(ValueError, match="1 xs and 2 ys"):
        fit_line([3], [1, 2])
