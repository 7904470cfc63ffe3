"""The C program: what it takes on, what its kinds measure, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proc import children_of, gone, shared_between, until

SWITCHES = [f"{what}_{way}" for what in ("thread", "shared", "vm", "process") for way in ("pipe", "futex", "eventfd")]


@pytest.fixture(scope="module")
def program() -> str:
    if "TASKCLONE_BUILD" not in os.environ:
        pytest.skip("TASKCLONE_BUILD is unset: it names the build folder with the C programs; make test sets it")
    return str(Path(os.environ["TASKCLONE_BUILD"]) / "csrc" / "bare_program")


def run(program: str, *arguments: object) -> list[dict[str, Any]]:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def waiting(program: str) -> Iterator[Any]:
    """Starts the program on a point that takes long, and gives its process."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([program, *map(str, arguments)], stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_heap_is_touched_in_small_pages(program: str) -> None:
    small, large = run(program, "pthread", 5, 5, "heap", 0, 8)
    assert 8000 < large["vmrss_kb"] - small["vmrss_kb"] < 9000
    assert large["huge_kb"] == 0
    assert [small["size"], large["size"]] == [0, 8]
    assert {time: len(values) for time, values in large["ns"].items()} == {"start": 5, "total": 5}


def test_the_huge_heap_is_in_huge_pages(program: str) -> None:
    chosen = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    _, large = run(program, "pthread", 5, 5, "huge", 0, 8)
    assert large["huge_kb"] == (0 if "[never]" in chosen else 8192)


def test_the_page_tables_are_the_same_for_huge_pages(program: str) -> None:
    """They are kept in reserve: the fact on which the verdict about VmPTE stands."""
    grown = []
    for axis in ("heap", "huge"):
        small, large = run(program, "pthread", 5, 5, axis, 0, 64)
        grown.append(large["vmpte_kb"] - small["vmpte_kb"])
    assert grown[0] == pytest.approx(128, abs=16)
    assert grown[1] == pytest.approx(128, abs=16)


def test_mappings_stay_apart(waiting: Any) -> None:
    process = waiting("pthread", 10_000_000, 60, "mappings", 500)
    maps = Path(f"/proc/{process.pid}/maps")
    until(lambda: len(maps.read_text().splitlines()) > 500, "the mappings")
    assert 500 < len(maps.read_text().splitlines()) < 560


def test_descriptors_are_open(waiting: Any) -> None:
    process = waiting("pthread", 10_000_000, 60, "descriptors", 700)
    until(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) >= 703, "the descriptors")
    assert 703 <= len(os.listdir(f"/proc/{process.pid}/fd")) < 720


def test_writing_again_costs_more_after_a_fork(program: str) -> None:
    """And more still while the child lives: the best of twenty, which no other load makes cheaper."""
    best = []
    for kind in ("rewrite", "rewrite_after", "rewrite_beside"):
        (point,) = run(program, kind, 20, 20, "heap", 4)
        best.append(min(point["ns"]["rewrite"]))
        assert ("start" in point["ns"]) == (kind != "rewrite")
    assert best == sorted(best)
    assert best[1] > 2 * best[0]


@pytest.mark.parametrize("kind", SWITCHES)
def test_round_trips(program: str, kind: str) -> None:
    (point,) = run(program, kind, 300, 20, "cpus", 1)
    assert len(point["ns"]["round_trip"]) == 300
    assert min(point["ns"]["round_trip"]) > 0


@pytest.mark.parametrize("kind", ["thread_futex", "shared_pipe", "vm_eventfd", "process_pipe"])
def test_each_has_a_cpu_of_its_own(kind: str, waiting: Any) -> None:
    allowed = os.sched_getaffinity(0)
    assert len(allowed) > 1, "needs two CPUs"
    process = waiting(kind, 10_000_000, 60, "cpus", 2)

    def both() -> list[set[int]]:
        tasks = {int(tid) for tid in os.listdir(f"/proc/{process.pid}/task")} | set(children_of(process.pid))
        return [os.sched_getaffinity(tid) for tid in sorted(tasks)]

    until(lambda: both() == [{max(allowed)}, {min(allowed)}], "one CPU each")


@pytest.mark.parametrize("kind", ["shared_pipe", "vm_futex", "process_eventfd"])
def test_the_partner_shares_what_the_kind_says_and_dies_with_its_creator(kind: str, waiting: Any) -> None:
    process = waiting(kind, 10_000_000, 60, "cpus", 1)
    until(lambda: len(children_of(process.pid)) == 1, "the partner")
    (partner,) = children_of(process.pid)
    wanted = {"shared": {"VM", "FILES"}, "vm": {"VM"}, "process": set[str]()}[kind.partition("_")[0]]
    assert shared_between(process.pid, partner) & {"VM", "FILES"} == wanted
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: gone(partner), "the partner's end")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense", 1, 1, "heap", 0), "no bare kind 'nonsense'"),
        (("fork", 1, 1, "nonsense", 0), "no axis 'nonsense'"),
        (("fork", 1, 1, "heap", 2, 1), "sizes must grow"),
        (("fork", 0, 1, "heap", 0), "must be positive"),
        (("fork", 1, 1, "heap"), "usage"),
        (("thread_pipe", 1, 1, "heap", 0, 1), None),
    ],
)
def test_bad_arguments(program: str, arguments: tuple[object, ...], message: str | None) -> None:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    if message is None:
        assert done.returncode == 0
    else:
        assert done.returncode == 2
        assert message in done.stderr


def test_one_cpu_is_not_two(program: str) -> None:
    pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
    done = subprocess.run([*pinned, program, "vm_pipe", "9", "1", "cpus", "2"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "two CPUs: No such device" in done.stderr
