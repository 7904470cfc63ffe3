"""What the cost follows, from results made up so that the answer is known."""

from __future__ import annotations

import dataclasses

import pytest
from made_up_results import MakeResults

from taskclone.bench.causes import Cost, costs, explain
from taskclone.bench.results import ALONE, Point, PointRun, Results

SPREAD = (0.97, 0.98, 0.99, 1.0, 1.01, 1.02, 1.03)
"""Seven processes, each a little cheaper or dearer per unit than the next."""


def point(group: str, axis: str, key: str, size: int, times: dict[str, tuple[float, float]], huge_kb: int = 0) -> Point:
    """``times``: ns at size 0 and more for each unit."""
    runs = tuple(
        PointRun(
            {time: (round(base + each * factor * size),) * 3 for time, (base, each) in times.items()},
            40 + 2 * size,
            1500,
            huge_kb,
        )
        for factor in SPREAD
    )
    return Point(key, f"label of {key}", "C", key, group, axis, size, runs)


def explained(make_results: MakeResults, huge_ns: float = 512.0, given: float = 1.0) -> Results:
    """Fork: 256 ns a page and half of that at the end, 400 a mapping; the rest of the world is flat."""
    points = []
    for size in (0, 8, 32):
        fork = {"start": (50_000, 256 * 256), "total": (110_000, 256 * 384)}
        flat = {"start": (8000, 0), "total": (20_000, 0)}
        points += [point(ALONE, "heap", "c_fork", size, fork), point(ALONE, "heap", "c_pthread", size, flat)]
        in_huge = {"start": (50_000, 256 * huge_ns / 256), "total": (110_000, 256 * huge_ns / 128)}
        points.append(point("huge", "huge", "c_fork", size, in_huge, round(given * size * 1024)))
        points.append(point("first", "heap", "c_fork_first", size, {**fork, "first": (80_000, 0)}))
        for key, each in (("rewrite", 16), ("rewrite_after", 500), ("rewrite_beside", 2000)):
            times = {"rewrite": (0, 256 * each)} | ({} if key == "rewrite" else {"start": (50_000, 256 * 300)})
            points.append(point("rewrite", "heap", key, size, times))
    for size in (0, 500, 1000):
        points += [
            point("mappings", "mappings", "c_fork", size, {"start": (50_000, 400), "total": (110_000, 700)}),
            point("mappings", "mappings", "c_pthread", size, {"start": (8000, 0), "total": (20_000, 0)}),
            point("descriptors", "descriptors", "c_fork", size, {"start": (50_000, 3), "total": (110_000, 73)}),
        ]
    return dataclasses.replace(make_results(), points=tuple(points))


def cost(results: Results, group: str, key: str, what: str) -> Cost:
    return next(cost for cost in costs(results) if (cost.group, cost.key, cost.what) == (group, key, what))


@pytest.mark.parametrize(
    ("group", "key", "what", "ns"),
    [
        (ALONE, "c_fork", "the call", 256),
        (ALONE, "c_fork", "the end", 128),
        ("huge", "c_fork", "the call", 2),
        ("mappings", "c_fork", "the call", 400),
        ("mappings", "c_fork", "the end", 300),
        ("descriptors", "c_fork", "the end", 70),
        ("rewrite", "rewrite_after", "writing again", 500),
        ("rewrite", "rewrite_after", "the fork before", 300),
    ],
)
def test_slopes_are_those_that_were_made_up(
    make_results: MakeResults, group: str, key: str, what: str, ns: float
) -> None:
    fit = cost(explained(make_results), group, key, what).fit
    assert fit.slope == pytest.approx(ns, rel=0.01)
    assert fit.interval is not None
    assert fit.interval == pytest.approx((0.97 * ns, 1.03 * ns), rel=0.01)
    assert fit.level == pytest.approx(1 - 2 / 2**7)


def test_what_counts_and_what_does_not(make_results: MakeResults) -> None:
    results = explained(make_results)
    assert cost(results, ALONE, "c_fork", "the call").verdict == "counts"
    assert cost(results, ALONE, "c_pthread", "the call").verdict == "does not count"
    assert cost(results, "descriptors", "c_fork", "the call").verdict == "does not count"  # 3 us of 50
    assert cost(results, "descriptors", "c_fork", "the end").verdict == "counts"
    one = tuple(dataclasses.replace(point, runs=point.runs[:1]) for point in results.points)
    alone = dataclasses.replace(results, points=one)
    assert {cost.verdict for cost in costs(alone)} == {"unsure"}
    assert "one process, no intervals" in explain(alone)[0]


def test_too_unsteady_to_say(make_results: MakeResults) -> None:
    """Half of the processes rise, half fall."""
    results = explained(make_results)
    points = []
    for there in results.points:
        if (there.group, there.series) == ("mappings", "c_fork"):
            runs = tuple(
                dataclasses.replace(run, ns={"start": (50_000 + sign * 400 * there.size,) * 3, "total": (900_000,) * 3})
                for run, sign in zip(there.runs, (1, -0.1, 1, -0.1, 1, -0.1, -0.1), strict=True)
            )
            there = dataclasses.replace(there, runs=runs)
        points.append(there)
    said = explain(dataclasses.replace(results, points=tuple(points)))[0]
    assert "Too unsteady here to say: mappings (the call" in said


def test_the_sentences(make_results: MakeResults) -> None:
    fork, thread, huge, first, bill = explain(explained(make_results))
    assert "What label of c_fork follows (medians of 7 processes, 98% intervals): each touched page" in fork
    assert "adds 256 ns (248 to 264) to the call and 128 ns" in fork
    assert "each mapping with a touched page adds 400 ns (388 to 412) to the call and 300 ns" in fork
    assert "label of c_pthread" in thread
    assert "nothing of what was tried. It does not follow: touched pages (the call 0.00 ns (0.00 to 0.00)" in thread
    assert "huge pages (32 of 32 MB) a fork's call pays 2.0 ns" in huge
    assert "VmPTE is 104 kB instead of 104: the size of the page tables does not predict" in huge
    assert "label of c_fork_first at 32 MB 80.0 us (2147.2)" in first
    assert "500 ns (485 to 515) when the child is gone, 2000 ns (1940 to 2060) while it lives, against 16.0 ns" in bill
    assert "just written to takes 300 ns" in bill


def test_huge_pages_that_were_not_given_prove_nothing(make_results: MakeResults) -> None:
    said = " ".join(explain(explained(make_results, given=0.5)))
    assert "gave huge pages for 16 of 32 MB only" in said
    assert "does not predict" not in said


def test_huge_pages_as_dear_as_small_ones_prove_nothing(make_results: MakeResults) -> None:
    said = " ".join(explain(explained(make_results, huge_ns=256 * 256.0)))
    assert "With the heap in huge pages" in said
    assert "does not predict" not in said


def test_nothing_is_explained_without_the_parts(make_results: MakeResults) -> None:
    assert explain(make_results()) == []
