from __future__ import annotations

import pytest

from taskclone.bench.stats import fit_line, fit_processes, median_interval, percentile, summarize


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


def test_a_fit_is_the_median_of_the_processes() -> None:
    fit = fit_processes([0, 1, 2], [[10, 12, 14], [10, 13, 16], [10, 110, 210]])
    assert fit.slope == pytest.approx(3)
    assert fit.at_zero == pytest.approx(10)
    assert fit.interval == pytest.approx((2, 100))
    assert fit.level == 0.75
    assert fit.off == pytest.approx(0)


def test_a_curve_is_seen_to_be_no_line() -> None:
    """The line rises by 1 a step; the middle lies 2/3 below it, the rise is 2."""
    assert fit_processes([0, 1, 2], [[0, 0, 2]]).off == pytest.approx(1 / 3)


def test_one_process_has_no_interval() -> None:
    fit = fit_processes([0, 2], [[1, 5]])
    assert (fit.slope, fit.interval, fit.level) == (2, None, None)
    with pytest.raises(ValueError, match="no process"):
        fit_processes([0, 2], [])


@pytest.mark.parametrize(("count", "left_out", "level"), [(2, 0, 0.5), (3, 0, 0.75), (6, 0, 0.96875), (10, 1, 0.9785)])
def test_median_interval(count: int, left_out: int, level: float) -> None:
    assert median_interval(count) == (left_out, pytest.approx(level, abs=1e-4))


def test_median_interval_is_as_narrow_as_may_be() -> None:
    """By counting: of n signs, how often are at most ``left_out`` of one kind?"""
    for count in range(6, 13):
        left_out, level = median_interval(count)
        assert level == pytest.approx(spans(count, left_out))
        assert spans(count, left_out) >= 0.95 > spans(count, left_out + 1)


def spans(count: int, left_out: int) -> float:
    ones = [number.bit_count() for number in range(2**count)]
    return sum(left_out < one < count - left_out for one in ones) / 2**count
