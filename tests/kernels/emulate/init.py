"""The first process of an emulated machine: runs what /job.json asks for, and switches the machine off.

What it has to tell goes over the second serial line, a line of JSON each: {"boot": RELEASE} first, then for each run
{"begin": NAME} and {"end": NAME, "status": exit status or null, "seconds", "output"}, and {"off": true}. The kernel
has the first line to itself.

In the machine there is nothing but an interpreter with its standard library, and the programs that the tests run.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
import tty
from pathlib import Path
from typing import Any, NoReturn

MOUNTS = {
    "/proc": "proc",
    "/sys": "sysfs",
    "/dev": "devtmpfs",
    "/dev/pts": "devpts",
    "/dev/shm": "tmpfs",
    "/sys/fs/cgroup": "cgroup2",
}
POWER_OFF = 0x4321FEDC  # LINUX_REBOOT_CMD_POWER_OFF, reboot(2)
LONGEST = 30_000
"""Characters of a run's output that are told, from its end."""
JOB, OUTPUT = Path("/job.json"), Path("/run/output")


def mount_all(libc: ctypes.CDLL) -> None:
    for folder, kind in MOUNTS.items():
        os.makedirs(folder, exist_ok=True)
        if libc.mount(kind.encode(), folder.encode(), kind.encode(), 0, None):
            raise OSError(ctypes.get_errno(), f"mount {kind}", folder)
    os.symlink("/proc/self/fd", "/dev/fd")


def become(argv: list[str]) -> NoReturn:
    """In a process of its own: pytest without a new interpreter, for which an emulated machine takes seconds."""
    os.setsid()
    if argv[0] != "pytest":
        os.execve(argv[0], argv, os.environ)
    import pytest

    status = pytest.main(argv[1:])
    sys.stdout.flush()
    os._exit(status)


def end_all_others() -> None:
    """Every process but this one and the first."""
    assert os.getppid() == 1, "not in an emulated machine"
    assert JOB.exists(), "not in an emulated machine"
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def run(argv: list[str], timeout: float) -> dict[str, Any]:
    """Exit status, seconds and output of a run; nothing that it has started lives on."""
    began = time.monotonic()
    with OUTPUT.open("wb") as file:  # and no pipe, which an orphan could hold open
        pid = os.fork()
        if pid == 0:
            os.dup2(file.fileno(), 1)
            os.dup2(1, 2)
            become(argv)
    pidfd = os.pidfd_open(pid)
    in_time, _, _ = select.select([pidfd], [], [], timeout)
    os.close(pidfd)
    end_all_others()
    _, status = os.waitpid(pid, 0)
    output = OUTPUT.read_text(errors="replace")[-LONGEST:]
    return {
        "status": os.waitstatus_to_exitcode(status) if in_time else None,
        "seconds": time.monotonic() - began,
        "output": output if in_time else f"{output}\nended after {timeout:g} s\n",
    }


def work(job: dict[str, Any], line: int) -> None:
    def tell(**what: Any) -> None:
        data = (json.dumps(what) + "\n").encode()
        while data:
            data = data[os.write(line, data) :]

    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    sys.path[:] = [path for path in sys.path if path != "/"]
    sys.path.insert(0, job["environment"]["PYTHONPATH"])
    tell(boot=os.uname().release)
    import pytest

    pytest.main(["--version"])  # loads its plugins, for all runs
    for name, argv in job["runs"].items():
        tell(begin=name)
        tell(end=name, **run(argv, job["timeout"]))
    tell(off=True)


def main() -> None:
    if os.getpid() != 1 or not JOB.exists():
        sys.exit("this is the first process of an emulated machine: see __main__.py")
    libc = ctypes.CDLL(None, use_errno=True)
    mount_all(libc)
    line = os.open("/dev/ttyS1", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    tty.setraw(line)  # it changes no byte on its way
    worker = os.fork()
    if worker == 0:
        work(json.loads(JOB.read_text()), line)
        os._exit(0)
    while os.wait()[0] != worker:  # orphans come to the first process
        pass
    tty.tcdrain(line)
    libc.reboot(POWER_OFF)


if __name__ == "__main__":
    main()
