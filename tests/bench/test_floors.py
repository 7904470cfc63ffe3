from __future__ import annotations

import os
import signal
import threading
import time
from array import array
from pathlib import Path

import pytest

from taskclone import _core

KINDS = ("fork", "pthread", "vm_vfork", "vm")


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def children() -> set[str]:
    """Zombies too, and those without an exit signal."""
    lists = Path("/proc/self/task").glob("*/children")
    return {pid for path in lists for pid in path.read_text().split()}


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_times(kind: str) -> None:
    start, total = (array("Q", values) for values in _core.bare_run(kind, 60, 60.0))
    assert len(start) == len(total) == 60
    assert all(0 < before < after < 10**10 for before, after in zip(start, total, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_says_when_it_begins(kind: str) -> None:
    """After the call and before the end; with VFORK before the call is back too."""
    start, total, first = (array("Q", values) for values in _core.bare_run(f"{kind}_first", 60, 60.0))
    assert len(start) == len(total) == len(first) == 60
    assert all(0 < began < ended for began, ended in zip(first, total, strict=True))
    if kind == "vm_vfork":
        assert all(began < back for began, back in zip(first, start, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left(kind: str) -> None:
    descriptors, threads, before = open_descriptors(), os.listdir("/proc/self/task"), children()
    _core.bare_run(kind, 100, 10.0)
    assert open_descriptors() == descriptors
    assert os.listdir("/proc/self/task") == threads
    assert children() == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_time_limit_ends_it(kind: str) -> None:
    before = time.monotonic()
    start, total = _core.bare_run(kind, 10_000_000, 0.1)
    assert time.monotonic() - before < 5
    assert 0 < len(start) == len(total) < 8 * 10_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_ends_it(kind: str) -> None:
    before = children()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        _core.bare_run(kind, 10_000_000, 60.0)
    timer.join()
    assert children() == before


def test_other_threads_run_meanwhile() -> None:
    seen = []
    worker = threading.Thread(target=_core.bare_run, args=("vm", 10_000_000, 0.5))
    worker.start()
    while worker.is_alive():
        seen.append(time.monotonic())
        time.sleep(0.001)
    assert len(seen) > 10


def test_a_signal_mask_is_put_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    _core.bare_run("vm", 10, 1.0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("arguments", [("nonsense", 1, 1.0), ("fork", 0, 1.0), ("fork", -1, 1.0), ("fork", 1, 0.0)])
def test_bad_values(arguments: tuple[str, int, float]) -> None:
    with pytest.raises(ValueError, match=r"no bare kind|positive"):
        _core.bare_run(*arguments)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_bad_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        _core.bare_run("fork", 1, seconds)


def test_a_failed_start_names_the_call() -> None:
    """With SIGCHLD ignored the kernel reaps; the loop says which call found nothing."""
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(ChildProcessError, match="waitpid"):
            _core.bare_run("fork", 10, 1.0)
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_memcpy_takes_longer_for_more() -> None:
    small, large = (sorted(array("Q", _core.bare_memcpy(size, 50)))[25] for size in (4096, 4 << 20))
    assert 0 < small < large


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0), (-5, 1)])
def test_bad_memcpy(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        _core.bare_memcpy(*arguments)
