"""Creators of their own: scripts that tests run in a process apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from proc import SLOWNESS

TIMEOUT = 20 * SLOWNESS
"""Seconds that a creator has."""
PRELUDE = """
import os, signal, sys, threading, time
from taskclone import *
VFORK = CloneFlags.VFORK
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def start(script: str, *options: str, stdin: int | None = None) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, *options, "-c", PRELUDE + script],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # so that all of it can be ended
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit status, stdout and stderr; after TIMEOUT it is ended, with all that it has started."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=TIMEOUT)
        pytest.fail(f"it hung; stdout: {out!r}, stderr: {err!r}")
    return process.returncode, out, err


def run(script: str, *options: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a creator of its own."""
    return finish(start(script, *options))
