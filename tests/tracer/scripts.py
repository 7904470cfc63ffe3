"""Traced Python programs, and what was seen of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from taskclone.tracer.records import Call, End, Exec, Record
from taskclone.tracer.trace import Trace

PRELUDE = """
import ctypes, errno, mmap, os, signal, struct, sys, threading, time
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


class Traced:
    """A program that has run under the tracer to its end."""

    def __init__(self, *argv: str, timeout: float = 60, linger: float = 10) -> None:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull) as none:
            streams = none.fileno(), out.fileno(), err.fileno()
            self.records: list[Record] = []
            with Trace(argv, streams=streams, timeout=timeout, linger=linger) as trace:
                self.records.extend(trace.records())
            self.program, self.status = trace.program, trace.status
            self.out, self.err = _text(out), _text(err)

    @property
    def calls(self) -> list[Call]:
        return [item for item in self.records if isinstance(item, Call)]

    @property
    def execs(self) -> list[Exec]:
        return [item for item in self.records if isinstance(item, Exec)]

    @property
    def ends(self) -> list[End]:
        return [item for item in self.records if isinstance(item, End)]


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def python(script: str, timeout: float = 60, linger: float = 10) -> Traced:
    """A script that ends well."""
    traced = Traced(sys.executable, "-P", "-c", PRELUDE + script, timeout=timeout, linger=linger)
    assert (traced.status, traced.err) == (0, ""), f"wait status {traced.status}: {traced.err}"
    return traced


def start(script: str) -> subprocess.Popen[str]:
    """A creator in a process of its own, with the same names; it prints to a pipe."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PRELUDE + "from taskclone.tracer.trace import Trace\n" + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path[1:], str(Path(__file__).parents[1])])},
    )
