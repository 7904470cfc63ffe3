from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from proc import WALL, children_of, descriptors, pipe, threads, until
from taskclone import _core
from watched import PROGRESS

_progress = os.environ.get(PROGRESS)
"""As it is before any test: they change the environment."""


def pytest_runtest_logstart(nodeid: str) -> None:
    if _progress:
        Path(_progress).write_text(nodeid)


def pytest_sessionfinish() -> None:
    if _progress:
        Path(_progress).write_text("after the last test")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


_settled_in: Path | None = None
"""The file whose last test has left nothing."""


def forget_failures() -> None:
    """Their tracebacks hold what a failed test had open."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)


@pytest.fixture
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Proves that a test leaves no child, no zombie, no descriptor and no thread.

    Idle hosts and the keeper are meant to stay, so they are ended first. What follows a result by a moment (a host
    reaps its task, a crashed task's host leaves) is waited for.
    """
    global _settled_in
    if _settled_in != request.path:  # 20 ms: not before each
        forget_failures()
        gc.collect()
    _core.hosts_end()
    assert children_of(os.getpid()) == {}, "children of an earlier test"
    opened, running = descriptors(), threads()  # one that was just joined may be seen a moment longer
    _settled_in = None
    yield
    if request.node.stash.get(FAILED, False):
        return

    def settled() -> bool:
        _core.hosts_end()
        if not children_of(os.getpid()) and descriptors() == opened and threads() <= running:
            return True
        gc.collect()  # tasks in the traceback of an exception that the test has caught
        return False

    try:
        until(settled, "nothing left behind")
    except AssertionError:
        assert children_of(os.getpid()) == {}
        assert descriptors() == opened
        assert threads() - running == set()
        raise
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL)
    _settled_in = request.path


@pytest.fixture
def gate() -> Iterator[tuple[int, int]]:
    """A pipe, for calls that wait until they are let go."""
    with pipe() as ends:
        yield ends


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of our own in the v2 tree, below the one that we are in."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    tree = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    if tree is None:
        pytest.skip("no cgroup v2 tree is mounted here")
    own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    folder = tree / own.lstrip("/") / f"taskclone-test-{os.getpid()}"
    try:
        folder.mkdir()
    except PermissionError:
        pytest.skip("this user has no control group of his own to test with")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    until(lambda: "populated 0\n" in (folder / "cgroup.events").read_text(), "the end of its last task")
    folder.rmdir()
