from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def build() -> Path:
    """The meson build folder, which has the child's objects and the C programs of csrc/testing."""
    if "TASKCLONE_BUILD" not in os.environ:
        pytest.skip("TASKCLONE_BUILD is unset: it names the build folder with the C programs; make test sets it")
    return Path(os.environ["TASKCLONE_BUILD"])


Steps = Callable[..., dict[str, str]]


@pytest.fixture
def steps(build: Path) -> Steps:
    """Runs one step in csrc/testing/steps.c or steps_signals.c; what it has seen, by key."""

    def run(*arguments: object, pass_fds: tuple[int, ...] = ()) -> dict[str, str]:
        program = build / "csrc" / "testing" / "steps"
        done = subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=20, pass_fds=pass_fds
        )
        assert done.stderr == ""
        return dict(line.split(None, 1) if " " in line else (line, "") for line in done.stdout.splitlines())

    return run
