"""Runs a suite, and ends it with a report where one test takes too long: `watched.py SECONDS ALL COMMAND...`.

A test that hangs is this package's typical failure, and such a test can ask for nothing by itself: the interpreter lock
may be what it waits for. So another process watches. conftest.py writes the name of each test to the file that PROGRESS
names; where it stays the same for SECONDS (or the command does not end that long after its last test), or the whole
takes ALL seconds, every process of the suite is shown with what its threads wait for, pytest is asked for its Python
stacks (SIGABRT: it runs faulthandler), and all are killed. Processes are found by PROGRESS in their environment, so
those whose parent has died are among them.

The suite starts with no signal ignored or blocked, whatever the caller's are: a shell's background job has SIGINT
ignored, and the tests send it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRESS = "TASKCLONE_TEST_PROGRESS"
FAILED = 70
"""The exit status of a suite that hung."""


def plain_signals() -> None:
    """A handler and not SIG_DFL: exec resets it, and Ctrl-C is for the suite, which has its own way to end."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number == signal.SIGINT or signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def processes(progress: Path) -> Iterator[int]:
    wanted = f"{PROGRESS}={progress}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
            except OSError:  # gone meanwhile, or somebody else's
                continue


def said(path: Path) -> str:
    try:
        return path.read_text(errors="replace").replace("\0", " ").strip()
    except OSError as error:
        return f"({error.strerror})"


def show(pid: int) -> None:
    status = dict(line.split(":\t", 1) for line in said(Path(f"/proc/{pid}/status")).splitlines() if ":\t" in line)
    command = said(Path(f"/proc/{pid}/cmdline"))[:300]
    print(f"process {pid}, parent {status.get('PPid')}, {status.get('State')}: {command}")
    for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"):
        print(f"  {name} {status.get(name)}", end="")
    print()
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*")):
        state = said(thread / "stat").rpartition(")")[2][:2]
        waits = f"{said(thread / 'syscall')}; {said(thread / 'wchan')}"
        print(f"  {thread.name} {said(thread / 'comm')}{state}: {waits}")
        for line in said(thread / "stack").splitlines()[:8]:
            print(f"    {line}")


def report(suite: subprocess.Popen[bytes], progress: Path, seconds: float) -> None:
    print(f"\n==== {said(progress)}: no end after {seconds:g} s", flush=True)
    found = sorted(processes(progress))
    for pid in found:
        show(pid)
    sys.stdout.flush()
    suite.send_signal(signal.SIGABRT)
    try:
        suite.wait(20)
    except subprocess.TimeoutExpired:
        print(f"{suite.pid} does not end by SIGABRT")
    for pid in [*found, *processes(progress)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    suite.wait()


def main() -> int:
    seconds, whole, command = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    plain_signals()
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder, "test")
        progress.write_text("before the first test")
        suite = subprocess.Popen(command, env={**os.environ, PROGRESS: str(progress)})
        last, since = "", (begun := time.monotonic())
        while suite.poll() is None:
            if (now := said(progress)) != last:
                last, since = now, time.monotonic()
            if time.monotonic() > min(since + seconds, begun + whole):
                report(suite, progress, time.monotonic() - since)
                return FAILED
            time.sleep(0.5)
        return suite.returncode if suite.returncode >= 0 else 128 - suite.returncode


if __name__ == "__main__":
    sys.exit(main())
