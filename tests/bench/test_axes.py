"""What a worker takes on, as the kernel sees it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from creator import run
from taskclone.bench.axes import AXES, size_text

SEEN = """
from taskclone.bench.axes import AXES
from taskclone.bench.memory import memory_facts
def facts():
    memory = memory_facts()
    maps = len(open("/proc/self/maps").readlines())
    return memory.vmrss_kb, memory.huge_kb, maps, len(os.listdir("/proc/self/fd"))
burden = AXES[{axis!r}].burden()
before = facts()
for size in {sizes}:
    burden.grow_to(size)
print(*(after - was for after, was in zip(facts(), before, strict=True)))
"""


def grown(axis: str, *sizes: int) -> tuple[int, ...]:
    """kB resident, kB in huge pages, mappings and descriptors more than before, in a process apart."""
    status, out, err = run(SEEN.format(axis=axis, sizes=sizes))
    assert (status, err) == (0, "")
    return tuple(map(int, out.split()))


def test_heap() -> None:
    resident, huge, _, descriptors = grown("heap", 2, 2, 8)
    assert 8000 < resident < 9500
    assert (huge, descriptors) == (0, 0)


def test_huge_heap() -> None:
    resident, huge, _, _ = grown("huge", 8)
    chosen = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    assert huge == 0 if "[never]" in chosen else 8192 <= huge <= 10240
    assert 8000 < resident < 11500


def test_mappings() -> None:
    _, _, mappings, descriptors = grown("mappings", 101, 300)
    assert 295 < mappings < 320  # the first may become one with what was there
    assert descriptors == 0


def test_descriptors() -> None:
    _, _, _, descriptors = grown("descriptors", 10, 600)
    assert descriptors == 600


@pytest.mark.parametrize("axis", list(AXES))
def test_it_only_grows(axis: str) -> None:
    burden = AXES[axis].burden()
    burden.grow_to(0)
    burden.grow_to(1)
    burden.grow_to(1)
    assert burden.size == 1
    with pytest.raises(ValueError, match="cannot shrink to 0"):
        burden.grow_to(0)


def test_the_most_that_can_be_had() -> None:
    assert AXES["cpus"].most() == len(os.sched_getaffinity(0))
    assert all(axis.most() > 0 for axis in AXES.values())


def test_sizes_for_people() -> None:
    sizes = [("heap", 2), ("huge", 2), ("mappings", 10), ("cpus", 1), ("cpus", 2)]
    assert [size_text(*size) for size in sizes] == ["2 MB", "2 MB", "10 mappings", "1 CPU", "2 CPUs"]
